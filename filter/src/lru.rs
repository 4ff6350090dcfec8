//! A hash table of bounded size that forgets what has not been used for longest.
//!
//! Nodes lie in one vector that grows up to its capacity and never beyond; indices chain them by bucket and by age. Every
//! operation takes constant time: the hash is keyed with a random seed, so chains stay as short as chance makes them.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    ops::{Index, IndexMut},
};

/// No node.
const NIL: u16 = u16::MAX;

pub(crate) struct Lru<K, V> {
    seed: RandomState,
    /// The first node of each bucket. A power of two of them, at least twice as many as nodes, and at most 2¹⁶.
    buckets: Vec<u16>,
    nodes: Vec<Node<K, V>>,
    capacity: u16,
    newest: u16,
    oldest: u16,
    /// The first of the removed nodes, chained by `next`.
    free: u16,
}

struct Node<K, V> {
    key: K,
    value: V,
    bucket: u16,
    next: u16,
    newer: u16,
    older: u16,
}

/// Where an entry is, until the table is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(u16);

impl<K: Hash + Eq, V> Lru<K, V> {
    /// An empty table for at most `capacity` entries, from 1 to 2¹⁵.
    pub(crate) fn new(capacity: u16) -> Self {
        debug_assert!((1..=1 << 15).contains(&capacity));
        let buckets = (2 * usize::from(capacity)).next_power_of_two();
        Self {
            seed: RandomState::new(),
            buckets: vec![NIL; buckets],
            nodes: Vec::with_capacity(capacity.into()),
            capacity,
            newest: NIL,
            oldest: NIL,
            free: NIL,
        }
    }

    pub(crate) fn find(&self, key: &K) -> Option<Slot> {
        self.find_in(self.bucket(key), key)
    }

    fn find_in(&self, bucket: u16, key: &K) -> Option<Slot> {
        let mut at = self.buckets[usize::from(bucket)];
        while at != NIL {
            let node = self.node(at);
            if node.key == *key {
                return Some(Slot(at));
            }
            at = node.next;
        }
        None
    }

    /// Adds an entry, or replaces the one of that key; it is the newest then. The oldest gives way when there is no room.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        let bucket = self.bucket(&key);
        if let Some(slot) = self.find_in(bucket, &key) {
            self[slot] = value;
            return self.refresh(slot);
        }
        if self.free == NIL && self.nodes.len() == usize::from(self.capacity) {
            self.remove(Slot(self.oldest));
        }
        let next = self.buckets[usize::from(bucket)];
        let node = Node { key, value, bucket, next, newer: NIL, older: NIL };
        let at = if self.free == NIL {
            self.nodes.push(node);
            (self.nodes.len() - 1) as u16
        } else {
            let at = self.free;
            self.free = self.node(at).next;
            *self.node_mut(at) = node;
            at
        };
        self.buckets[usize::from(bucket)] = at;
        self.link(at);
    }

    pub(crate) fn remove(&mut self, slot: Slot) {
        let at = slot.0;
        let (bucket, next) = (usize::from(self.node(at).bucket), self.node(at).next);
        if self.buckets[bucket] == at {
            self.buckets[bucket] = next;
        } else {
            let mut before = self.buckets[bucket];
            while self.node(before).next != at {
                before = self.node(before).next;
            }
            self.node_mut(before).next = next;
        }
        self.unlink(at);
        self.node_mut(at).next = self.free;
        self.free = at;
    }

    /// Makes an entry the newest.
    pub(crate) fn refresh(&mut self, slot: Slot) {
        if self.newest != slot.0 {
            self.unlink(slot.0);
            self.link(slot.0);
        }
    }

    fn bucket(&self, key: &K) -> u16 {
        (self.seed.hash_one(key) as usize & (self.buckets.len() - 1)) as u16
    }

    fn link(&mut self, at: u16) {
        let older = self.newest;
        self.node_mut(at).newer = NIL;
        self.node_mut(at).older = older;
        match older {
            NIL => self.oldest = at,
            older => self.node_mut(older).newer = at,
        }
        self.newest = at;
    }

    fn unlink(&mut self, at: u16) {
        let (newer, older) = (self.node(at).newer, self.node(at).older);
        match newer {
            NIL => self.newest = older,
            newer => self.node_mut(newer).older = older,
        }
        match older {
            NIL => self.oldest = newer,
            older => self.node_mut(older).newer = newer,
        }
    }

    fn node(&self, at: u16) -> &Node<K, V> {
        &self.nodes[usize::from(at)]
    }

    fn node_mut(&mut self, at: u16) -> &mut Node<K, V> {
        &mut self.nodes[usize::from(at)]
    }
}

impl<K, V> Index<Slot> for Lru<K, V> {
    type Output = V;
    fn index(&self, slot: Slot) -> &V {
        &self.nodes[usize::from(slot.0)].value
    }
}

impl<K, V> IndexMut<Slot> for Lru<K, V> {
    fn index_mut(&mut self, slot: Slot) -> &mut V {
        &mut self.nodes[usize::from(slot.0)].value
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u8, u32),
        Remove(u8),
        Refresh(u8),
        Find(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..24u8, any::<u32>()).prop_map(|(key, value)| Step::Insert(key, value)),
            1 => (0..24u8).prop_map(Step::Remove),
            1 => (0..24u8).prop_map(Step::Refresh),
            1 => (0..24u8).prop_map(Step::Find),
        ]
    }

    proptest! {
        #[test]
        fn is_a_list_that_is_looked_through_from_the_newest(capacity in 1..12u16, steps in vec(step(), 0..200)) {
            let mut lru = Lru::new(capacity);
            // Oldest first.
            let mut list: Vec<(u8, u32)> = Vec::new();
            for step in steps {
                let place = |list: &[(u8, u32)], key| list.iter().position(|(k, _)| *k == key);
                match step {
                    Step::Insert(key, value) => {
                        lru.insert(key, value);
                        match place(&list, key) {
                            Some(at) => drop(list.remove(at)),
                            None if list.len() == usize::from(capacity) => drop(list.remove(0)),
                            None => {}
                        }
                        list.push((key, value));
                    }
                    Step::Remove(key) => {
                        if let Some(slot) = lru.find(&key) {
                            lru.remove(slot);
                        }
                        list.retain(|(k, _)| *k != key);
                    }
                    Step::Refresh(key) => {
                        if let Some(slot) = lru.find(&key) {
                            lru.refresh(slot);
                        }
                        if let Some(at) = place(&list, key) {
                            let entry = list.remove(at);
                            list.push(entry);
                        }
                    }
                    Step::Find(key) => {
                        let found = lru.find(&key).map(|slot| lru[slot]);
                        prop_assert_eq!(found, place(&list, key).map(|at| list[at].1));
                    }
                }
                prop_assert!(lru.nodes.len() <= usize::from(capacity));
            }
            for key in 0..24 {
                let found = lru.find(&key).map(|slot| lru[slot]);
                prop_assert_eq!(found, list.iter().find(|(k, _)| *k == key).map(|(_, value)| *value));
            }
        }
    }
}
