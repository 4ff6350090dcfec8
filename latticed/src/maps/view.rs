//! A workspace in memory, at one generation: what maps and what is new in them are made of. Pure: rows come in, updates go out.
//!
//! It is read whole once and kept new by what has changed since, so that one peer more costs as much among ten thousand as among
//! ten. Peers come in classes ([`super::class`]); which class sees which ([`super::sight`]), and what is allowed to one, are
//! worked out anew only when policies change, or a peer that somebody's layers name.

mod compile;
mod tell;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use lattice_policy::{Member, Overlay};
use lattice_wire::{MapPeer, MapPolicy, MapVersion, PeerId, PeerName, WorkspaceId, update::share};
use tracing::error;

use super::{
    class::{Key, Targets},
    compose::Policies,
};
use crate::{
    selected,
    store::{
        netmap::{Changes, map_peer},
        peers::PeerRow,
        policies::PolicyRow,
    },
};
pub use tell::Receiver;

/// Classes without members that are kept beside as many with.
const EMPTY_CLASSES: usize = 64;
/// Peers that are gone and remembered for those who have not heard of it.
const GONE: usize = 10_000;

/// One workspace.
#[derive(Debug)]
pub struct View {
    version: MapVersion,
    workspace: WorkspaceId,
    name: Option<PeerName>,
    /// `None` while nothing was read.
    overlay: Option<Overlay>,
    /// What is new since this generation, or a later one, can be told.
    begin: u64,
    /// Everything up to this generation was pushed to those whom it concerns.
    pushed: u64,
    rows: Vec<PolicyRow>,
    policies: Policies,
    targets: Targets,
    peers: BTreeMap<PeerId, Entry>,
    classes: Vec<Class>,
    by_key: BTreeMap<Key, usize>,
    /// How often the classes were numbered anew.
    grouping: u64,
    /// Whether the members of the one class are in the maps of the other's.
    sees: Vec<Vec<bool>>,
    /// Who changed last at which generation.
    changed: BTreeMap<u64, BTreeSet<PeerId>>,
    gone: Vec<Gone>,
    ends: BTreeSet<(i64, PeerId)>,
    /// Who sees others than before, and was not told yet.
    moved: BTreeSet<PeerId>,
}

#[derive(Debug)]
struct Entry {
    map: MapPeer,
    row: PeerRow,
    /// `None`: this version cannot read it. Nobody is told of it, and it may do nothing itself.
    member: Option<Member>,
    class: Option<usize>,
    changed: u64,
    /// When it began to see others than before, for another reason than that they changed.
    moved_at: u64,
}

#[derive(Debug)]
struct Class {
    key: Key,
    members: BTreeSet<PeerId>,
    /// Of the shares of its members: see [`share`].
    sum: u64,
    policy: MapPolicy,
    /// When that changed.
    policy_at: u64,
    /// Nothing that concerns a member has changed since then and up to [`View::pushed`].
    told: u64,
}

/// A peer that has left the maps of some.
#[derive(Debug)]
struct Gone {
    at: u64,
    id: PeerId,
    seen_by: Vec<usize>,
}

impl View {
    /// A workspace of which nothing was read yet.
    pub fn empty(workspace: WorkspaceId) -> Self {
        Self {
            version: MapVersion { epoch: 0, generation: 0 },
            workspace,
            name: None,
            overlay: None,
            begin: 0,
            pushed: 0,
            rows: vec![],
            policies: Policies::default(),
            targets: Targets::default(),
            peers: BTreeMap::new(),
            classes: vec![],
            by_key: BTreeMap::new(),
            grouping: 0,
            sees: vec![],
            changed: BTreeMap::new(),
            gone: vec![],
            ends: BTreeSet::new(),
            moved: BTreeSet::new(),
        }
    }

    fn read(&mut self, changes: Changes) {
        let Changes { version, name, overlay, since, policies, changed, removed, .. } = changes;
        let grouping = self.grouping + 1;
        let empty = Self::empty(self.workspace.clone());
        *self = Self { grouping, begin: since, overlay: Some(overlay), ..empty };
        self.pushed = version.generation.saturating_sub(1);
        self.set_policies(policies.unwrap_or_default());
        for (row, at) in changed {
            self.put(row, at);
        }
        self.compile(version.generation);
        // Those that have gone lately were among them, so that it is known who saw them.
        self.take(Changes {
            version,
            name,
            overlay,
            since,
            whole: false,
            policies: None,
            changed: vec![],
            removed,
        });
    }

