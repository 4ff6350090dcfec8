//! The Internet checksum (RFC 1071). Sums are of 16-bit words in this machine's byte order: the result comes out in the
//! order in which it is written (section 2B).

use std::net::IpAddr;

/// The sum of `bytes`, not yet folded. They begin at an even place of what is summed.
#[inline]
pub fn sum(bytes: &[u8]) -> u64 {
    // Eight sums side by side, which the compiler puts into vector registers.
    let mut lanes = [0_u64; 8];
    let (blocks, rest) = bytes.as_chunks::<32>();
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    let (words, odd) = rest.as_chunks::<2>();
    let words: u64 = words.iter().map(|word| u64::from(u16::from_ne_bytes(*word))).sum();
    let odd = odd.first().map_or(0, |byte| u64::from(u16::from_ne_bytes([*byte, 0])));
    lanes.iter().sum::<u64>() + words + odd
}

/// A sum of 16 bits.
#[inline]
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The checksum over what adds up to `sum`, as it is written.
#[inline]
pub fn finish(sum: u64) -> [u8; 2] {
    (!fold(sum)).to_ne_bytes()
}

/// Whether what adds up to `sum` includes its right checksum.
pub(crate) fn is_right(sum: u64) -> bool {
    finish(sum) == [0, 0]
}

/// The sum of the pseudo-header (RFC 9293, 3.1; RFC 8200, 8.1) before `len` bytes of `protocol`.
pub(crate) fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> u64 {
    let address = |address| match address {
        IpAddr::V4(v4) => sum(&v4.octets()),
        IpAddr::V6(v6) => sum(&v6.octets()),
    };
    address(source) + address(destination) + word(protocol.into()) + word(len)
}

/// A number of 16 bits as a summand.
#[inline]
pub fn word(value: usize) -> u64 {
    u64::from((value as u16).to_be())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn as_in_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(finish(sum(&bytes)), [0x22, 0x0d]);
        assert_eq!(fold(0xffff_ffff_ffff_ffff), 0xffff);
        assert!(is_right(sum(&bytes) + sum(&[0x22, 0x0d])));
        assert!(!is_right(sum(&bytes) + sum(&[0x22, 0x0c])));
    }

    proptest! {
        #[test]
        fn as_one_word_after_the_other(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let slow = bytes.chunks(2).fold(0_u32, |sum, word| {
                let sum = sum + u32::from(word[0]) * 256 + u32::from(*word.get(1).unwrap_or(&0));
                (sum & 0xffff) + (sum >> 16)
            });
            prop_assert_eq!(finish(sum(&bytes)), (!(slow as u16)).to_be_bytes());
        }
    }
}
