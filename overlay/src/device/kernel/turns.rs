//! Gives each endpoint candidate of a silent peer its turn, until one answers. Pure.
//!
//! The kernel knows one endpoint for a peer. It learns another one only from authenticated packets, which never come
//! when both sides try the wrong one.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use lattice_wire::{WgPublicKey, netmap::MAX_ENDPOINTS};
use wireguard_control as wg;

use super::update::in_session;
use crate::device::PeerConfig;

/// Long enough for a handshake around the world.
const FIRST_TURNS: Duration = Duration::from_secs(1);
/// For peers that answered nowhere: they may be offline. Also how long it takes to see that a session is over.
const LATER_TURNS: Duration = Duration::from_secs(15);
/// How often every candidate is tried at the faster pace.
const FIRST_ROUNDS: usize = 3;

/// The peers that have a choice of candidates, and when to look at each of them next.
#[derive(Debug, Default)]
pub(super) struct Turns(HashMap<WgPublicKey, Peer>);

#[derive(Debug)]
struct Peer {
    candidates: Vec<SocketAddr>,
    taken: usize,
    rx_bytes: u64,
    due: Instant,
}

impl Turns {
    /// Follows a change of the peers. Those whose candidates are the same are not disturbed.
    pub(super) fn follow(&mut self, wanted: &[PeerConfig], now: Instant) {
        let mut before = std::mem::take(&mut self.0);
        for peer in wanted {
            let candidates = &peer.endpoints[..peer.endpoints.len().min(MAX_ENDPOINTS)];
            if candidates.len() < 2 {
                continue;
            }
            let next =
                before.remove(&peer.public_key).filter(|old| old.candidates == candidates).unwrap_or_else(
                    || Peer { candidates: candidates.into(), taken: 0, rx_bytes: 0, due: now + FIRST_TURNS },
                );
            self.0.insert(peer.public_key, next);
        }
    }

    /// When [`Turns::take`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.values().map(|peer| peer.due).min()
    }

    /// The peers that go on to another candidate now, and to which one.
    pub(super) fn take(
        &mut self,
        present: &[wg::PeerInfo],
        now: Instant,
    ) -> HashMap<WgPublicKey, SocketAddr> {
        let present: HashMap<[u8; 32], &wg::PeerInfo> =
            present.iter().map(|peer| (peer.config.public_key.0, peer)).collect();
        let due = self.0.iter_mut().filter(|(_, peer)| peer.due <= now);
        due.filter_map(|(key, peer)| Some((*key, peer.take(present.get(&key.0).copied(), now)?))).collect()
    }
}

impl Peer {
    fn take(&mut self, present: Option<&wg::PeerInfo>, now: Instant) -> Option<SocketAddr> {
        if present.is_some_and(in_session) {
            self.taken = 0;
            self.due = now + LATER_TURNS;
            return None;
        }
        let first = self.taken < FIRST_ROUNDS * self.candidates.len();
        self.due = now + if first { FIRST_TURNS } else { LATER_TURNS };
        let peer = present?;
        // Something authentic came, perhaps the other's half of a handshake: not the moment to begin anew.
        let heard = peer.stats.rx_bytes > self.rx_bytes;
        self.rx_bytes = peer.stats.rx_bytes;
        if heard {
            return None;
        }
        self.taken += 1;
        // Its counters begin at zero with the next turn.
        self.rx_bytes = 0;
        let current = self.candidates.iter().position(|candidate| Some(*candidate) == peer.config.endpoint);
        Some(self.candidates[current.map_or(0, |current| (current + 1) % self.candidates.len())])
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const KEY: WgPublicKey = WgPublicKey([1; 32]);

    fn candidates() -> Vec<SocketAddr> {
        ["192.0.2.1:1", "192.0.2.2:1"].iter().map(|text| text.parse().unwrap()).collect()
    }

    fn wanted(endpoints: Vec<SocketAddr>) -> [PeerConfig; 1] {
        [PeerConfig { public_key: KEY, allowed_ips: vec![], endpoints, keepalive: Some(25) }]
    }

    fn present(endpoint: Option<SocketAddr>) -> wg::PeerInfo {
        let mut peer = wg::PeerInfo::from_public_key(wg::Key(KEY.0));
        peer.config.endpoint = endpoint;
        peer.config.persistent_keepalive_interval = Some(25);
        peer
    }

    #[test]
    fn candidates_take_turns_first_fast_then_slowly() {
        let (mut turns, mut now, both) = (Turns::default(), Instant::now(), candidates());
        turns.follow(&wanted(both.clone()), now);
        assert!(turns.take(&[present(Some(both[0]))], now).is_empty(), "the first one has its turn");
        let mut current = both[0];
        for taken in 0.. {
            let waits = turns.due().unwrap() - now;
            if taken > FIRST_ROUNDS * both.len() {
                assert_eq!(waits, LATER_TURNS);
                break;
            }
            assert_eq!(waits, FIRST_TURNS);
            now += waits;
            let next = turns.take(&[present(Some(current))], now)[&KEY];
            assert_ne!(next, current);
            current = next;
        }
    }

    #[test]
    fn a_session_ends_it_and_its_end_begins_it_anew() {
        let (mut turns, now, both) = (Turns::default(), Instant::now(), candidates());
        turns.follow(&wanted(both.clone()), now);
        let mut peer = present(Some(both[1]));
        peer.stats.last_handshake_time = Some(SystemTime::now());
        assert!(turns.take(&[peer.clone()], now + FIRST_TURNS).is_empty());
        assert_eq!(turns.due(), Some(now + FIRST_TURNS + LATER_TURNS));
        peer.stats.last_handshake_time = Some(SystemTime::now() - Duration::from_secs(300));
        let later = now + FIRST_TURNS + LATER_TURNS;
        assert_eq!(turns.take(&[peer.clone()], later)[&KEY], both[0]);
        peer.config.persistent_keepalive_interval = None;
        assert!(turns.take(&[peer], later + FIRST_TURNS).is_empty(), "idle is not gone");
    }

    #[test]
    fn a_peer_just_heard_keeps_its_turn() {
        let (mut turns, now, both) = (Turns::default(), Instant::now(), candidates());
        turns.follow(&wanted(both.clone()), now);
        let mut peer = present(Some(both[0]));
        peer.stats.rx_bytes = 148;
        assert!(turns.take(&[peer.clone()], now + FIRST_TURNS).is_empty());
        assert_eq!(turns.take(&[peer], now + 2 * FIRST_TURNS)[&KEY], both[1]);
    }

    #[test]
    fn who_has_no_choice_has_no_turns_and_the_same_choice_is_no_change() {
        let (mut turns, now, both) = (Turns::default(), Instant::now(), candidates());
        turns.follow(&wanted(both[..1].to_vec()), now);
        assert_eq!(turns.due(), None);
        turns.follow(&wanted(both.clone()), now);
        let due = turns.due();
        turns.follow(&wanted(both), now + FIRST_TURNS / 2);
        assert_eq!(turns.due(), due);
        turns.follow(&[], now);
        assert_eq!(turns.due(), None);
    }
}
