//! What one connection knows of its routes. Pure; everything that the relay makes it remember is bounded.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use lattice_wire::{WgPublicKey, lrp};

use super::outbox::Parcel;

/// Peers that are asked for, and routes that the relay may tell of.
const MAX_ROUTES: usize = 4096;
/// Datagrams that wait for the answer to the first question for a route: a handshake and what follows at once.
const MAX_PENDING: usize = 64;
/// Datagrams by handles that the relay has not told of yet: on QUIC they may overtake what explains them.
const MAX_EARLY: usize = 32;
/// A peer that nothing was sent to for so long is no longer asked for.
const UNUSED: Duration = Duration::from_secs(600);

/// The routes.
#[derive(Debug, Default)]
pub(super) struct Routes {
    peers: HashMap<WgPublicKey, Peer>,
    handles: HashMap<u32, WgPublicKey>,
    pending: VecDeque<Parcel>,
    early: VecDeque<(u32, Bytes)>,
}

#[derive(Debug)]
struct Peer {
    handle: Option<u32>,
    /// The relay has answered: what is pending goes, or is dropped.
    answered: bool,
    /// We have asked, and when it was last of use.
    asked: Option<Instant>,
}

/// What becomes of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It goes now: handle and datagram.
    Now(Vec<u8>),
    /// It waits for the relay's answer.
    Wait,
    /// There is no way.
    Dropped,
}

impl Routes {
    /// A datagram is to be sent to a peer. The flag says that the relay is to be asked for a route.
    pub(super) fn send(&mut self, (key, mut body): Parcel, now: Instant) -> (Sent, bool) {
        let full = self.peers.len() >= MAX_ROUTES;
        let peer = match self.peers.get_mut(&key) {
            Some(peer) => peer,
            None if full => return (Sent::Dropped, false),
            None => self.peers.entry(key).or_insert(Peer { handle: None, answered: false, asked: None }),
        };
        // A route that the other end has asked for is of use at once, but stays only if we ask for it, too.
        let ask = peer.asked.replace(now).is_none();
        if let Some(handle) = peer.handle {
            body[..lrp::HANDLE].copy_from_slice(&handle.to_be_bytes());
            return (Sent::Now(body), ask);
        }
        if peer.answered || self.pending.len() >= MAX_PENDING {
            return (Sent::Dropped, ask);
        }
        self.pending.push_back((key, body));
        (Sent::Wait, ask)
    }

    /// The relay knows a peer by this handle; returns what has waited for it, ready to be sent.
    pub(super) fn up(&mut self, handle: u32, key: WgPublicKey) -> Vec<Vec<u8>> {
        let full = self.peers.len() >= MAX_ROUTES;
        if handle == lrp::ECHO || self.handles.get(&handle).is_some_and(|known| *known != key) {
            return Vec::new();
        }
        let peer = match self.peers.get_mut(&key) {
            Some(peer) => peer,
            None if full => return Vec::new(),
            None => self.peers.entry(key).or_insert(Peer { handle: None, answered: true, asked: None }),
        };
        peer.answered = true;
        if let Some(old) = peer.handle.replace(handle).filter(|old| *old != handle) {
            self.handles.remove(&old);
        }
        self.handles.insert(handle, key);
        let mut ready = Vec::new();
        self.pending.retain_mut(|(waiting, body)| {
            if *waiting == key {
                body[..lrp::HANDLE].copy_from_slice(&handle.to_be_bytes());
                ready.push(std::mem::take(body));
            }
            *waiting != key
        });
        ready
    }

    /// The handle means nobody any more.
    pub(super) fn gone(&mut self, handle: u32) {
        let Some(key) = self.handles.remove(&handle) else { return };
        match self.peers.get_mut(&key) {
            Some(peer) if peer.asked.is_some() => peer.handle = None,
            _ => drop(self.peers.remove(&key)),
        }
    }

    /// The peer is not there; says how many datagrams for it are dropped.
    pub(super) fn absent(&mut self, key: &WgPublicKey) -> usize {
        let Some(peer) = self.peers.get_mut(key) else { return 0 };
        peer.answered = true;
        let before = self.pending.len();
        self.pending.retain(|(waiting, _)| waiting != key);
        before - self.pending.len()
    }

    /// Whose datagrams come by this handle.
    pub(super) fn peer(&self, handle: u32) -> Option<WgPublicKey> {
        self.handles.get(&handle).copied()
    }

    /// Keeps a data body that has come too early; says whether another one had to go for it.
    pub(super) fn keep(&mut self, handle: u32, body: Bytes) -> bool {
        let full = self.early.len() >= MAX_EARLY;
        if full {
            self.early.pop_front();
        }
        self.early.push_back((handle, body));
        full
    }

    /// What has come too early by this handle.
    pub(super) fn kept(&mut self, handle: u32) -> Vec<Bytes> {
        let (kept, rest) = self.early.drain(..).partition(|(early, _)| *early == handle);
        self.early = rest;
        let kept: VecDeque<_> = kept;
        kept.into_iter().map(|(_, body)| body).collect()
    }

