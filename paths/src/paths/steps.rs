//! What happens to a peer's session after each input and each timeout.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Paths, Slot};
use crate::{
    Event, Transmit,
    peer::Peer,
    session::{self, Session},
    shared::Shared,
};

/// Timers are never nearer than this, so that nothing can make the owner spin.
const TICK: Duration = Duration::from_millis(1);
/// How long an answer to a check is waited for.
const TRANSACTION: Duration = Duration::from_secs(10);
/// Signals that wait to be taken; more than one each is rare.
const MAX_SIGNALS: usize = 65_536;

impl Paths {
    pub(super) fn session_ended(&mut self) {
        self.sessions -= 1;
        if self.sessions == 0 {
            self.shared.gather.stop();
        }
    }

    pub(super) fn begin(&mut self, slot: Slot, now: Instant) {
        let Some(peer) = self.peers[slot as usize].as_mut().filter(|peer| peer.session.is_none()) else {
            return;
        };
        self.shared.gather.start(now);
        peer.session = Some(Box::new(Session::new(peer.we_control, &mut self.shared, now)));
        self.sessions += 1;
        self.pump(now);
    }

    /// STUN queries that are due.
    pub(super) fn pump(&mut self, now: Instant) {
        let mut lost = false;
        while let Some((local, remote, payload)) =
            self.shared.gather.poll(now, &mut *self.shared.random, &mut lost)
        {
            self.shared.transmit(Transmit { local, remote, payload });
        }
        if lost {
            self.for_sessions(now, |session, _, _, _| session.signalling.say(now));
        }
    }

    pub(super) fn with_session(
        &mut self,
        slot: Slot,
        act: impl FnOnce(&mut Session, &[SocketAddr], bool, &mut Shared),
    ) {
        if let Some(Peer { session: Some(session), endpoints, we_control, .. }) =
            self.peers[slot as usize].as_mut()
        {
            act(session, endpoints, *we_control, &mut self.shared);
        }
    }

    pub(super) fn for_sessions(
        &mut self,
        now: Instant,
        mut act: impl FnMut(&mut Session, &[SocketAddr], bool, &mut Shared),
    ) {
        for slot in 0..self.peers.len() as Slot {
            if self.peers[slot as usize].as_ref().is_some_and(|peer| peer.session.is_some()) {
                self.with_session(slot, &mut act);
                self.step(slot, now);
            }
        }
    }

    /// Lets a peer's session act, selects its path anew and sets its timer.
    pub(super) fn step(&mut self, slot: Slot, now: Instant) {
        let Some(peer) = self.peers[slot as usize].as_mut() else { return };
        let mut ended = false;
        if let Some(session) = &mut peer.session {
            if session.is_over(now) {
                if let Some(remote) = session.remote.take() {
                    peer.relays = Some(remote.relays.into());
                }
                peer.session = None;
                self.events.push_back(Event::Ended { peer: peer.key });
                ended = true;
            } else {
                let transactions = &mut self.transactions;
                let note = |transaction| {
                    transactions.insert(transaction, (slot, now));
                };
                let signal = session.step(&peer.endpoints, peer.we_control, &mut self.shared, now, note);
                if let Some(signal) = signal.filter(|_| self.signals.len() < MAX_SIGNALS) {
                    self.signals.push_back((peer.key, signal));
                }
                let ufrag = &session.signalling.credentials.ufrag;
                if !self.by_ufrag.contains_key(ufrag) {
                    self.by_ufrag.insert(ufrag.clone(), slot);
                }
            }
        }
        // A session that ended says nothing about the path: it is chosen anew when there is traffic.
        if peer.session.is_some() {
            let path = session::choose(peer, &self.shared, now);
            if path != peer.selected {
                (peer.selected, peer.since) = (path, Some(now));
                self.events.push_back(Event::Select { peer: peer.key, path });
            }
        }
        let fresh = peer.fresh_until().filter(|until| *until > now && peer.selected.is_none());
        let due = peer.session.as_ref().map(|session| session.poll_timeout());
        let due = due.map(|due| fresh.map_or(due, |fresh| due.min(fresh)).max(now + TICK));
        if peer.due != due {
            peer.due.map(|old| self.timers.remove(&(old, slot)));
            due.map(|due| self.timers.insert((due, slot)));
            peer.due = due;
        }
        if ended {
            self.session_ended();
        }
        self.sweep(now);
    }

    /// Forgets what no answer and no check can name any more.
    fn sweep(&mut self, now: Instant) {
        if self.transactions.len() + self.by_ufrag.len() < self.sweep_at {
            return;
        }
        self.transactions.retain(|_, (_, at)| now.saturating_duration_since(*at) < TRANSACTION);
        let peers = &self.peers;
        self.by_ufrag.retain(|ufrag, slot| {
            let session = peers[*slot as usize].as_ref().and_then(|peer| peer.session.as_ref());
            session.is_some_and(|session| session.signalling.is_ours(ufrag))
        });
        self.sweep_at = 1024.max(2 * (self.transactions.len() + self.by_ufrag.len()));
    }
}
