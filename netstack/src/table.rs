//! All flows, by number and by name.

use std::collections::HashMap;

use crate::{FlowId, flow::Flow, tuple::Tuple};

#[derive(Default)]
struct Slot {
    generation: u32,
    flow: Option<Box<Flow>>,
}

/// Finds a flow by its number, or by its 5-tuple. Tables are keyed by chance, so that no peer can choose ports that meet in
/// one place.
#[derive(Default)]
pub(crate) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_tuple: HashMap<Tuple, u32>,
    /// Most packets are of the same flow as the last one.
    last: Option<(Tuple, u32)>,
}

impl Table {
    /// The number of a flow that is about to be inserted.
    pub(crate) fn next_id(&mut self) -> FlowId {
        if self.free.is_empty() {
            self.free.push(self.slots.len() as u32);
            self.slots.push(Slot::default());
        }
        let slot = *self.free.last().expect("just made");
        FlowId { slot, generation: self.slots[slot as usize].generation }
    }

    /// Inserts a flow with the number that was asked for last.
    pub(crate) fn insert(&mut self, flow: Flow) {
        let slot = self.free.pop().expect("its number was asked for");
        debug_assert_eq!(slot, flow.id.slot);
        self.by_tuple.insert(flow.tuple, slot);
        self.slots[slot as usize].flow = Some(Box::new(flow));
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<Box<Flow>> {
        let entry = &mut self.slots[slot as usize];
        let flow = entry.flow.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(slot);
        self.forget_name(&flow.tuple, slot);
        Some(flow)
    }

    /// Lets another flow have a flow's name.
    pub(crate) fn forget_name(&mut self, tuple: &Tuple, slot: u32) {
        self.last = None;
        if self.by_tuple.get(tuple) == Some(&slot) {
            self.by_tuple.remove(tuple);
        }
    }

    pub(crate) fn find(&mut self, tuple: &Tuple) -> Option<u32> {
        if let Some((last, slot)) = &self.last
            && last == tuple
        {
            return Some(*slot);
        }
        let slot = *self.by_tuple.get(tuple)?;
        self.last = Some((*tuple, slot));
        Some(slot)
    }

    pub(crate) fn at(&mut self, slot: u32) -> Option<&mut Flow> {
        self.slots.get_mut(slot as usize)?.flow.as_deref_mut()
    }

    /// How many places there are, taken or not.
    pub(crate) fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// The owner's flow: one that it has closed is not its any more.
    pub(crate) fn get(&mut self, id: FlowId) -> Option<&mut Flow> {
        self.at(id.slot).filter(|flow| flow.id == id && !flow.is_orphan)
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}
