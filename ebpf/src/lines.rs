//! The maps `POLICY` and `PORTS`: the lines of each policy, in its slot.
//!
//! A slot is filled and cleared line by line while packets are judged by others. Nothing waits for a grace period: the kernel
//! frees a line only when no program can still look at it, and a program that was held up until its slot was cleared notices
//! (`is_outdated` in `bpf/policy.h`).

use aya::{
    Pod,
    maps::{LpmTrie, MapData, MapError, lpm_trie::Key},
};
use nix::errno::Errno;

use crate::{
    EbpfError,
    abi::{PortKey, PortValue, PrefixKey, PrefixValue, SLOTS},
    lpm::Tries,
};

pub(crate) struct Lines {
    prefixes: Slotted<PrefixKey, PrefixValue>,
    ports: Slotted<PortKey, PortValue>,
}

impl Lines {
    /// Takes over what the tries hold.
    pub(crate) fn new(
        prefixes: LpmTrie<MapData, PrefixKey, PrefixValue>,
        ports: LpmTrie<MapData, PortKey, PortValue>,
    ) -> Result<Self, EbpfError> {
        Ok(Self {
            prefixes: Slotted::new("POLICY", prefixes, |key| key.slot)?,
            ports: Slotted::new("PORTS", ports, |key| key.slot)?,
        })
    }

    /// Writes a slot that is clear.
    pub(crate) fn fill(&mut self, slot: u8, tries: &Tries) -> Result<(), EbpfError> {
        self.ports.fill(slot, &tries.ports)?;
        self.prefixes.fill(slot, &tries.prefixes)
    }

    /// Clears a slot, which may be already.
    pub(crate) fn clear(&mut self, slot: u8) -> Result<(), EbpfError> {
        self.prefixes.clear(slot)?;
        self.ports.clear(slot)
    }
}

/// A trie, and what each slot has in it.
struct Slotted<K: Pod, V: Pod> {
    name: &'static str,
    trie: LpmTrie<MapData, K, V>,
    held: [Vec<Key<K>>; SLOTS as usize],
}

impl<K: Pod, V: Pod> Slotted<K, V> {
    fn new(
        name: &'static str,
        trie: LpmTrie<MapData, K, V>,
        slot_of: impl Fn(&K) -> u8,
    ) -> Result<Self, EbpfError> {
        let mut held = [const { Vec::new() }; SLOTS as usize];
        for key in trie.keys() {
            let key = key.map_err(EbpfError::map("list", name))?;
            if let Some(held) = held.get_mut(usize::from(slot_of(&key.data()))) {
                held.push(key);
            }
        }
        Ok(Self { name, trie, held })
    }

    fn fill(&mut self, slot: u8, lines: &[(Key<K>, V)]) -> Result<(), EbpfError> {
        let Self { name, trie, held } = self;
        let held = &mut held[usize::from(slot)];
        for (key, value) in lines {
            trie.insert(key, value, 0).map_err(EbpfError::map("add a line of a policy", name))?;
            held.push(*key);
        }
        Ok(())
    }

    fn clear(&mut self, slot: u8) -> Result<(), EbpfError> {
        let Self { name, trie, held } = self;
        let held = &mut held[usize::from(slot)];
        while let Some(key) = held.last() {
            match trie.remove(key) {
                Err(error) if !is_missing(&error) => {
                    return Err(EbpfError::map("remove a line of a policy", name)(error));
                }
                _ => held.pop(),
            };
        }
        // What a long policy took.
        *held = Vec::new();
        Ok(())
    }
}

/// Of a line that was written twice.
fn is_missing(error: &MapError) -> bool {
    matches!(error, MapError::SyscallError(error) if error.io_error.raw_os_error() == Some(Errno::ENOENT as i32))
}
