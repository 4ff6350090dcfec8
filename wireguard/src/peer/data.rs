//! Data messages to and from a peer (section 5.4.6).

use std::time::Instant;

use super::Peer;
use crate::{
    Output, Path,
    limits::{KEEPALIVE_TIMEOUT, REJECT_AFTER_TIME, REKEY_AFTER_TIME, REKEY_TIMEOUT},
    message::{DATA_HEADER_LEN, DATA_OVERHEAD},
    shared::Shared,
    symmetric::NotAuthentic,
};

/// Packets are padded to a multiple of this (section 5.4.6).
const PADDING: usize = 16;

impl Peer {
    /// Encrypts a packet of `len` bytes, which `write` writes to where it is sealed. False, and nothing is written, when
    /// there is no session for it. Call [`Peer::data_sent`] after the last of some.
    pub(crate) fn send(
        &mut self,
        len: usize,
        mtu: usize,
        now: Instant,
        out: &mut impl Output,
        write: impl FnOnce(&mut [u8]),
    ) -> bool {
        let (Some(path), Some(session)) = (self.paths.best(), self.sessions.current()) else { return false };
        let Some(counter) = session.take_counter(now) else { return false };
        let padded = len.next_multiple_of(PADDING).min(mtu.max(len));
        out.transmit(path, padded + DATA_OVERHEAD, |room| {
            let (packet, padding) = room[DATA_HEADER_LEN..][..padded].split_at_mut(len);
            write(packet);
            padding.fill(0);
            session.seal(counter, room);
        });
        self.tx_bytes += (padded + DATA_OVERHEAD) as u64;
        true
    }

    /// After packets were sent: the peer is to answer in time, and the session's initiator renews it in time (6.2).
    pub(crate) fn data_sent(&mut self, now: Instant, shared: &mut Shared, out: &mut impl Output) {
        self.timers.data_sent(now);
        self.renew_if_older(REKEY_AFTER_TIME, now, shared, out);
    }

    /// Keeps a packet until there is a session, and sees that there will be.
    pub(crate) fn queue(
        &mut self,
        packet: Box<[u8]>,
        now: Instant,
        shared: &mut Shared,
        out: &mut impl Output,
    ) {
        shared.drops.queue += self.queue.push(packet, &mut shared.budget);
        self.timers.packet_queued(now);
        self.want_session(now, shared, out);
    }

    pub(super) fn send_queued(&mut self, now: Instant, shared: &mut Shared, out: &mut impl Output) {
        let mut any = false;
        while self.sessions.is_connected(now)
            && let Some(packet) = self.queue.pop(&mut shared.budget)
        {
            any |= self.send(packet.len(), shared.mtu, now, out, |room| room.copy_from_slice(&packet));
        }
        if any {
            self.data_sent(now, shared, out);
        }
    }

    /// Whether the current session is not known to the peer by any message of ours.
    pub(super) fn has_sent_nothing(&mut self) -> bool {
        self.sessions.current().is_some_and(|session| session.is_unused())
    }

    /// Sends an empty message, or gets a session to do so.
    pub(super) fn send_keepalive(&mut self, now: Instant, shared: &mut Shared, out: &mut impl Output) {
        if self.send(0, shared.mtu, now, out, |_| {}) {
            self.timers.anything_sent(now);
            self.renew_if_older(REKEY_AFTER_TIME, now, shared, out);
        } else {
            self.want_session(now, shared, out);
        }
    }

    /// Decrypts a data message in place; returns the padded packet, empty when it was a keepalive.
    ///
    /// # Errors
    /// When it is not authentic, a replay, or for no session.
    pub(crate) fn open<'a>(
        &mut self,
        (receiver, counter): (u32, u64),
        datagram: &'a mut [u8],
        from: Path,
        now: Instant,
        shared: &mut Shared,
        out: &mut impl Output,
    ) -> Result<&'a mut [u8], NotAuthentic> {
        let len = datagram.len();
        let session = self.sessions.find(receiver).ok_or(NotAuthentic)?;
        let packet = session.open(counter, datagram, now)?;
        self.hear(from, len, now);
        self.retransmit = None;
        if packet.is_empty() {
            self.timers.anything_received(now);
        } else {
            self.timers.data_received(now);
        }
        if let Some(freed) = self.sessions.confirm(receiver) {
            shared.indices.release(freed);
            self.complete(now, shared, out);
        }
        // So late that a peer that only sends would lose the session before our next message to it.
        self.renew_if_older(REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT, now, shared, out);
        Ok(packet)
    }

    /// Begins another session if we began the current one and it is older, or worn. The responder does not, so that the
    /// two do not do it at once.
    fn renew_if_older(
        &mut self,
        age: std::time::Duration,
        now: Instant,
        shared: &mut Shared,
        out: &mut impl Output,
    ) {
        let Some(session) = self.sessions.current() else { return };
        let is_old = session.is_initiator && now.saturating_duration_since(session.since) >= age;
        if is_old || session.is_worn() {
            self.want_session(now, shared, out);
        }
    }
}
