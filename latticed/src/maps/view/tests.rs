//! A workspace that changes at random, held by two latticed that push and answer, and peers that hear only some of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lattice_policy::{Compiler, Layer, MemberKind};
use lattice_wire::{Applied, MapUpdate, NetMap, WgPublicKey, message::PeerKind};
use proptest::prelude::*;

use super::*;
use crate::maps::sight::{End, may_meet};
use crate::store::peers::{Address, Endpoints, Kind, Prefix};

const POLICIES: [&str; 5] = [
    r#"{"name":"p0","selector":"team=x","rules":[{"direction":"egress","action":"allow","rule":"tcp:{role=tool}:8080"}]}"#,
    r#"{"name":"p1","rules":[{"direction":"ingress","action":"deny","rule":"icmp:10.42.0.0/29"}]}"#,
    r#"{"name":"p2","selector":"kind=sandbox","rules":[
        {"direction":"egress","action":"allow","rule":"{name=n3}:22"},{"direction":"egress","action":"deny","rule":"{team=x}"}]}"#,
    r#"{"name":"p3","selector":"role=tool","rules":[
        {"direction":"ingress","action":"allow","rule":"tcp:{team=x}:8000-9000"},
        {"direction":"ingress","action":"allow","rule":"tcp:[fd12:3456:789a::a2a:8]:22"}]}"#,
    r#"{"of":"another version"}"#,
];
const LABELS: [&str; 5] = ["", "role=tool", "role=tool,ports=80", "team=x", "ports=no,role=tool,team=x"];
const PRESETS: [Option<&str>; 5] =
    [None, Some("sandboxed"), Some("coordinator"), Some("isolated"), Some("of another version")];

#[derive(Debug, Clone)]
enum Change {
    Join { n: u8, node: bool, labels: usize, preset: usize, ttl: Option<i64> },
    Leave(u8),
    Move(u8),
    Label(u8, usize),
    Renew(u8),
    Policy(usize),
    Time(i64),
}

fn change() -> impl Strategy<Value = Change> {
    let n = || 0u8..7;
    prop_oneof![
        4 => (n(), prop::bool::weighted(0.2), 0..5usize, 0..5usize, prop::option::weighted(0.3, 1..9i64))
            .prop_map(|(n, node, labels, preset, ttl)| Change::Join { n, node, labels, preset, ttl }),
        1 => n().prop_map(Change::Leave),
        2 => n().prop_map(Change::Move),
        2 => (n(), 0..5usize).prop_map(|(n, labels)| Change::Label(n, labels)),
        1 => n().prop_map(Change::Renew),
        1 => (0..5usize).prop_map(Change::Policy),
        1 => (1..4i64).prop_map(Change::Time),
    ]
}

/// What the store would hold.
#[derive(Default)]
struct World {
    now: i64,
    generation: u64,
    joined: u8,
    peers: BTreeMap<u8, (PeerRow, u64)>,
    removed: Vec<(PeerRow, u64)>,
    policies: BTreeSet<usize>,
    rules_at: u64,
}

impl World {
    fn apply(&mut self, change: Change) {
        self.generation += 1;
        let at = self.generation;
        match change {
            Change::Join { n, node, labels, preset, ttl } => {
                self.remove(n);
                self.joined += 1;
                let row = self.row(n, node, labels, preset, ttl);
                self.peers.insert(n, (row, at));
            }
            Change::Leave(n) => self.remove(n),
            Change::Policy(p) => {
                if !self.policies.remove(&p) {
                    self.policies.insert(p);
                }
                self.rules_at = at;
            }
            // As the reconciler does, or as if it came late.
            Change::Time(later) => {
                self.now += later;
                let over = |row: &PeerRow| row.expires_at.is_some_and(|end| end <= self.now);
                let over: Vec<u8> =
                    self.peers.iter().filter(|(_, (row, _))| over(row)).map(|(n, _)| *n).collect();
                if later > 1 {
                    over.into_iter().for_each(|n| self.remove(n));
                }
            }
            Change::Move(n) | Change::Label(n, _) | Change::Renew(n) => {
                let now = self.now;
                let Some((row, changed)) = self.peers.get_mut(&n) else { return };
                *changed = at;
                if matches!(change, Change::Label(..)) {
                    self.rules_at = at;
                }
                match change {
                    Change::Label(_, labels) => row.labels = parsed(labels),
                    Change::Renew(_) if row.expires_at.is_some_and(|end| end > now) => {
                        row.expires_at = Some(now + 9);
                    }
                    Change::Move(_) => {
                        row.endpoints = Endpoints(vec![([192, 0, 2, 1], u16::try_from(at).unwrap()).into()]);
                    }
                    _ => {}
                }
            }
        }
    }

