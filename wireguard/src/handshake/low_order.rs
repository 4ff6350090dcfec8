//! The public keys with which a Diffie-Hellman has an outcome that everybody knows (RFC 7748 section 6.1).

use crate::kdf::Bytes32;

/// All points of low order of the curve and of its twist, as cr.yp.to/ecdh.html lists them, but for the highest bit, which
/// X25519 does not read.
const LOW_ORDER: [Bytes32; 7] = [
    // 0, 1
    [0; 32],
    small(1),
    // of order 8
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda,
        0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04,
        0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    // p - 1, p, p + 1, where p is 2^255 - 19
    near_p(0xec),
    near_p(0xed),
    near_p(0xee),
];

/// Whether a key is of low order. It is public: the time that this takes tells nothing.
pub(super) fn is_low_order(key: &Bytes32) -> bool {
    let mut key = *key;
    key[31] &= 0x7f;
    LOW_ORDER.contains(&key)
}

const fn small(number: u8) -> Bytes32 {
    let mut key = [0; 32];
    key[0] = number;
    key
}

const fn near_p(low: u8) -> Bytes32 {
    let mut key = [0xff; 32];
    key[0] = low;
    key[31] = 0x7f;
    key
}

#[cfg(test)]
mod tests {
    use x25519_dalek::StaticSecret;

    use super::{super::diffie_hellman, *};

    #[test]
    fn each_listed_point_makes_no_secret_and_its_neighbours_do() {
        let secret = StaticSecret::from([9; 32]);
        for mut point in LOW_ORDER {
            for bit in [0, 0x80] {
                point[31] ^= bit;
                assert!(is_low_order(&point) && diffie_hellman(&secret, &point).is_err(), "{point:x?}");
            }
            point[1] ^= 4;
            assert!(!is_low_order(&point) && diffie_hellman(&secret, &point).is_ok(), "{point:x?}");
        }
    }
}
