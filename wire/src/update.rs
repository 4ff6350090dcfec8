//! How a network map is kept new without being sent whole: what has changed since a generation that the receiver has.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{MapPeer, MapPolicy, NetMap, PeerId, netmap::MAX_PEERS};

/// What a peer says when it asks for its map.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapRequest {
    /// What it has; `None` asks for the whole map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub have: Option<MapVersion>,
}

/// Which of all maps that one peer ever had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapVersion {
    /// [`NetMap::epoch`].
    pub epoch: u64,
    /// [`NetMap::generation`].
    pub generation: u64,
}

/// What latticed pushes, and answers to a [`MapRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MapUpdate {
    /// The whole map.
    Full(NetMap),
    /// What has changed.
    Delta(MapDelta),
    /// Nothing has: the receiver's map is the newest.
    Current,
}

/// What has changed in one receiver's map. Everything in it is as of `generation`, so it makes *any* map from `since` on
/// new, however the changes between were learned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapDelta {
    /// Counts in this history: it says nothing to a map of another one.
    pub epoch: u64,
    /// Holds every change after this generation.
    pub since: u64,
    /// The generation that it leads to.
    pub generation: u64,
    /// Peers that are new or different, whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<MapPeer>,
    /// Peers that are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<PeerId>,
    /// The [`share`]s of all peers of the map that it leads to, added up; the receiver's own may be among them. A map that does
    /// not come to the same has missed something, such as that a policy now keeps two peers apart.
    pub sum: u64,
    /// The receiver's own [`NetMap::not_after`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<i64>,
    /// The receiver's policy, when it may have changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<MapPolicy>,
}

/// What became of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The map is newer now.
    Newer,
    /// It was as new already.
    Same,
    /// The map is too old for this delta, of another epoch, has missed something, or would become too big: ask for the whole.
    Gap,
}

/// What one peer adds to [`MapDelta::sum`].
pub fn share(id: &PeerId) -> u64 {
    let digest = Sha256::digest(id.as_str());
    digest.iter().take(8).fold(0, |share, byte| share << 8 | u64::from(*byte))
}

impl NetMap {
    /// Which one it is.
    pub fn version(&self) -> MapVersion {
        MapVersion { epoch: self.epoch, generation: self.generation }
    }