    fn remove(&mut self, n: u8) {
        if let Some((row, _)) = self.peers.remove(&n) {
            self.removed.push((row, self.generation));
        }
    }

    fn row(&self, n: u8, node: bool, labels: usize, preset: usize, ttl: Option<i64>) -> PeerRow {
        PeerRow {
            id: PeerId::from_random([self.joined; 10]),
            workspace: workspace(),
            name: format!("n{n}").parse().unwrap(),
            kind: Kind(if node { PeerKind::Node } else { PeerKind::Sandbox }),
            wireguard_public_key: Some(WgPublicKey([self.joined; 32])),
            nats_public_key: None,
            endpoints: Endpoints::default(),
            online: true,
            last_seen: 0,
            created_at: 0,
            preset: PRESETS[preset].map(str::to_owned),
            labels: parsed(labels),
            agent_type: None,
            ttl: None,
            expires_at: ttl.map(|ttl| self.now + ttl),
            token: None,
            jwt_expires_at: None,
            address: Address(std::net::Ipv4Addr::from(0x0A2A_0002 + u32::from(self.joined) * 3)),
            prefix: Prefix(overlay().prefix()),
        }
    }

    fn changes(&self, have: Option<u64>) -> Changes {
        let since = have.unwrap_or(self.generation.saturating_sub(3));
        let removed: Vec<_> = self.removed.iter().filter(|(_, at)| *at > since).cloned().collect();
        let policies = (have.is_none() || self.rules_at > since).then(|| self.rows());
        let mut changed: Vec<_> = self.peers.values().cloned().collect();
        match have {
            Some(since) => changed.retain(|(_, at)| *at > since),
            None => changed.extend(removed.clone()),
        }
        Changes {
            version: MapVersion { epoch: 1, generation: self.generation },
            name: "demo".parse().unwrap(),
            overlay: overlay(),
            since,
            whole: have.is_none(),
            policies,
            changed,
            removed: removed.into_iter().map(|(row, at)| (row.id, at)).collect(),
        }
    }

    fn rows(&self) -> Vec<PolicyRow> {
        let row = |p: &usize| PolicyRow {
            id: format!("{p}"),
            workspace: workspace(),
            name: format!("p{p}"),
            spec: POLICIES[*p].into(),
            created_at: 0,
            expires_at: None,
        };
        self.policies.iter().map(row).collect()
    }

    fn fresh(&self) -> View {
        let mut view = View::empty(workspace());
        view.update(self.changes(None));
        view
    }

    /// Whom each peer may see, found out two by two.
    fn meets(&self) -> BTreeMap<PeerId, BTreeSet<PeerId>> {
        let rows = self.rows();
        let policies = Policies::of(&rows);
        let members: Vec<(PeerId, Member)> = self
            .peers
            .values()
            .filter_map(|(row, _)| Some((row.id.clone(), selected::member(row).ok()?)))
            .collect();
        let all: Vec<Member> = members.iter().map(|(_, member)| member.clone()).collect();
        let mut compiler = Compiler::new(overlay().pool(), &all, &policies.read);
        let ends: Vec<(PeerId, Member, Vec<Arc<Layer>>)> = members
            .into_iter()
            .map(|(id, member)| {
                let mut layers = compiler.layers(&member);
                layers.extend(policies.unread.iter().map(|_| Layer::closed("unread").into()));
                (id, member, layers)
            })
            .collect();
        let end = |at: usize| End {
            address: ends[at].1.address,
            layers: (ends[at].1.kind == MemberKind::Sandbox).then_some(ends[at].2.as_slice()),
        };
        let over: BTreeSet<&PeerId> = self
            .peers
            .values()
            .filter(|(row, _)| row.expires_at.is_some_and(|end| end <= self.now))
            .map(|(row, _)| &row.id)
            .collect();
        let seen = |one: usize| {
            let others =
                (0..ends.len()).filter(|other| *other != one && may_meet(&overlay(), end(one), end(*other)));
            others.map(|other| ends[other].0.clone()).filter(|id| !over.contains(id)).collect()
        };
        (0..ends.len()).map(|one| (ends[one].0.clone(), seen(one))).collect()
    }
}

fn workspace() -> WorkspaceId {
    WorkspaceId::from_random([1; 10])
}

fn overlay() -> Overlay {
    Overlay::new("10.42.0.0/16".parse().unwrap(), "fd12:3456:789a::/48".parse().unwrap()).unwrap()
}

fn parsed(labels: usize) -> BTreeMap<String, String> {
    LABELS[labels].parse::<lattice_policy::Labels>().unwrap().into()
}

fn sorted(mut map: NetMap) -> NetMap {
    map.peers.sort_by_key(|peer| peer.id.clone());
    map
}

