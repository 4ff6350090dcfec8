//! What presets and policies mean for one peer, in the form that its network map carries.

use std::collections::BTreeMap;

use lattice_policy::{Action, Compiler, Layer, Member, NamedPolicy};
use lattice_wire::{Layer as MapLayer, MapPolicy, MapRule, PeerId, netmap::MAX_LAYER_RULES};
use tracing::error;

use crate::{
    selected,
    store::{netmap::Snapshot, peers::PeerRow},
};

const _: () =
    assert!(lattice_policy::layer::MAX_RULES == MAX_LAYER_RULES, "what is compiled is what peers accept");

/// A workspace's policies, read.
pub struct Policies {
    read: Vec<NamedPolicy>,
    /// Those that this version cannot read. Nobody may do what one of them perhaps denies.
    unread: Vec<String>,
}

/// Composes the policies of the peers of one workspace.
pub struct Composer<'a> {
    compiler: Compiler<'a>,
    unread: &'a [String],
    members: BTreeMap<PeerId, Member>,
}

impl Policies {
    /// Those of a snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut policies = Self { read: Vec::new(), unread: Vec::new() };
        for row in snapshot.policies() {
            match selected::policy(row) {
                Ok(policy) => policies.read.push(policy),
                Err(error) => {
                    error!(workspace = %row.workspace, %error, "everything is denied until it is removed");
                    policies.unread.push(row.name.clone());
                }
            }
        }
        policies
    }
}

impl<'a> Composer<'a> {
    /// For the members of a snapshot and the policies that came with it.
    pub fn new(snapshot: &Snapshot, policies: &'a Policies) -> Self {
        let members: BTreeMap<PeerId, Member> =
            snapshot.members().filter_map(|row| Some((row.id.clone(), readable(row)?))).collect();
        let all: Vec<Member> = members.values().cloned().collect();
        Self {
            compiler: Compiler::new(snapshot.pool(), &all, &policies.read),
            unread: &policies.unread,
            members,
        }
    }

    /// What `id` may do. Nothing, when it is no member that this version understands.
    pub fn policy(&mut self, id: &PeerId) -> MapPolicy {
        let Some(member) = self.members.get(id) else {
            return MapPolicy { layers: vec![to_wire(&Layer::closed("unreadable member"))] };
        };
        let mut layers: Vec<MapLayer> =
            self.compiler.layers(member).iter().map(|layer| to_wire(layer)).collect();
        if let Some(name) = self.unread.first() {
            layers.push(to_wire(&Layer::closed(format!("unreadable policy {name}"))));
        }
        MapPolicy { layers }
    }
}

/// Nobody is told of a member that this version cannot read, and it may do nothing itself.
fn readable(row: &PeerRow) -> Option<Member> {
    selected::member(row).map_err(|error| error!(peer = %row.id, %error, "everything is denied to it")).ok()
}

fn to_wire(layer: &Layer) -> MapLayer {
    let rules = |rules: &[lattice_policy::LayerRule]| {
        let rule = |rule: &lattice_policy::LayerRule| MapRule {
            allow: rule.action == Action::Allow,
            rule: rule.spec.text.clone(),
            policy: rule.policy.clone(),
        };
        rules.iter().map(rule).collect()
    };
    MapLayer { name: layer.name.clone(), egress: rules(&layer.egress), ingress: rules(&layer.ingress) }
}
