//! What receivers are told of a [`View`].
//!
//! Who is not told of a change, because it does not concern it, stays at its generation. That is why a delta may reach back further
//! than the last push: to the last one that told its class anything.

use std::collections::BTreeSet;

use lattice_policy::Layer;
use lattice_wire::{MapDelta, MapPeer, MapPolicy, MapUpdate, MapVersion, NetMap, PeerId, update::share};

use super::{Entry, View};
use crate::{maps::compose, store::netmap::host};

/// Who is to be told, and of which generation.
#[derive(Debug)]
pub struct Plan {
    generation: u64,
    grouping: u64,
    classes: Vec<usize>,
    /// Each once.
    pub receivers: Vec<(PeerId, Receiver)>,
}

/// What one is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receiver {
    /// What has changed, word for word as the others of this class.
    Alike(usize),
    /// What has changed.
    Own,
    /// The whole map.
    Whole,
}

impl View {
    /// The whole map of one peer.
    pub fn netmap(&self, id: &PeerId, now: i64) -> Option<NetMap> {
        let (own, overlay) = (self.peers.get(id)?, self.overlay?);
        let seen = self.classes.iter().enumerate().filter(|(class, _)| self.sees(own, Some(*class)));
        let ids = seen.flat_map(|(_, class)| &class.members).filter(|other| *other != id);
        let mut peers: Vec<&Entry> =
            ids.filter_map(|id| self.peers.get(id)).filter(|peer| peer.lives(now)).collect();
        peers.sort_unstable_by_key(|peer| peer.row.address.0);
        Some(NetMap {
            epoch: self.version.epoch,
            generation: self.version.generation,
            workspace: self.workspace.clone(),
            workspace_name: self.name.as_ref().map(ToString::to_string),
            peer: id.clone(),
            address: host(own.row.address),
            pool: overlay.pool(),
            prefix: overlay.prefix(),
            peers: peers.into_iter().map(|peer| peer.map.clone()).collect(),
            not_after: own.row.expires_at,
            policy: Some(self.policy(own)),
        })
    }

    /// What a peer that has `have` is answered; `None` when there is no such peer.
    pub fn answer(&self, id: &PeerId, have: Option<MapVersion>, now: i64) -> Option<MapUpdate> {
        let own = self.peers.get(id)?;
        let whole = || self.netmap(id, now).map(MapUpdate::Full);
        let Some(have) = have.filter(|have| have.epoch == self.version.epoch) else { return whole() };
        if have == self.version {
            return Some(MapUpdate::Current);
        }
        let is_known = (self.begin.max(own.moved_at)..self.version.generation).contains(&have.generation);
        if !is_known {
            return whole();
        }
        let delta = self.delta(own, have.generation, have.generation, now);
        let most = 16
            + self.classes.iter().enumerate().fold(0, |most, (class, members)| {
                most + if self.sees(own, Some(class)) { members.members.len() } else { 0 }
            });
        if delta.changed.len() + delta.removed.len() > most { whole() } else { Some(MapUpdate::Delta(delta)) }
    }

    /// Who is to be told of what has changed since the last push.
    pub fn plan(&self, now: i64) -> Plan {
        let news: Vec<&Entry> = self.since(self.pushed).collect();
        let concerned = |class: usize| {
            self.classes[class].policy_at > self.pushed
                || news.iter().any(|peer| peer.class.is_some_and(|other| self.is_seen(class, other)))
                || self.gone_since(self.pushed).any(|gone| gone.seen_by.contains(&class))
        };
        let classes: Vec<usize> = (0..self.classes.len()).filter(|class| concerned(*class)).collect();
        let mut receivers = Vec::new();
        let mut add = |id: &PeerId, peer: &Entry, class: Option<usize>| {
            if peer.row.online && peer.lives(now) {
                let receiver = match class {
                    _ if self.moved.contains(id) => Receiver::Whole,
                    Some(class) if peer.row.expires_at.is_none() => Receiver::Alike(class),
                    _ => Receiver::Own,
                };
                receivers.push((id.clone(), receiver));
            }
        };
        for class in &classes {
            for id in &self.classes[*class].members {
                if let Some(peer) = self.peers.get(id) {
                    add(id, peer, Some(*class));
                }
            }
        }
        // Also where its class has nothing to hear: when its own time is over may be the news.
        let themselves: BTreeSet<&PeerId> = news.iter().map(|peer| &peer.row.id).chain(&self.moved).collect();
        for id in themselves {
            if let Some(peer) = self.peers.get(id)
                && peer.class.is_none_or(|class| !classes.contains(&class))
            {
                add(id, peer, None);
            }
        }
        Plan { generation: self.version.generation, grouping: self.grouping, classes, receivers }
    }