/// What a peer makes of an update, as `lattice` does; whether it must ask.
fn hear(map: &mut Option<NetMap>, update: MapUpdate) -> bool {
    match (map.as_mut(), update) {
        (_, MapUpdate::Full(whole)) => {
            if map.as_ref().is_none_or(|map| map.generation < whole.generation) {
                *map = Some(whole);
            }
            false
        }
        (Some(map), MapUpdate::Delta(delta)) => map.apply(delta) == Applied::Gap,
        (None, MapUpdate::Delta(_)) => true,
        (_, MapUpdate::Current) => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_is_heard_leads_to_the_newest_map(
        steps in prop::collection::vec((change(), 0..6u8, any::<u16>()), 1..40),
    ) {
        let mut world = World::default();
        let mut views = [world.fresh(), world.fresh()];
        let mut maps: BTreeMap<PeerId, Option<NetMap>> = BTreeMap::new();
        for (change, does, luck) in steps {
            world.apply(change);
            let now = world.now;
            let truth = world.fresh();
            let living: Vec<PeerId> = truth.peers.keys().cloned().collect();
            // The maps are what two by two says.
            for (id, seen) in world.meets() {
                let map = truth.netmap(&id, now).unwrap();
                prop_assert_eq!(&map.peers.iter().map(|peer| peer.id.clone()).collect::<BTreeSet<_>>(), &seen);
            }
            maps.retain(|id, _| living.contains(id));
            for id in &living {
                maps.entry(id.clone()).or_default();
            }
            // One of the two latticed pushes, the other only answers, or neither hears of it.
            let [first, second] = &mut views;
            let (view, other) = if does % 2 == 0 { (first, second) } else { (second, first) };
            if does < 4 {
                view.update(world.changes(Some(view.version().generation)));
                let plan = view.plan(now);
                let mut told = BTreeSet::new();
                for (at, (id, receiver)) in plan.receivers.iter().enumerate() {
                    prop_assert!(told.insert(id.clone()), "told twice");
                    if luck >> (at % 16) & 1 == 1 {
                        continue;
                    }
                    let update = view.update_for(id, *receiver, now).unwrap();
                    let map = maps.get_mut(id).unwrap();
                    if !hear(map, update) {
                        prop_assert_eq!(map.clone().map(sorted), truth.netmap(id, now).map(sorted));
                    }
                }
                if luck & 3 != 3 {
                    view.told(&plan);
                }
            } else if does == 4 {
                other.update(world.changes(Some(other.version().generation)));
                for (at, id) in living.iter().enumerate() {
                    if luck >> (at % 16) & 1 == 0 {
                        ask(other, id, &mut maps, now);
                        prop_assert_eq!(maps[id].clone().map(sorted), truth.netmap(id, now).map(sorted));
                    }
                }
            }
        }
        for view in &mut views {
            view.update(world.changes(Some(view.version().generation)));
            let truth = world.fresh();
            for id in truth.peers.keys() {
                prop_assert_eq!(view.netmap(id, world.now), truth.netmap(id, world.now));
                let mut maps = maps.clone();
                ask(view, id, &mut maps, world.now);
                let map = maps[id].clone().map(sorted);
                prop_assert_eq!(map, truth.netmap(id, world.now).map(sorted));
            }
        }
    }
}

fn ask(view: &View, id: &PeerId, maps: &mut BTreeMap<PeerId, Option<NetMap>>, now: i64) {
    let map = maps.get_mut(id).unwrap();
    let have = map.as_ref().map(NetMap::version);
    if hear(map, view.answer(id, have, now).unwrap()) {
        *map = None;
        hear(map, view.answer(id, None, now).unwrap());
    }
}

/// What the push of one enrolment costs does not depend on how many sandboxes there are: they are not told.
#[test]
fn one_sandbox_more_is_told_to_tools_alone() {
    let mut world = World::default();
    let join = |n, labels, preset| Change::Join { n, node: false, labels, preset, ttl: None };
    for n in 0..9 {
        world.apply(join(n, usize::from(n < 2), usize::from(n >= 2)));
    }
    let mut view = world.fresh();
    view.told(&view.plan(0));
    world.apply(join(9, 0, 1));
    view.update(world.changes(Some(view.version().generation)));
    let plan = view.plan(0);
    let told: BTreeSet<PeerId> = plan.receivers.iter().map(|(id, _)| id.clone()).collect();
    let ids = [0, 1, 9].map(|n| world.peers[&n].0.id.clone());
    assert_eq!(told, BTreeSet::from(ids), "both tools, and itself");
    for (id, receiver) in &plan.receivers[..2] {
        let Some(MapUpdate::Delta(delta)) = view.update_for(id, *receiver, 0) else { panic!("no delta") };
        assert_eq!((delta.changed.len(), delta.policy), (1, None));
    }
    assert_eq!(view.netmap(&world.peers[&5].0.id, 0).unwrap().peers.len(), 2);
}