    /// Of which workspace it is.
    pub fn workspace(&self) -> &WorkspaceId {
        &self.workspace
    }

    /// Which one it is.
    pub fn version(&self) -> MapVersion {
        self.version
    }

    /// How many peers are in it.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Makes it as new as `changes`, which are those after its version, or all there is.
    pub fn update(&mut self, changes: Changes) {
        if changes.whole { self.read(changes) } else { self.take(changes) }
    }

    fn take(&mut self, changes: Changes) {
        let at = changes.version.generation;
        self.name = Some(changes.name);
        // What was otherwise for a while in between, others may have told.
        let leaps = at > self.version.generation.saturating_add(1);
        let mut is_doubtful = leaps && changes.policies.is_some();
        if changes.policies.as_ref().is_some_and(|rows| *rows != self.rows) {
            self.set_policies(changes.policies.unwrap_or_default());
            self.regroup(at);
        }
        let mut is_stale = false;
        let mut moved = Vec::new();
        for (row, changed) in changes.changed {
            let id = row.id.clone();
            let before = self.peers.get(&id).and_then(|entry| entry.class);
            let seen_by = before.map(|class| self.seers(class)).unwrap_or_default();
            let (stale, is_other) = self.put(row, changed);
            is_stale |= stale;
            if is_other {
                moved.push((id, seen_by));
            }
        }
        for (id, gone_at) in changes.removed {
            let Some(entry) = self.peers.get(&id) else {
                is_doubtful |= leaps;
                continue;
            };
            let seen_by = entry.class.map(|class| self.seers(class)).unwrap_or_default();
            is_stale |= self.remove(&id);
            self.gone.push(Gone { at: gone_at, id, seen_by });
        }
        if is_stale {
            self.compile(at);
        }
        if is_doubtful {
            self.classes.iter_mut().for_each(|class| class.policy_at = at);
        }
        for (id, mut seen_by) in moved {
            let Some(entry) = self.peers.get_mut(&id) else { continue };
            entry.moved_at = at;
            let class = entry.class;
            seen_by.retain(|seer| class.is_none_or(|class| !self.is_seen(*seer, class)));
            self.gone.push(Gone { at, id: id.clone(), seen_by });
            self.moved.insert(id);
        }
        self.version = changes.version;
        self.forget(at);
    }

    fn set_policies(&mut self, rows: Vec<PolicyRow>) {
        self.policies = Policies::of(&rows);
        self.targets = self.overlay.map_or_else(Targets::default, |at| Targets::of(&self.policies.read, &at));
        self.rows = rows;
    }

    /// Finds the classes anew.
    fn regroup(&mut self, at: u64) {
        let before: Vec<u64> = (0..self.classes.len()).map(|class| self.total(class)).collect();
        let told: Vec<u64> = self.classes.iter().map(|class| class.told).collect();
        self.classes.clear();
        self.by_key.clear();
        self.gone.clear();
        self.begin = at;
        self.grouping += 1;
        let mut peers = std::mem::take(&mut self.peers);
        let mut saw = Vec::with_capacity(peers.len());
        for (id, entry) in &mut peers {
            saw.push(entry.class.and_then(|class| before.get(class).copied()));
            let told = entry.class.and_then(|class| told.get(class).copied()).unwrap_or(self.pushed);
            entry.class = entry.member.as_ref().map(|member| self.class_of(member, 0).0);
            self.join(id, entry.class);
            // What holds for the class that each member comes from.
            if let Some(class) = entry.class {
                self.classes[class].told = self.classes[class].told.max(told);
            }
        }
        self.peers = peers;
        self.compile(at);
        let sees: Vec<u64> = (0..self.classes.len()).map(|class| self.total(class)).collect();
        for ((id, entry), saw) in self.peers.iter_mut().zip(saw) {
            if saw != entry.class.and_then(|class| sees.get(class).copied()) {
                entry.moved_at = at;
                self.moved.insert(id.clone());
            }
        }
    }

