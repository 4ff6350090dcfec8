//! Handshakes with a peer: beginning and answering them (section 5.4), and what it takes to have but one at a time.

use std::time::Instant;

use super::Peer;
use crate::{
    Output, Path,
    handshake::{initiator::Initiation, responder::Opened},
    limits::INITIATION_INTERVAL,
    message::{COOKIE_REPLY_LEN, INITIATION_LEN, RESPONSE_LEN},
    pending::Answer,
    retransmit::Retransmit,
    session::Session,
    shared::Shared,
    symmetric::NotAuthentic,
    timestamp::Timestamp,
};

impl Peer {
    /// Begins a handshake, unless one began only just now.
    pub(crate) fn want_session(&mut self, now: Instant, shared: &mut Shared, out: &mut impl Output) {
        if self.timers.may_initiate(now) {
            self.initiate(now, shared, out);
        }
    }

    /// Begins a handshake, over again if one is under way. A peer that is nowhere is not asked.
    pub(crate) fn initiate(&mut self, now: Instant, shared: &mut Shared, out: &mut impl Output) {
        if !self.is_reachable() {
            return;
        }
        let Some(message) = self.new_initiation(now, shared) else { return };
        self.timers.initiation_sent(u16::from_le_bytes(shared.sources.random.array()), now);
        let search = self.unanswered > 0 || !self.sessions.is_connected(now);
        let quick = search && std::mem::take(&mut self.eager);
        self.retransmit = quick.then(|| Box::new(Retransmit::new(message, now)));
        self.await_answer();
        self.unanswered = self.unanswered.saturating_add(1);
        self.tx_bytes += self.paths.send(&message, search, out);
    }

    /// Another initiation of the same search: the answer to the one before may be lost. WireGuard's own timers go on.
    pub(super) fn initiate_again(&mut self, now: Instant, shared: &mut Shared, out: &mut impl Output) {
        if !self.is_reachable() {
            return;
        }
        let Some(message) = self.new_initiation(now, shared) else { return };
        self.retransmit.iter_mut().for_each(|retransmit| retransmit.replace(message));
        self.await_answer();
        self.timers.anything_sent(now);
        self.tx_bytes += self.paths.send(&message, true, out);
    }

    /// Gives the newest initiation the time that the peer's answers are known to take.
    fn await_answer(&mut self) {
        if let Some(until) = self.pending.until() {
            self.timers.postpone_retry(until);
            self.retransmit.iter_mut().for_each(|retransmit| retransmit.postpone(until));
        }
    }

    /// Takes the place of the initiation before it, whose answer makes no session any more.
    fn new_initiation(&mut self, now: Instant, shared: &mut Shared) -> Option<[u8; INITIATION_LEN]> {
        let random = &mut *shared.sources.random;
        let (index, ephemeral) = (shared.indices.allocate(self.slot, random), random.key());
        let time = Timestamp::after(self.newest_sent, (shared.sources.wall_clock)());
        let Ok((initiation, mut message)) =
            Initiation::new(&shared.identity, &mut self.remote, index, &ephemeral, time)
        else {
            shared.indices.release([Some(index)]);
            return None;
        };
        self.macs.write(&self.remote.public_key, &mut message, now);
        self.newest_sent = Some(time);
        shared.indices.release([self.pending.begin(initiation, now)]);
        Some(message)
    }

    /// Answers an initiation that names this peer.
    ///
    /// # Errors
    /// When it is not the peer's, a replay, or too many come.
    pub(crate) fn take_initiation(
        &mut self,
        mut opened: Opened,
        message: &[u8; INITIATION_LEN],
        from: Path,
        now: Instant,
        shared: &mut Shared,
        out: &mut impl Output,
    ) -> Result<(), NotAuthentic> {
        let is_too_soon = |last| now.saturating_duration_since(last) < INITIATION_INTERVAL;
        let time = opened.authenticate(&shared.identity, &mut self.remote, message)?;
        if self.last_taken.is_some_and(is_too_soon) || self.newest_taken.is_some_and(|newest| time <= newest)
        {
            return Err(NotAuthentic);
        }
        let random = &mut *shared.sources.random;
        let (index, ephemeral) = (shared.indices.allocate(self.slot, random), random.key());
        let (remote_index, keys, mut answer) = opened
            .answer(index, &ephemeral)
            .inspect_err(|NotAuthentic| shared.indices.release([Some(index)]))?;
        self.newest_taken = Some(time);
        self.last_taken = Some(now);
        let session = Session::new(index, remote_index, keys, false, now);
        shared.indices.release(self.sessions.add_answered(session));
        self.timers.session_made(now);
        // A search of ours goes on: the peer has yet to show that it has our answer.
        self.hear(from, message.len(), now);
        self.timers.anything_received(now);

        self.macs.write(&self.remote.public_key, &mut answer, now);
        self.tx_bytes += self.paths.send(&answer, false, out);
        self.timers.anything_sent(now);
        Ok(())
    }

    /// Ends the handshake that we began; by a late answer, sees only that the newest initiation can be answered ([`crate::pending`]).
    ///
    /// # Errors
    /// When the answer is not the peer's, or to neither of our last two initiations.
    pub(crate) fn take_response(
        &mut self,
        receiver: u32,
        message: &[u8; RESPONSE_LEN],
        from: Path,
        now: Instant,
        shared: &mut Shared,
        out: &mut impl Output,
    ) -> Result<(), NotAuthentic> {
        let (remote_index, keys) = match self.pending.answer(receiver, &shared.identity, message, now)? {
            Answer::Session(remote_index, keys) => (remote_index, keys),
            Answer::Late => {
                shared.indices.release([Some(receiver)]);
                // The search goes on, and is none that begins anew.
                self.paths.hear(from, now);
                self.rx_bytes += message.len() as u64;
                self.timers.anything_received(now);
                self.await_answer();
                return Ok(());
            }
        };
        // From here on the index is the session's.
        let session = Session::new(receiver, remote_index, keys, true, now);
        shared.indices.release(self.sessions.add_initiated(session));
        self.timers.session_made(now);
        self.hear(from, message.len(), now);
        self.timers.anything_received(now);
        self.complete(now, shared, out);
        // The peer sends nothing before it has heard from us.
        if self.has_sent_nothing() {
            self.send_keepalive(now, shared, out);
        }
        Ok(())
    }

    /// Takes a cookie: what is sent again proves our address by it, and what is sent next.
    ///
    /// # Errors
    /// When it does not answer our last handshake message.
    pub(crate) fn take_cookie(
        &mut self,
        reply: &[u8; COOKIE_REPLY_LEN],
        now: Instant,
    ) -> Result<(), NotAuthentic> {
        self.macs.take_cookie(&self.remote.public_key, reply, now)?;
        if let Some(retransmit) = &mut self.retransmit {
            self.macs.write_mac2(retransmit.message_mut(), now);
        }
        Ok(())
    }

    /// Both ends have the session: what waited for it is sent, and no other is looked for.
    pub(super) fn complete(&mut self, now: Instant, shared: &mut Shared, out: &mut impl Output) {
        shared.indices.release(self.pending.clear());
        self.retransmit = None;
        self.last_handshake = Some(now);
        self.timers.handshake_completed();
        self.send_queued(now, shared, out);
    }

    /// Takes note of an authentic message.
    pub(super) fn hear(&mut self, from: Path, len: usize, now: Instant) {
        self.paths.hear(from, now);
        self.rx_bytes += len as u64;
        self.unanswered = 0;
        self.eager = true;
    }
}