    /// Whether `plan` still means what it meant: it may be carried out on a newer view.
    pub fn follows(&self, plan: &Plan) -> bool {
        self.grouping == plan.grouping && self.pushed <= plan.generation
    }

    /// The update for a receiver of a plan; `None` when it is gone.
    pub fn update_for(&self, id: &PeerId, receiver: Receiver, now: i64) -> Option<MapUpdate> {
        let own = self.peers.get(id)?;
        if receiver == Receiver::Whole || self.moved.contains(id) {
            return self.netmap(id, now).map(MapUpdate::Full);
        }
        let since = own.class.map_or(self.pushed, |class| self.classes[class].told);
        Some(MapUpdate::Delta(self.delta(own, since, self.pushed, now)))
    }

    /// Everybody in `plan` was told.
    pub fn told(&mut self, plan: &Plan) {
        for class in &plan.classes {
            if let Some(class) = self.classes.get_mut(*class) {
                class.told = plan.generation;
            }
        }
        self.pushed = plan.generation;
        let peers = &self.peers;
        self.moved.retain(|id| peers.get(id).is_some_and(|peer| peer.moved_at > plan.generation));
    }

    /// What has changed for `own` after `since`. Nothing has that concerns it up to `quiet`.
    fn delta(&self, own: &Entry, since: u64, quiet: u64, now: i64) -> MapDelta {
        let changed: Vec<MapPeer> = self
            .since(quiet)
            .filter(|peer| peer.lives(now) && self.sees(own, peer.class))
            .map(|peer| peer.map.clone())
            .collect();
        let gone = self.gone_since(quiet);
        let gone = gone.filter(|gone| own.class.is_some_and(|class| gone.seen_by.contains(&class)));
        let over = self.over(now).filter(|peer| self.sees(own, peer.class)).map(|peer| &peer.row.id);
        let total = own.class.map_or(0, |class| self.total(class));
        let over: Vec<PeerId> = over.cloned().collect();
        let sum = over.iter().fold(total, |sum, id| sum.wrapping_sub(share(id)));
        let is_new = own.class.is_none_or(|class| self.classes[class].policy_at > quiet);
        MapDelta {
            epoch: self.version.epoch,
            since,
            generation: self.version.generation,
            changed,
            removed: gone.map(|gone| gone.id.clone()).chain(over).collect(),
            sum,
            not_after: own.row.expires_at,
            policy: is_new.then(|| self.policy(own)),
        }
    }

    fn policy(&self, own: &Entry) -> MapPolicy {
        match own.class {
            Some(class) => self.classes[class].policy.clone(),
            None => compose::to_wire(&[Layer::closed("unreadable member").into()]),
        }
    }

    fn sees(&self, own: &Entry, class: Option<usize>) -> bool {
        own.class.zip(class).is_some_and(|(own, class)| self.is_seen(own, class))
    }

    /// Those that have changed after a generation.
    fn since(&self, generation: u64) -> impl Iterator<Item = &Entry> {
        let later = self.changed.range(generation.saturating_add(1)..);
        later.flat_map(|(_, ids)| ids).filter_map(|id| self.peers.get(id))
    }

    fn gone_since(&self, generation: u64) -> impl Iterator<Item = &super::Gone> {
        self.gone.iter().rev().take_while(move |gone| gone.at > generation)
    }

    /// Those whose time is over and who wait to be removed.
    fn over(&self, now: i64) -> impl Iterator<Item = &Entry> {
        self.ends.iter().take_while(move |(end, _)| *end <= now).filter_map(|(_, id)| self.peers.get(id))
    }
}

impl Entry {
    fn lives(&self, now: i64) -> bool {
        self.row.expires_at.is_none_or(|end| end > now)
    }
}
