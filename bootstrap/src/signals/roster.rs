//! Who may signal: the peers of the network map whose time is not over, and each only so often.

use std::{collections::BTreeMap, time::Instant};

use lattice_wire::{NetMap, PeerId, WgPublicKey, netmap::MAX_PEERS};

/// Signals of one peer that are opened in a row, and per second: opening one costs a tenth of a millisecond, and a peer has something to
/// say only when its addresses change or it looks for a path anew.
const BURST: f64 = 32.0;
const PER_SECOND: f64 = 4.0;

/// The peers of a network map, by id and by key.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Roster {
    keys: BTreeMap<PeerId, WgPublicKey>,
    ids: BTreeMap<WgPublicKey, PeerId>,
}

impl Roster {
    /// Those of `map` whose time is not over at `now`, in Unix seconds; nobody when our own is.
    pub fn of(map: &NetMap, now: i64) -> Self {
        if map.is_over(now) {
            return Self::default();
        }
        let alive = map.peers.iter().take(MAX_PEERS).filter(|peer| peer.not_after.is_none_or(|at| at > now));
        let mut roster = Self::default();
        for peer in alive {
            roster.keys.insert(peer.id.clone(), peer.public_key);
            roster.ids.insert(peer.public_key, peer.id.clone());
        }
        roster
    }

    pub(super) fn key(&self, id: &PeerId) -> Option<WgPublicKey> {
        self.keys.get(id).copied()
    }

    pub(super) fn id(&self, key: &WgPublicKey) -> Option<PeerId> {
        self.ids.get(key).cloned()
    }
}

/// A token bucket for each peer that has signalled. Holds no more than a roster does, and some that have left it.
#[derive(Debug, Default)]
pub(super) struct Limiter(BTreeMap<PeerId, (f64, Instant)>);

impl Limiter {
    /// Whether `id`, who is in `roster`, may be listened to once more.
    pub(super) fn take(&mut self, roster: &Roster, id: &PeerId, now: Instant) -> bool {
        if self.0.len() > 2 * roster.keys.len() {
            self.0.retain(|id, _| roster.keys.contains_key(id));
        }
        let (left, at) = self.0.entry(id.clone()).or_insert((BURST, now));
        let elapsed = now.saturating_duration_since(*at).as_secs_f64();
        *left = (*left + elapsed * PER_SECOND).min(BURST);
        *at = now;
        let may = *left >= 1.0;
        if may {
            *left -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lattice_wire::MapPeer;

    use super::*;

    fn peer(n: u8, not_after: Option<i64>) -> MapPeer {
        MapPeer {
            id: PeerId::from_random([n; 10]),
            name: format!("p{n}").parse().unwrap(),
            public_key: WgPublicKey([n; 32]),
            allowed_ips: vec![],
            endpoints: vec![],
            online: true,
            not_after,
        }
    }

    fn map(peers: Vec<MapPeer>) -> NetMap {
        NetMap { peers, ..crate::live::tests::map(None) }
    }

    #[test]
    fn whose_time_is_over_is_not_in_it() {
        let (a, b) = (peer(1, None), peer(2, Some(100)));
        let (key_a, id_b) = (a.public_key, b.id.clone());
        let mut map = map(vec![a, b]);
        let roster = Roster::of(&map, 99);
        assert_eq!(roster.id(&roster.key(&id_b).unwrap()), Some(id_b.clone()));
        let roster = Roster::of(&map, 100);
        assert!(roster.id(&key_a).is_some() && roster.key(&id_b).is_none());
        map.not_after = Some(100);
        assert_eq!(Roster::of(&map, 100), Roster::default());
    }

    #[test]
    fn a_peer_that_signals_without_end_is_listened_to_now_and_then_and_others_as_ever() {
        let map = map((1..4).map(|n| peer(n, None)).collect());
        let roster = Roster::of(&map, 0);
        let [a, b] = [&map.peers[0].id, &map.peers[1].id];
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        let heard = (0..1000).filter(|_| limiter.take(&roster, a, start)).count();
        assert_eq!(heard, 32);
        assert!(limiter.take(&roster, b, start));
        let later = start + Duration::from_secs(1);
        assert_eq!((0..1000).filter(|_| limiter.take(&roster, a, later)).count(), 4);
        for n in 0..100 {
            limiter.take(&roster, &PeerId::from_random([n; 10]), later);
            assert!(limiter.0.len() <= 2 * 3 + 1);
        }
    }
}