    /// Forgets who was not sent to for long: the relay is to be told.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<WgPublicKey> {
        let mut unused = Vec::new();
        self.peers.retain(|key, peer| {
            let over = peer.asked.is_some_and(|used| now.saturating_duration_since(used) >= UNUSED);
            if over {
                peer.asked = None;
                unused.push(*key);
            }
            !over || peer.handle.is_some()
        });
        unused
    }

    /// Whom we have asked for: the next connection must ask again.
    pub(super) fn asked(&self) -> Vec<(WgPublicKey, Instant)> {
        self.peers.iter().filter_map(|(key, peer)| Some((*key, peer.asked?))).collect()
    }

    /// Those whom an earlier connection had asked for.
    pub(super) fn asking(asked: Vec<(WgPublicKey, Instant)>) -> Self {
        let peer = |asked| Peer { handle: None, answered: false, asked: Some(asked) };
        Self { peers: asked.into_iter().map(|(key, used)| (key, peer(used))).collect(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parcel(key: u8) -> Parcel {
        (WgPublicKey([key; 32]), vec![9; lrp::HANDLE + 10])
    }

    #[test]
    fn the_first_datagram_waits_for_its_route_and_goes_with_it() {
        let (mut routes, now) = (Routes::default(), Instant::now());
        assert_eq!(routes.send(parcel(1), now), (Sent::Wait, true));
        assert_eq!(routes.send(parcel(1), now), (Sent::Wait, false));
        let ready = routes.up(7, WgPublicKey([1; 32]));
        assert_eq!(ready.len(), 2);
        assert_eq!(ready[0][..lrp::HANDLE], [0, 0, 0, 7]);
        assert!(matches!(routes.send(parcel(1), now), (Sent::Now(body), false) if body[..4] == [0, 0, 0, 7]));
        assert_eq!(routes.peer(7), Some(WgPublicKey([1; 32])));
        routes.gone(7);
        assert_eq!((routes.peer(7), routes.send(parcel(1), now)), (None, (Sent::Dropped, false)));
        assert!(routes.up(8, WgPublicKey([1; 32])).is_empty());
        assert!(matches!(routes.send(parcel(1), now), (Sent::Now(_), false)));
    }

    #[test]
    fn a_route_of_the_other_end_is_used_and_asked_for() {
        let (mut routes, now) = (Routes::default(), Instant::now());
        assert!(routes.up(7, WgPublicKey([1; 32])).is_empty());
        assert!(matches!(routes.send(parcel(1), now), (Sent::Now(_), true)));
        assert!(routes.up(7, WgPublicKey([1; 32])).is_empty(), "told once more");
        assert!(matches!(routes.send(parcel(1), now), (Sent::Now(_), false)));
        assert!(routes.up(7, WgPublicKey([2; 32])).is_empty(), "a handle is one peer's");
        assert_eq!(routes.peer(7), Some(WgPublicKey([1; 32])));
    }

    #[test]
    fn nothing_waits_for_who_is_not_there() {
        let (mut routes, now) = (Routes::default(), Instant::now());
        assert_eq!(routes.send(parcel(1), now), (Sent::Wait, true));
        assert_eq!(routes.absent(&WgPublicKey([1; 32])), 1);
        assert_eq!(routes.send(parcel(1), now), (Sent::Dropped, false));
        assert!(routes.pending.is_empty());
    }

    #[test]
    fn who_is_not_used_is_forgotten_and_a_route_of_the_other_end_stays() {
        let (mut routes, now) = (Routes::default(), Instant::now());
        assert_eq!(routes.send(parcel(1), now), (Sent::Wait, true));
        routes.up(7, WgPublicKey([1; 32]));
        assert!(routes.expire(now + UNUSED / 2).is_empty());
        assert_eq!(routes.expire(now + UNUSED), [WgPublicKey([1; 32])]);
        assert!(routes.peer(7).is_some() && routes.asked().is_empty());
        routes.gone(7);
        assert!(routes.peers.is_empty());
    }

    proptest! {
        /// Whatever a relay says: so much is remembered, and a handle is one peer's.
        #[test]
        fn a_relay_cannot_make_it_grow(steps in prop::collection::vec((0u8..4, 0u32..40, 0u8..20), 0..300)) {
            let (mut routes, now) = (Routes::default(), Instant::now());
            for (step, handle, key) in steps {
                match step {
                    0 => drop(routes.send(parcel(key), now)),
                    1 => drop(routes.up(handle, WgPublicKey([key; 32]))),
                    2 => routes.gone(handle),
                    _ => drop(routes.absent(&WgPublicKey([key; 32]))),
                }
                prop_assert!(routes.pending.len() <= MAX_PENDING && routes.handles.len() <= routes.peers.len());
                for (handle, key) in &routes.handles {
                    prop_assert_eq!(routes.peers[key].handle, Some(*handle));
                }
            }
        }
    }

    #[test]
    fn what_comes_before_its_route_is_kept_for_it_within_bounds() {
        let mut routes = Routes::default();
        for n in 0..1000u32 {
            let went = routes.keep(n % 2, Bytes::from(n.to_be_bytes().to_vec()));
            assert_eq!(went, n >= MAX_EARLY as u32);
        }
        let kept = routes.kept(1);
        assert_eq!((kept.len(), routes.early.len()), (MAX_EARLY / 2, MAX_EARLY / 2));
        assert_eq!(kept.last().unwrap()[..], 999u32.to_be_bytes());
    }

    #[test]
    fn a_relay_that_tells_of_many_is_not_listened_to() {
        let mut routes = Routes::default();
        for n in 1..20_000u32 {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&n.to_be_bytes());
            routes.up(n, WgPublicKey(key));
        }
        assert_eq!((routes.peers.len(), routes.handles.len()), (MAX_ROUTES, MAX_ROUTES));
    }
}
