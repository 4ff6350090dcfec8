//! How much each flow's buffers get of the memory that all share.

use crate::Limits;

/// Of what is left beyond what each flow is sure of, a new one gets this share for each direction.
const SHARE: usize = 64;

/// The size of one flow's buffers, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Buffers {
    pub(crate) receive: usize,
    pub(crate) send: usize,
}

/// All memory, and who has some. smoltcp's buffers do not grow, and its window scale is fixed by their size, so what a flow
/// may ever need is reserved for it at once. That costs address space alone: the allocator hands such buffers out as zero
/// pages of the kernel's, which become memory as they are written to.
#[derive(Debug)]
pub(crate) struct Memory {
    limits: Limits,
    /// Beyond what each flow is sure of.
    spare: usize,
    flows: usize,
}

impl Memory {
    /// All of it; `None` when it is too little for all flows.
    pub(crate) fn new(limits: Limits) -> Option<Self> {
        let spare = limits.memory.checked_sub(limits.flows.checked_mul(2 * Limits::MIN_BUFFER)?)?;
        Some(Self { limits, spare, flows: 0 })
    }

    /// Reserves one flow's; `None` when there are as many flows as may be.
    pub(crate) fn reserve(&mut self) -> Option<Buffers> {
        if self.flows == self.limits.flows {
            return None;
        }
        let share = self.spare / SHARE;
        let size = |most: usize| (Limits::MIN_BUFFER + share).min(most.max(Limits::MIN_BUFFER));
        let buffers =
            Buffers { receive: size(self.limits.receive_buffer), send: size(self.limits.send_buffer) };
        self.flows += 1;
        self.spare -= extra(buffers);
        Some(buffers)
    }

    /// Takes a flow's back.
    pub(crate) fn release(&mut self, buffers: Buffers) {
        self.flows -= 1;
        self.spare += extra(buffers);
    }

    /// How many bytes are reserved.
    #[cfg(test)]
    fn reserved(&self) -> usize {
        let all = self.limits.memory - self.limits.flows * 2 * Limits::MIN_BUFFER;
        all - self.spare + self.flows * 2 * Limits::MIN_BUFFER
    }
}

fn extra(buffers: Buffers) -> usize {
    buffers.receive + buffers.send - 2 * Limits::MIN_BUFFER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_flows_get_much_the_last_what_they_are_sure_of_and_all_never_more_than_there_is() {
        let limits = Limits { flows: 300, memory: 32 << 20, receive_buffer: 256 << 10, ..Limits::default() };
        let mut memory = Memory::new(limits).unwrap();
        let all: Vec<_> = (0..300).map(|_| memory.reserve().unwrap()).collect();
        assert_eq!(memory.reserve(), None);
        assert_eq!(all[0].receive, 256 << 10);
        assert!(all[0].send > 256 << 10);
        assert!(all.iter().all(|got| got.receive >= Limits::MIN_BUFFER && got.send >= Limits::MIN_BUFFER));
        assert!(all[299].send < 20 << 10);
        assert_eq!(all.iter().map(|got| got.receive + got.send).sum::<usize>(), memory.reserved());
        assert!(memory.reserved() <= limits.memory);
        all.iter().for_each(|got| memory.release(*got));
        assert_eq!(memory.reserved(), 0);
        assert_eq!(memory.reserve(), Some(all[0]));
    }

    #[test]
    fn too_little_is_refused() {
        assert!(Memory::new(Limits { flows: 1000, memory: 1 << 20, ..Limits::default() }).is_none());
    }
}
