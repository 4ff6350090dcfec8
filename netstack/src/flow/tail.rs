//! The end of a large segment that does not fill a packet.
//!
//! smoltcp makes large segments as long as windows allow, so most end in a short packet in the midst of the stream: up to
//! half as many packets again when windows are narrow. Such an end is kept back for the next large segment, as Nagle's
//! algorithm would (RFC 1122, 4.2.3.4): not longer than until all before it is acknowledged.

use crate::tcp::before;

/// What is kept back; nothing while it is empty.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: Vec<u8>,
    sequence: u32,
    /// The TCP header that it would have been sent with.
    head: Vec<u8>,
    /// Bytes of data in a full packet.
    pub(super) segment: usize,
}

impl Tail {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn sequence(&self) -> u32 {
        self.sequence
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    pub(super) fn end(&self) -> u32 {
        self.sequence.wrapping_add(self.bytes.len() as u32)
    }

    /// Keeps `bytes` back, which were to be sent behind `head`. Its memory stays for the next.
    pub(super) fn keep(&mut self, head: &[u8], sequence: u32, bytes: &[u8], segment: usize) {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        self.head.clear();
        self.head.extend_from_slice(head);
        self.sequence = sequence;
        self.segment = segment;
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Forgets it when the peer has it, or when smoltcp, which believes that it was sent, sends it again.
    pub(super) fn forget_if_sent(&mut self, unacknowledged: u32, again: std::ops::Range<u32>) {
        let is_acknowledged = before(self.sequence, unacknowledged);
        let is_sent_again = !before(self.sequence, again.start) && !before(again.end, self.end());
        if is_acknowledged || is_sent_again {
            self.clear();
        }
    }
}
