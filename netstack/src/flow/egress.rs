//! Segments that go out.

use smoltcp::socket::tcp::State;

use super::{
    Context, Flow,
    link::{self, Link, Scratch},
};
use crate::{
    Output, Run, ip,
    tcp::{FIN, PSH, RST, Segment, before},
};

impl Flow {
    /// Sends what is next, if anything is: up to 64 KiB of the stream. Says whether it did.
    pub(crate) fn send_next(&mut self, context: &mut Context<'_>, out: &mut impl Output) -> bool {
        let mtu = super::inner_mtu(self.mtu, &self.tuple);
        let mut device = Link { incoming: None, scratch: context.scratch, mtu };
        self.interface.poll_egress(context.clock.ticks(context.now), &mut device, &mut self.sockets);
        let has_sent = self.emit(context.scratch, out);
        self.is_held_back = !has_sent && self.is_congested();
        if has_sent {
            return true;
        }
        // Nothing more comes for now that it could be joined to, and no acknowledgement that would bring more.
        let unacknowledged = self.track.unacknowledged;
        if !before(unacknowledged, self.tail.end()) {
            self.tail.clear();
        } else if !self.tail.is_empty() && !before(unacknowledged, self.tail.sequence()) {
            self.send_tail(out);
        }
        false
    }

    /// Ends it with a reset, after what was kept back.
    pub(crate) fn send_reset(&mut self, context: &mut Context<'_>, out: &mut impl Output) {
        if !self.tail.is_empty() {
            self.send_tail(out);
        }
        self.abort();
        self.send_next(context, out);
    }

    /// Sends what smoltcp has written. Says whether that was anything.
    pub(super) fn emit(&mut self, scratch: &mut Scratch, out: &mut impl Output) -> bool {
        let len = std::mem::take(&mut scratch.len);
        let mut size = std::mem::take(&mut scratch.segment);
        if len == 0 {
            return false;
        }
        let at = Scratch::AT + link::HEADER;
        let end = Scratch::AT + len;
        let Some(segment) = Segment::read(&scratch.buffer[at..end]) else { return false };
        self.track.sent(&segment);
        let mut tcp = [0; crate::tcp::MAX_HEADER];
        let tcp = &mut tcp[..segment.header];
        tcp.copy_from_slice(&scratch.buffer[at..at + segment.header]);

        let mut start = at + segment.header;
        let mut sequence = segment.sequence;
        let sends = segment.payload > 0 || segment.has(FIN);
        if !self.tail.is_empty() && sends {
            if self.tail.end() == sequence {
                start -= self.tail.bytes().len();
                scratch.buffer[start..][..self.tail.bytes().len()].copy_from_slice(self.tail.bytes());
                sequence = self.tail.sequence();
                size = self.tail.segment;
                self.tail.clear();
            } else {
                self.tail.forget_if_sent(self.track.unacknowledged, sequence..segment.end());
            }
        }
        // After a timeout smoltcp numbers acknowledgements as if the rest had never been sent. The peer, which may have it,
        // takes no segment from before its window (RFC 9293, 3.10.7.4): two that wait for each other would wait for ever.
        if segment.len() == 0 && !segment.has(RST) {
            sequence = self.track.next;
        }
        tcp[4..8].copy_from_slice(&sequence.to_be_bytes());

        let mut payload = &scratch.buffer[start..end];
        if size > 0 && payload.len() > size && !segment.has(FIN | PSH) && self.tail.is_empty() {
            let rest;
            (payload, rest) = payload.split_at(payload.len() - payload.len() % size);
            if !rest.is_empty() {
                self.tail.keep(tcp, sequence.wrapping_add(payload.len() as u32), rest, size);
            }
        }
        let size = if size == 0 { payload.len() } else { size };
        self.transmit(tcp, payload, size, out);
        true
    }

    /// Sends what was kept back, by itself.
    fn send_tail(&mut self, out: &mut impl Output) {
        let tail = std::mem::take(&mut self.tail);
        let mut tcp = [0; crate::tcp::MAX_HEADER];
        let tcp = &mut tcp[..tail.head().len()];
        tcp.copy_from_slice(tail.head());
        tcp[4..8].copy_from_slice(&tail.sequence().to_be_bytes());
        tcp[8..12].copy_from_slice(&self.track.acknowledged.to_be_bytes());
        tcp[14..16].copy_from_slice(&self.track.window.to_be_bytes());
        self.transmit(tcp, tail.bytes(), tail.segment, out);
        self.tail = tail;
        self.tail.clear();
    }

    fn transmit(&mut self, tcp: &[u8], payload: &[u8], segment: usize, out: &mut impl Output) {
        let ip = &mut self.head[..ip::header_len(self.tuple.local.ip())];
        let mut run = Run::segments(ip, tcp, payload, segment, self.pseudo);
        if ip::is_v4(ip) {
            let id = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(run.count() as u16);
            ip[4..6].copy_from_slice(&id.to_be_bytes());
        }
        out.transmit(&mut run);
    }

    /// Whether a connection that was ended has nothing more to say to its peer.
    pub(crate) fn is_silent(&self) -> bool {
        self.state() == State::Closed && self.socket().remote_endpoint().is_none()
    }
}
