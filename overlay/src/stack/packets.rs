//! Packets between the stack and WireGuard.
//!
//! ```text
//!   out:  stack ─ a run of up to 64 KiB ─► gate, once ─► sealed into a run of datagrams        (Sealer; nothing is copied but into the seal)
//!   in:   opened in place ─► gate, each ─► put together ─► stack ─ answers ─► kept, then sealed (Receiver)
//!   back: refusals of the gate, and WireGuard's own errors ─► kept, then to the stack          (Packets)
//! ```
//!
//! The stack cannot be called while it sends, nor WireGuard while it delivers; what goes against the stream is kept until the call is over.
//! It is little: answers and errors.

use std::time::Instant;

use lattice_filter::Decision;
use lattice_netstack::{Output, Run, Stack};
use lattice_wireguard::Single;

use crate::device::{
    core::{Core, Inside, RELAYED_MTU},
    vnet::{Coalescer, Header},
};

/// Packets kept at most; each batch that comes in has fewer answers.
const MOST: usize = 8192;
/// Bytes kept at most, but for the last packet.
const MOST_BYTES: usize = 512 << 10;

/// Packets, one after another in one buffer.
#[derive(Debug, Default)]
pub(crate) struct Packets {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    lost: u64,
}

impl Packets {
    /// Keeps a packet of `len` bytes that `write` writes; without room for it, it is lost and counted.
    pub(crate) fn push(&mut self, len: usize, write: impl FnOnce(&mut [u8])) {
        let start = self.bytes.len();
        if self.ends.len() < MOST && start < MOST_BYTES {
            self.bytes.resize(start + len, 0);
            write(&mut self.bytes[start..]);
            self.ends.push(start + len);
        } else {
            self.lost += 1;
        }
    }

    /// How many found no room so far.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// Likewise, and begins to count anew.
    pub(crate) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// How many bytes they are together.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Takes them all out, in their order.
    pub(crate) fn drain(&mut self, mut work: impl FnMut(&mut [u8])) {
        let mut start = 0;
        for end in self.ends.drain(..) {
            work(&mut self.bytes[start..end]);
            start = end;
        }
        self.bytes.clear();
    }
}

/// What comes back while the stack cannot be called.
impl Inside for Packets {
    fn take(&mut self, packet: &mut [u8]) {
        self.push(packet.len(), |room| room.copy_from_slice(packet));
    }
}

/// What the stack answers at once.
impl Output for Packets {
    fn transmit(&mut self, run: &mut Run<'_>) {
        while let Some(len) = run.next_len() {
            let lost = self.lost;
            self.push(len, |room| run.write(room));
            if self.lost > lost {
                self.lost = lost + run.count() as u64;
                return;
            }
        }
    }
}

/// Both ways against the stream.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// From the stack, to be sealed.
    pub(super) answers: Packets,
    /// To the stack.
    pub(super) returns: Packets,
}

impl Kept {
    /// Hands on what is kept, in both ways.
    pub(super) fn hand_on(&mut self, core: &mut Core, stack: &mut Stack, now: Instant) {
        let Self { answers, returns } = self;
        returns.drain(|packet| stack.receive(now, packet, answers));
        answers.drain(|packet| {
            let mut sealer = Sealer::new(core, returns, now);
            if sealer.lets_out(packet, 1, packet.len()) {
                match sealer.core.cut(packet) {
                    Some(mut cut) => sealer.core.seal(&mut cut, sealer.returns, now),
                    None => sealer.core.seal(&mut Single::new(packet), sealer.returns, now),
                }
            }
        });
    }
}

/// Hands decrypted packets to the stack, those of a stream put together: most of what a segment costs the stack it costs once, however long it
/// is.
pub(super) struct Receiver<'a> {
    pub(super) stack: &'a mut Stack,
    pub(super) coalescer: &'a mut Coalescer,
    pub(super) answers: &'a mut Packets,
    pub(super) now: Instant,
}

impl Receiver<'_> {
    /// Hands on what was held back.
    pub(super) fn flush(&mut self) {
        let Self { stack, coalescer, answers, now } = self;
        coalescer.flush(|header, packet| receive(stack, header, packet, answers, *now));
    }
}

fn receive(stack: &mut Stack, header: Header, packet: &mut [u8], answers: &mut Packets, now: Instant) {
    if header == Header::default() {
        stack.receive(now, packet, answers);
    } else {
        stack.receive_merged(now, packet, answers);
    }
}

impl Inside for Receiver<'_> {
    fn take(&mut self, packet: &mut [u8]) {
        let Self { stack, coalescer, answers, now } = self;
        coalescer.push(packet, |header, packet| receive(stack, header, packet, answers, *now));
    }
}

/// Seals what the stack sends and the policy lets out.
pub(super) struct Sealer<'a> {
    core: &'a mut Core,
    returns: &'a mut Packets,
    now: Instant,
    /// The last denial.
    pub(super) denied: Option<Decision>,
}

impl<'a> Sealer<'a> {
    pub(super) fn new(core: &'a mut Core, returns: &'a mut Packets, now: Instant) -> Self {
        Self { core, returns, now, denied: None }
    }

    /// Whether the policy lets packets out that begin with `head`. The stack hears of it otherwise, as from a closed door.
    fn lets_out(&mut self, head: &[u8], count: usize, bytes: usize) -> bool {
        let Some(gate) = &mut self.core.outside.gate else { return true };
        let Err(denial) = gate.egress(head, count, bytes) else { return true };
        self.denied = Some(denial.decision);
        if let Some(refusal) = denial.refusal {
            self.returns.push(refusal.len(), |room| room.copy_from_slice(&refusal));
        }
        false
    }
}

impl Output for Sealer<'_> {
    fn transmit(&mut self, run: &mut Run<'_>) {
        if self.lets_out(run.head(), run.count(), run.bytes()) {
            if self.core.is_relayed(run.head()) {
                run.cut_to(RELAYED_MTU);
            }
            self.core.seal(&mut Sealed(run), self.returns, self.now);
        }
    }

    fn is_full(&self) -> bool {
        self.core.outside.udp.is_full()
    }
}

/// A run, as WireGuard takes it: packet by packet, each written to where it is sealed.
struct Sealed<'a, 'b>(&'a mut Run<'b>);

impl lattice_wireguard::Packets for Sealed<'_, '_> {
    fn next_len(&self) -> Option<usize> {
        self.0.next_len()
    }

    fn head(&self) -> &[u8] {
        self.0.head()
    }

    fn write(&mut self, room: &mut [u8]) {
        self.0.write(room);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut packets = Packets::default();
        let most = MOST_BYTES / 1024;
        (0..most + 3).for_each(|_| packets.take(&mut [1; 1024]));
        assert_eq!((packets.ends.len(), packets.lost()), (most, 3));
        packets.drain(|_| {});
        (0..MOST + 2).for_each(|_| packets.take(&mut [1; 20]));
        assert_eq!((packets.ends.len(), packets.lost()), (MOST, 5));
    }
}
