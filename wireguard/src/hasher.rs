//! A fast hash for tables whose keys no stranger chooses: indices, which are random and ours, and networks, which come
//! from the control plane. A stranger only asks for keys; that finds no chain that is not there.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

pub(crate) type FastMap<K, V> = HashMap<K, V, BuildHasherDefault<Multiply>>;

/// 2^64 divided by the golden ratio: odd, without a pattern.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Folds the 128 bits of a product into 64, so that all bits of the key move all bits of the hash.
#[derive(Default)]
pub(crate) struct Multiply(u64);

impl Hasher for Multiply {
    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value ^ FACTOR) * u128::from(FACTOR);
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_u128(&mut self, value: u128) {
        self.write_u64(value as u64);
        self.write_u64((value >> 64) as u64);
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, BuildHasherDefault};

    use super::*;

    #[test]
    fn addresses_in_a_row_spread_over_a_table() {
        let hash = |key: u128| BuildHasherDefault::<Multiply>::default().hash_one(key);
        for shift in [0, 8, 64, 96] {
            for bits in [0, 48] {
                let mut used = vec![0; 1024];
                (0..4096).for_each(|key: u128| used[(hash(key << shift) >> bits) as usize % 1024] += 1);
                // Four each, were they even; a Poisson distribution hardly ever has 20.
                assert!(used.iter().all(|count| *count < 20), "shift {shift}, bits from {bits}");
            }
        }
    }
}
