//! What smoltcp is to make of acknowledgements. Its congestion control grows by one segment with each of them, however much it
//! acknowledges; of those few come where packets are received in batches. It cannot be told otherwise but by acknowledgements:
//! while congestion is what limits a flow, one for many segments becomes one for each, as RFC 3465 counts bytes.
//!
//! To say by three repetitions more what else a window has lost (RFC 6582, 3.2) is no gain: smoltcp narrows its window for each.

use smoltcp::socket::tcp::State;

use super::{
    Context, Flow,
    link::{self, Link},
};
use crate::tcp::{self, ACK, FIN, RST, SYN, Segment, before};

/// The most that one is divided into: what 64 KiB may hold.
const MOST: u32 = 48;

impl Flow {
    /// Tells smoltcp what an acceptable segment acknowledges, one segment after the other, but for the last.
    pub(super) fn divide(&mut self, segment: &Segment, context: &mut Context<'_>) {
        let is_made = !matches!(self.state(), State::Listen | State::SynSent | State::SynReceived);
        let start = self.track.unacknowledged;
        let is_new = segment.has(ACK) && before(start, segment.acknowledgement);
        if !is_made || !is_new || segment.has(SYN | RST) {
            return;
        }
        let size = self.segment_size();
        let all = segment.acknowledgement.wrapping_sub(start);
        if all > size && self.is_held_back {
            for part in 1..(all.div_ceil(size)).min(MOST) {
                self.acknowledge(start.wrapping_add(part * size), segment.window, context);
            }
        }
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

    /// Whether there is something to send that the peer would take: if smoltcp does not send it, congestion is why.
    pub(super) fn is_congested(&self) -> bool {
        let under_way = self.track.next.wrapping_sub(self.track.unacknowledged) as usize;
        let size = self.segment_size() as usize;
        let queued = self.socket().send_queue();
        queued >= under_way + size && self.track.peer_window_bytes() >= under_way + size
    }

    /// Gives smoltcp an acknowledgement without data.
    fn acknowledge(&mut self, acknowledgement: u32, window: u16, context: &mut Context<'_>) {
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
