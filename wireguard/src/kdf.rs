//! Hash, MACs and key derivation (section 5.4 of the WireGuard paper), all by BLAKE2s (RFC 7693).

use blake2::{
    Blake2s256, Blake2sMac, Digest,
    digest::{FixedOutput, KeyInit, Mac, consts::U16},
};
use zeroize::Zeroizing;

/// A hash, a public key, or one half of a Diffie-Hellman.
pub(crate) type Bytes32 = [u8; 32];

/// A derived key; wiped when dropped.
pub(crate) type Key = Zeroizing<Bytes32>;

/// BLAKE2s works on blocks of this many bytes; HMAC pads its key to one.
const BLOCK: usize = 64;

/// `Hash` of the parts, one after the other.
pub(crate) fn hash(parts: &[&[u8]]) -> Bytes32 {
    let mut hash = Blake2s256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// `Mac`: keyed BLAKE2s with 16 bytes of output. The key has at most 32 bytes.
pub(crate) fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(key).expect("a key of at most 32 bytes");
    parts.iter().for_each(|part| Mac::update(&mut mac, part));
    mac.finalize_fixed().into()
}

/// `Hmac` (RFC 2104): the keys of this protocol are all shorter than a block.
fn hmac(key: &Bytes32, parts: &[&[u8]]) -> Key {
    let mut block = Zeroizing::new([0; BLOCK]);
    block[..key.len()].copy_from_slice(key);
    block.iter_mut().for_each(|byte| *byte ^= 0x36);
    let mut inner = Blake2s256::new_with_prefix(*block);
    parts.iter().for_each(|part| inner.update(part));
    block.iter_mut().for_each(|byte| *byte ^= 0x36 ^ 0x5c);
    let outer = Blake2s256::new_with_prefix(*block).chain_update(inner.finalize());
    Zeroizing::new(outer.finalize().into())
}

/// `Kdf` with `N` outputs: HKDF (RFC 5869) without a label.
pub(crate) fn kdf<const N: usize>(key: &Bytes32, input: &[u8]) -> [Key; N] {
    let secret = hmac(key, &[input]);
    let mut previous: Option<Key> = None;
    let mut number = 0;
    std::array::from_fn(|_| {
        number += 1;
        let before = previous.as_ref().map_or(&[][..], |key| key.as_slice());
        let output = hmac(&secret, &[before, &[number]]);
        previous = Some(output.clone());
        output
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn hashes_as_rfc_7693_appendix_b_does() {
        let expected = "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982";
        assert_eq!(hex(&hash(&[b"a", b"bc"])), expected);
    }

    #[test]
    fn derives_one_key_from_another() {
        let [one] = kdf::<1>(&[1; 32], b"input");
        let [first, second, third] = kdf::<3>(&[1; 32], b"input");
        assert_eq!(one, first);
        assert!(first != second && second != third && first != third);
        assert_eq!(*second, *hmac(&hmac(&[1; 32], &[b"input"]), &[first.as_slice(), &[2]]));
    }
}
