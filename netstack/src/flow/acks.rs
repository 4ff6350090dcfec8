//! What smoltcp is to make of acknowledgements. Its congestion control grows by one segment with each of them, and it finds
//! one lost segment in each window; the next one costs it a timeout of a second or more. Neither can be told to it but by
//! acknowledgements, so these are what it gets: more than have come, and none that says more than those.
//!
//! - One for many segments, which is all that comes where packets are received in batches, becomes one for each (what RFC 3465
//!   counts in bytes), while congestion is what limits the flow.
//! - One that comes while a loss is repaired, and is not for all that was under way then, says that the segment behind it is
//!   lost, too (RFC 6582, 3.2): it becomes three more that repeat it.

use smoltcp::socket::tcp::State;

use super::{
    Context, Flow,
    link::{self, Link},
};
use crate::tcp::{self, ACK, FIN, RST, SYN, Segment, before};

/// The most that one is divided into: what 64 KiB may hold.
const MOST: u32 = 48;

/// So many that repeat one say that a segment is lost (RFC 5681, 3.2).
const REPEATED: u8 = 3;

/// A loss that is being repaired.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    repeated: u8,
    /// What is before this was under way when the loss was found.
    until: Option<u32>,
    /// smoltcp is about to send a segment again because of what it was told.
    is_prompted: bool,
}

impl Recovery {
    /// Takes note of data that smoltcp sends again.
    pub(super) fn sent_again(&mut self) {
        if !std::mem::take(&mut self.is_prompted) {
            // A timeout: it sends all again.
            *self = Self::default();
        }
    }
}

impl Flow {
    /// Tells smoltcp what an acceptable segment says before it says it; returns how often to repeat it afterwards.
    pub(super) fn prepare(&mut self, segment: &Segment, context: &mut Context<'_>) -> u8 {
        let is_made = !matches!(self.state(), State::Listen | State::SynSent | State::SynReceived);
        if !is_made || !segment.has(ACK) || segment.has(SYN | RST) {
            return 0;
        }
        let unacknowledged = self.track.unacknowledged;
        if before(unacknowledged, segment.acknowledgement) {
            self.recovery.repeated = 0;
            let is_partial = self.recovery.until.is_some_and(|until| before(segment.acknowledgement, until));
            if is_partial {
                self.recovery.is_prompted = true;
                return REPEATED;
            }
            self.recovery.until = None;
            self.divide(segment, context);
        } else if self.repeats(segment) {
            self.recovery.repeated = self.recovery.repeated.saturating_add(1);
            if self.recovery.repeated == REPEATED {
                self.recovery.until = Some(self.track.next);
                self.recovery.is_prompted = true;
            }
        }
        0
    }

    /// Whether a segment only repeats what was acknowledged, while nothing but our FIN is under way. smoltcp would find that
    /// FIN lost after three such, stop its timer, and never send it again.
    pub(super) fn is_idle_repetition(&self, segment: &Segment) -> bool {
        self.socket().send_queue() == 0
            && segment.has(ACK)
            && !segment.has(SYN | RST)
            && self.repeats(segment)
    }

    fn repeats(&self, segment: &Segment) -> bool {
        segment.acknowledgement == self.track.unacknowledged
            && segment.payload == 0
            && !segment.has(FIN)
            && segment.window == self.track.peer_window
            && before(self.track.unacknowledged, self.track.next)
    }

    /// Acknowledges one segment after the other, all but the last.
    fn divide(&mut self, segment: &Segment, context: &mut Context<'_>) {
        let size = self.segment_size();
        let start = self.track.unacknowledged;
        let all = segment.acknowledgement.wrapping_sub(start);
        if all > size && self.is_congested() {
            for part in 1..(all.div_ceil(size)).min(MOST) {
                self.acknowledge(start.wrapping_add(part * size), segment.window, context);
            }
        }
    }

    /// Whether there is something to send that the peer would take.
    fn is_congested(&self) -> bool {
        let under_way = self.track.next.wrapping_sub(self.track.unacknowledged) as usize;
        let size = self.segment_size() as usize;
        let queued = self.socket().send_queue();
        queued >= under_way + size && self.track.peer_window_bytes() >= under_way + size
    }

    /// Gives smoltcp an acknowledgement without data.
    pub(super) fn acknowledge(&mut self, acknowledgement: u32, window: u16, context: &mut Context<'_>) {
        let mut packet = [0; link::HEADER + tcp::HEADER];
        let segment = &mut packet[link::HEADER..];
        segment[..2].copy_from_slice(&self.tuple.remote.port().to_be_bytes());
        segment[2..4].copy_from_slice(&self.tuple.local.port().to_be_bytes());
        segment[4..8].copy_from_slice(&self.expected().to_be_bytes());
        segment[8..12].copy_from_slice(&acknowledgement.to_be_bytes());
        (segment[12], segment[13]) = (0x50, ACK);
        segment[14..16].copy_from_slice(&window.to_be_bytes());
        self.give(&mut packet, context);
    }

    /// Gives smoltcp a packet with room for its IP header.
    pub(super) fn give(&mut self, packet: &mut [u8], context: &mut Context<'_>) {
        super::ingress::write_head(packet);
        let mtu = super::inner_mtu(self.mtu, &self.tuple);
        let mut device = Link { incoming: Some(packet), scratch: context.scratch, mtu };
        let now = context.clock.ticks(context.now);
        self.interface.poll_ingress_single(now, &mut device, &mut self.sockets);
    }
}
