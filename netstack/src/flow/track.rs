//! Sequence numbers of one flow. smoltcp keeps its own to itself; ours are read from what passes, and are for the checks of
//! RFC 5961 that smoltcp does not do.

use std::time::{Duration, Instant};

use crate::tcp::{self, ACK, Options, RST, SYN, Segment, before};

/// Between two answers to what may be forged (RFC 5961, 7). A peer that has lost the connection repeats itself.
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(500);

/// How far back an acknowledgement may lie (RFC 5961, 5): the largest window there is.
const MAX_WINDOW: u32 = 1 << 30;

#[derive(Debug, Default)]
pub(super) struct Track {
    /// The first that the peer has not acknowledged, and the first that it was never sent.
    pub(super) unacknowledged: u32,
    pub(super) next: u32,
    /// As `next`, with what was sent beyond a closed window to find out whether it has opened.
    probed: u32,
    /// The peer's initial sequence number.
    pub(super) peer_initial: u32,
    /// Bytes that the owner has read.
    pub(super) read: u32,
    /// The window that the peer last announced, as it stands in the header.
    pub(super) peer_window: u16,
    scale: u8,
    /// The most data that the peer takes in a segment.
    pub(super) peer_segment: u16,
    /// The last acknowledgement and window that were sent.
    pub(super) acknowledged: u32,
    pub(super) window: u16,
    has_sent: bool,
    challenged_at: Option<Instant>,
}

/// What an acknowledgement is worth.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Acknowledgement {
    /// Of something that is on its way, or the last one again.
    Fine,
    /// An older one, of a segment that was overtaken by others.
    Old,
    /// Of what was never sent, or too old to be of this connection's.
    Impossible,
}

impl Track {
    /// Takes note of a segment that smoltcp sends.
    pub(super) fn sent(&mut self, segment: &Segment) {
        // It ends this flow, or answers what is none of its segments, with a sequence number of theirs.
        if segment.has(RST) {
            return;
        }
        if segment.has(SYN) && !self.has_sent {
            (self.unacknowledged, self.next, self.has_sent) = (segment.sequence, segment.sequence, true);
            self.probed = self.next;
        }
        let is_probe = segment.payload == 1 && self.peer_window == 0;
        if !is_probe && before(self.next, segment.end()) {
            self.next = segment.end();
        }
        if before(self.probed, segment.end()) {
            self.probed = segment.end();
        }
        (self.acknowledged, self.window) = (segment.acknowledgement, segment.window);
    }

    /// Takes note of what the peer's SYN says of it.
    pub(super) fn learn(&mut self, header: &[u8], segment: &Segment) {
        let options = Options::read(&header[tcp::HEADER..segment.header]);
        (self.scale, self.peer_segment) = (options.scale, options.segment);
    }

    /// The window that the peer last announced, in bytes.
    pub(super) fn peer_window_bytes(&self) -> usize {
        usize::from(self.peer_window) << self.scale
    }

    /// Takes note of a segment that smoltcp gets.
    pub(super) fn received(&mut self, segment: &Segment) {
        if segment.has(ACK) && before(self.unacknowledged, segment.acknowledgement) {
            self.unacknowledged = segment.acknowledgement;
        }
        if before(self.next, self.unacknowledged) {
            self.next = self.unacknowledged;
        }
        self.peer_window = segment.window;
    }

    pub(super) fn judge(&self, acknowledgement: u32) -> Acknowledgement {
        if before(self.probed, acknowledgement)
            || before(acknowledgement, self.unacknowledged.wrapping_sub(MAX_WINDOW))
        {
            Acknowledgement::Impossible
        } else if before(acknowledgement, self.unacknowledged) {
            Acknowledgement::Old
        } else {
            Acknowledgement::Fine
        }
    }

    /// Whether a sequence number is one of what is on its way (RFC 5927, 4).
    pub(super) fn is_on_its_way(&self, sequence: u32) -> bool {
        !before(sequence, self.unacknowledged) && before(sequence, self.probed)
    }

    /// Whether a challenge may be sent now.
    pub(super) fn may_challenge(&mut self, now: Instant) -> bool {
        let may = self.challenged_at.is_none_or(|at| now.saturating_duration_since(at) >= CHALLENGE_INTERVAL);
        if may {
            self.challenged_at = Some(now);
        }
        may
    }
}