    /// Adds a peer, or what is new of it. Whether classes must be compiled anew, and whether it is of another class than before.
    fn put(&mut self, row: PeerRow, changed: u64) -> (bool, bool) {
        let Some(map) = map_peer(&row) else { return (false, false) };
        let id = row.id.clone();
        let member = selected::member(&row)
            .map_err(|error| error!(peer = %id, %error, "everything is denied to it"))
            .ok();
        let (class, is_new) = match &member {
            Some(member) => {
                let (class, is_new) = self.class_of(member, self.pushed);
                (Some(class), is_new)
            }
            None => (None, false),
        };
        let before = self.peers.get(&id).map(|entry| (entry.class, entry.moved_at));
        let mut is_stale = is_new;
        if before.is_none_or(|(before, _)| before != class) {
            if before.is_some() {
                is_stale |= self.remove(&id);
            }
            // What was compiled while it had no member says nothing of it.
            is_stale |= class.is_some_and(|class| self.classes[class].members.is_empty());
            self.join(&id, class);
            is_stale |= class.is_some_and(|class| self.is_named(class));
        } else if let Some(entry) = self.peers.get(&id) {
            let (changed, end) = (entry.changed, entry.row.expires_at);
            self.unmark(&id, changed, end);
        }
        self.changed.entry(changed).or_default().insert(id.clone());
        if let Some(end) = row.expires_at {
            self.ends.insert((end, id.clone()));
        }
        let moved_at = before.map_or(0, |(_, moved_at)| moved_at);
        self.peers.insert(id, Entry { map, row, member, class, changed, moved_at });
        (is_stale, before.is_some_and(|(before, _)| before != class))
    }

    /// Whether classes must be compiled anew.
    fn remove(&mut self, id: &PeerId) -> bool {
        let Some(entry) = self.peers.remove(id) else { return false };
        self.unmark(id, entry.changed, entry.row.expires_at);
        self.moved.remove(id);
        let Some(class) = entry.class else { return false };
        let is_named = self.is_named(class);
        self.classes[class].members.remove(id);
        self.classes[class].sum = self.classes[class].sum.wrapping_sub(share(id));
        is_named
    }

    fn unmark(&mut self, id: &PeerId, changed: u64, end: Option<i64>) {
        if let Some(ids) = self.changed.get_mut(&changed) {
            ids.remove(id);
            if ids.is_empty() {
                self.changed.remove(&changed);
            }
        }
        if let Some(end) = end {
            self.ends.remove(&(end, id.clone()));
        }
    }

    fn join(&mut self, id: &PeerId, class: Option<usize>) {
        let Some(class) = class else { return };
        self.classes[class].members.insert(id.clone());
        self.classes[class].sum = self.classes[class].sum.wrapping_add(share(id));
    }

    /// The class of a member, and whether there was none; then nothing concerns it from `told` on.
    fn class_of(&mut self, member: &Member, told: u64) -> (usize, bool) {
        let key = Key::of(member, &self.policies.read, &self.targets);
        if let Some(class) = self.by_key.get(&key) {
            return (*class, false);
        }
        let class = self.classes.len();
        self.by_key.insert(key.clone(), class);
        self.classes.push(Class {
            key,
            members: BTreeSet::new(),
            sum: 0,
            policy: MapPolicy::default(),
            policy_at: 0,
            told,
        });
        (class, true)
    }

    fn is_named(&self, class: usize) -> bool {
        let coordinators =
            self.classes.iter().any(|class| class.key.is_coordinator() && !class.members.is_empty());
        self.classes[class].key.is_named(coordinators)
    }

    fn forget(&mut self, at: u64) {
        if self.gone.len() > GONE {
            self.gone.drain(..self.gone.len() - GONE / 2);
            self.begin = self.begin.max(self.gone.first().map_or(at, |gone| gone.at));
        }
        let empty = self.classes.iter().filter(|class| class.members.is_empty()).count();
        if empty > EMPTY_CLASSES + self.classes.len() / 2 {
            self.regroup(at);
        }
    }
}
