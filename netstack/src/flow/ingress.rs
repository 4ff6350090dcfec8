//! Segments that come in.

use smoltcp::socket::tcp::State;

use super::{
    Context, Flow,
    link::{self, LOCAL, REMOTE},
    track::Acknowledgement,
};
use crate::{
    Cause, Drops, Output, ip,
    tcp::{self, ACK, Answer, RST, SYN, Segment, before},
};

impl Flow {
    /// Takes a segment of the flow; answers it at once where it must be. `packet` is overwritten.
    pub(crate) fn receive(
        &mut self,
        packet: &mut [u8],
        header: &ip::Header,
        segment: &Segment,
        context: &mut Context<'_>,
        drops: &mut Drops,
        out: &mut impl Output,
    ) {
        let state = self.state();
        if !matches!(state, State::Listen | State::SynSent)
            && !self.is_acceptable(packet, header, segment, state, context, drops, out)
        {
            return;
        }
        let bytes = header.transport - link::HEADER..header.len;
        if segment.has(SYN) {
            self.track.learn(&packet[header.transport..][..segment.header], segment);
        }
        self.alive_at = context.now;
        if self.is_idle_repetition(segment) {
            return;
        }
        // What smoltcp does not look at counts for nothing else either.
        let is_looked_at = matches!(state, State::Listen | State::SynSent) || self.is_in_window(segment);
        if is_looked_at {
            self.divide(segment, context);
        }
        self.give(&mut packet[bytes], context);
        self.take_note(segment, state, is_looked_at);
        self.emit(context.scratch, out);
    }

    /// What the state's change says of the segment that made it.
    fn take_note(&mut self, segment: &Segment, before: State, is_looked_at: bool) {
        let now = self.state();
        if matches!(before, State::Listen | State::SynSent) && now != before && segment.has(SYN) {
            self.track.peer_initial = segment.sequence;
        }
        // Without a connection yet, a segment that does not make it says nothing of it: it may be of an older one.
        let is_of_it = now != State::Closed && now != State::Listen && now != State::SynSent;
        if is_looked_at && is_of_it {
            self.track.received(segment);
        }
        let is_reset = segment.has(RST) && matches!(now, State::Closed | State::Listen);
        if is_reset && now != before {
            let cause = if before == State::SynSent { Cause::Refused } else { Cause::Reset };
            self.news.set_cause(cause);
        }
        if !matches!(now, State::SynSent | State::SynReceived | State::Listen) && !self.is_orphan {
            self.ends_by = None;
        }
        // One that is to be reset anyhow is first sent what it has room for.
        if self.is_orphan && !self.resets && self.socket().recv_queue() > 0 {
            self.abort();
        }
    }

    /// The checks of RFC 5961. What is not acceptable is answered, so that a peer that means it can say it better.
    #[expect(
        clippy::too_many_arguments,
        reason = "a packet, what is known of it, and where answers and counts go"
    )]
    fn is_acceptable(
        &mut self,
        packet: &mut [u8],
        header: &ip::Header,
        segment: &Segment,
        state: State,
        context: &mut Context<'_>,
        drops: &mut Drops,
        out: &mut impl Output,
    ) -> bool {
        let expected = self.expected();
        if segment.has(RST) {
            if segment.sequence == expected {
                return true;
            }
            drops.forged += 1;
            let end = expected.wrapping_add(self.buffers.receive as u32);
            if !before(segment.sequence, expected) && before(segment.sequence, end) {
                self.challenge(expected, context, out);
            }
            return false;
        }
        if segment.has(SYN) {
            // The peer has not had our answer to its SYN; smoltcp sends it again.
            let is_repeated = state == State::SynReceived && segment.sequence == self.track.peer_initial;
            if !is_repeated {
                drops.forged += 1;
                self.challenge(expected, context, out);
            }
            return false;
        }
        if !segment.has(ACK) {
            drops.malformed += 1;
            return false;
        }
        match self.track.judge(segment.acknowledgement) {
            Acknowledgement::Impossible if state != State::SynReceived => {
                drops.forged += 1;
                self.challenge(expected, context, out);
                return false;
            }
            // smoltcp would drop it with its data: say what the peer has said since.
            Acknowledgement::Old if segment.len() > 0 => {
                let fields = &mut packet[header.transport..];
                fields[8..12].copy_from_slice(&self.track.unacknowledged.to_be_bytes());
                fields[14..16].copy_from_slice(&self.track.peer_window.to_be_bytes());
            }
            _ => {}
        }
        true
    }

    /// Whether a segment has something of what is expected, or stands where that would (RFC 9293, 3.10.7.4).
    fn is_in_window(&self, segment: &Segment) -> bool {
        let expected = self.expected();
        let is_ahead = (segment.sequence.wrapping_sub(expected) as usize) <= self.buffers.receive;
        is_ahead || (before(segment.sequence, expected) && before(expected, segment.end()))
    }

    /// Says what would be acceptable.
    fn challenge(&mut self, expected: u32, context: &Context<'_>, out: &mut impl Output) {
        if self.track.may_challenge(context.now) {
            let (sequence, window) = (self.track.next, self.track.window);
            Answer { sequence, acknowledgement: expected, flags: ACK, window }.send(&self.tuple, out);
        }
    }
}

/// Writes the IP header that smoltcp is to see. smoltcp checks no checksum: ours has been checked.
pub(super) fn write_head(packet: &mut [u8]) {
    let len = packet.len() as u16;
    let head = &mut packet[..link::HEADER];
    head.fill(0);
    head[0] = 0x45;
    head[2..4].copy_from_slice(&len.to_be_bytes());
    (head[8], head[9]) = (64, ip::TCP);
    head[12..16].copy_from_slice(&REMOTE.octets());
    head[16..20].copy_from_slice(&LOCAL.octets());
    // Nothing here makes urgent data of anything (RFC 6093).
    packet[link::HEADER + 13] &= !tcp::URG;
}