    /// Makes the map as new as `delta` is.
    pub fn apply(&mut self, delta: MapDelta) -> Applied {
        if delta.epoch != self.epoch {
            return Applied::Gap;
        }
        if delta.generation <= self.generation {
            return Applied::Same;
        }
        if delta.since > self.generation {
            return Applied::Gap;
        }
        let removed: BTreeSet<PeerId> = delta.removed.into_iter().collect();
        let mut changed: BTreeMap<PeerId, MapPeer> =
            delta.changed.into_iter().map(|peer| (peer.id.clone(), peer)).collect();
        changed.remove(&self.peer);
        // The order of those that stay is kept: devices compare.
        let mut peers: Vec<MapPeer> = Vec::with_capacity(self.peers.len() + changed.len());
        for peer in &self.peers {
            match changed.remove(&peer.id) {
                Some(new) => peers.push(new),
                None if removed.contains(&peer.id) => {}
                None => peers.push(peer.clone()),
            }
        }
        peers.extend(changed.into_values());
        if peers.len() > MAX_PEERS {
            return Applied::Gap;
        }
        let sum = peers.iter().fold(0u64, |sum, peer| sum.wrapping_add(share(&peer.id)));
        if delta.sum != sum && delta.sum != sum.wrapping_add(share(&self.peer)) {
            return Applied::Gap;
        }
        self.peers = peers;
        self.generation = delta.generation;
        self.not_after = delta.not_after;
        if delta.policy.is_some() {
            self.policy = delta.policy;
        }
        Applied::Newer
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{WgPublicKey, WorkspaceId};

    fn id(n: u8) -> PeerId {
        PeerId::from_random([n; 10])
    }

    fn peer(n: u8, at: u64) -> MapPeer {
        MapPeer {
            id: id(n),
            name: format!("p{n}").parse().unwrap(),
            public_key: WgPublicKey([n; 32]),
            allowed_ips: vec![],
            endpoints: vec![format!("192.0.2.1:{}", at + 1).parse().unwrap()],
            online: true,
            not_after: None,
        }
    }

    fn map(generation: u64, peers: Vec<MapPeer>) -> NetMap {
        NetMap {
            epoch: 1,
            generation,
            workspace: WorkspaceId::from_random([1; 10]),
            workspace_name: None,
            peer: id(200),
            address: "10.42.0.9/32".parse().unwrap(),
            pool: "10.42.0.0/16".parse().unwrap(),
            prefix: "fd12:3456:789a::/48".parse().unwrap(),
            peers,
            not_after: None,
            policy: None,
        }
    }

    /// A workspace that remembers at which generation each peer changed last, as the store does.
    #[derive(Default)]
    struct World {
        generation: u64,
        peers: BTreeMap<u8, (u64, bool)>,
    }

    impl World {
        fn change(&mut self, n: u8, there: bool) {
            self.generation += 1;
            self.peers.insert(n, (self.generation, there));
        }

        fn whole(&self) -> NetMap {
            let there = self.peers.iter().filter(|(_, (_, there))| *there);
            map(self.generation, there.map(|(n, (at, _))| peer(*n, *at)).collect())
        }

        fn since(&self, since: u64) -> MapDelta {
            let news = || self.peers.iter().filter(move |(_, (at, _))| *at > since);
            MapDelta {
                epoch: 1,
                since,
                generation: self.generation,
                changed: news().filter(|(_, (_, there))| *there).map(|(n, (at, _))| peer(*n, *at)).collect(),
                removed: news().filter(|(_, (_, there))| !*there).map(|(n, _)| id(*n)).collect(),
                sum: sum(&self.whole()),
                not_after: None,
                policy: None,
            }
        }
    }

    fn sum(map: &NetMap) -> u64 {
        map.peers.iter().fold(0, |sum, peer| sum.wrapping_add(share(&peer.id)))
    }

    fn sorted(mut map: NetMap) -> NetMap {
        map.peers.sort_by(|a, b| a.id.cmp(&b.id));
        map
    }

    proptest! {
        /// Whatever the changes, and however far back a delta reaches, the receiver ends with the map that it would have
        /// been sent whole.
        #[test]
        fn deltas_lead_to_the_whole_map(
            changes in prop::collection::vec((0u8..12, any::<bool>()), 1..60),
            reach in prop::collection::vec(0u64..8, 60),
            lost in prop::collection::vec(any::<bool>(), 60),
        ) {
            let mut world = World::default();
            let mut have = world.whole();
            for (i, (n, there)) in changes.into_iter().enumerate() {
                world.change(n, there);
                let since = world.generation.saturating_sub(reach[i]);
                let before = have.clone();
                if lost[i] {
                    continue;
                }
                match have.apply(world.since(since)) {
                    Applied::Newer => prop_assert_eq!(sorted(have.clone()), sorted(world.whole())),
                    Applied::Same => prop_assert_eq!(&have, &before),
                    Applied::Gap => {
                        prop_assert!(since > before.generation);
                        prop_assert_eq!(&have, &before);
                    }
                }
            }
            let since = have.generation;
            have.apply(world.since(since));
            prop_assert_eq!(sorted(have), sorted(world.whole()));
        }

        #[test]
        fn any_bytes_may_come(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = serde_json::from_slice::<MapUpdate>(&bytes);
            let _ = serde_json::from_slice::<MapRequest>(&bytes);
        }
    }

    #[test]
    fn a_delta_of_another_epoch_says_nothing() {
        let old = map(5, vec![peer(1, 1)]);
        let delta = |epoch, since, generation| MapDelta {
            epoch,
            since,
            generation,
            changed: vec![],
            removed: vec![id(1)],
            sum: 0,
            not_after: None,
            policy: None,
        };
        for (since, generation) in [(0, 9), (5, 9), (0, 5), (0, 3)] {
            let mut map = old.clone();
            assert_eq!(map.apply(delta(2, since, generation)), Applied::Gap);
            assert_eq!(map, old);
        }
        assert_eq!(old.clone().apply(delta(1, 5, 9)), Applied::Newer);
    }

    #[test]
    fn a_map_that_has_missed_something_is_not_made_newer() {
        let old = map(1, vec![peer(1, 1), peer(2, 1)]);
        let delta = |sum| MapDelta {
            epoch: 1,
            since: 1,
            generation: 2,
            changed: vec![],
            removed: vec![id(1)],
            sum,
            not_after: None,
            policy: None,
        };
        let own = share(&id(200));
        for (sum, applied) in [
            (share(&id(2)), Applied::Newer),
            (share(&id(2)).wrapping_add(own), Applied::Newer),
            (0, Applied::Gap),
            (own, Applied::Gap),
            (share(&id(2)).wrapping_add(share(&id(3))), Applied::Gap),
        ] {
            let mut map = old.clone();
            assert_eq!(map.apply(delta(sum)), applied);
            assert_eq!(map == old, applied == Applied::Gap);
        }
    }

    #[test]
    fn nobody_is_its_own_peer_and_a_map_does_not_grow_without_bound() {
        let mut have = map(1, vec![]);
        let mut me = peer(200, 1);
        me.id = id(200);
        let delta = |changed| MapDelta {
            epoch: 1,
            since: 1,
            generation: 2,
            changed,
            removed: vec![],
            sum: share(&id(200)),
            not_after: Some(7),
            policy: None,
        };
        assert_eq!(have.apply(delta(vec![me])), Applied::Newer);
        assert!(have.peers.is_empty());
        assert_eq!(have.not_after, Some(7));

        let mut have = map(1, vec![]);
        let many = (0..=MAX_PEERS).map(|n| {
            let mut bytes = [0; 10];
            bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
            MapPeer { id: PeerId::from_random(bytes), ..peer(1, 1) }
        });
        assert_eq!(have.apply(delta(many.collect())), Applied::Gap);
        assert_eq!(have.generation, 1);
    }
}
