//! Layers: what the control plane allows one peer, in plain rules. A flow passes when *every* layer allows it. Peers are named by their
//! IPv4 addresses; their IPv6 addresses follow ([`crate::overlay`]).
//!
//! | layer | egress | ingress |
//! |---|---|---|
//! | `policies` | what the policies that select the peer say; open while none of them has an allow rule for it | likewise, and ICMP echo of the pool; nothing more while none of them has an allow rule for it |
//! | `preset sandboxed` | the workspace's tools (`role=tool`), on their `ports` | nothing |
//! | `preset coordinator` | open | the workspace's sandboxes, and ICMP echo of the pool |
//! | `preset isolated` | those allow rules of its policies that name single addresses, peers or one exact DNS name, and ports | nothing |

mod addresses;
mod compiler;

use std::net::Ipv4Addr;

use crate::{Action, Direction, Labels, Overlay, Policy, Preset, RuleSpec, Selector, label};
pub use compiler::Compiler;
pub(crate) use compiler::echo;

/// The most rules of one direction that a layer may have. One that would have more is closed instead.
pub const MAX_RULES: usize = 20_000;

/// A peer of the workspace, as selectors see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Sandbox or node.
    pub kind: MemberKind,
    /// Its overlay address.
    pub address: Ipv4Addr,
    /// What its operator says about it.
    pub labels: Labels,
    /// Its preset.
    pub preset: Option<Preset>,
}

/// What a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemberKind {
    /// An agent's sandbox.
    Sandbox,
    /// A host.
    Node,
}

/// One reason for limits. What no rule allows is denied; a deny rule wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// For people: `policies`, `preset sandboxed`.
    pub name: String,
    /// For flows that the peer opens.
    pub egress: Vec<LayerRule>,
    /// For flows that others open to the peer.
    pub ingress: Vec<LayerRule>,
}

/// A rule of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerRule {
    /// What happens.
    pub action: Action,
    /// To what; its `text` is what goes over the wire.
    pub spec: RuleSpec,
    /// The named policy that it comes from.
    pub policy: Option<String>,
}

// === impl Member ===

impl Member {
    /// Whether `selector` chooses it.
    pub fn fits(&self, selector: &Selector) -> bool {
        selector.fits(|key| match key {
            label::NAME => Some(&self.name),
            label::KIND => Some(self.kind.as_str()),
            key => self.labels.get(key),
        })
    }
}

impl MemberKind {
    /// The value of the label `kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Node => "node",
        }
    }
}

// === impl Layer ===

impl Layer {
    /// A layer that denies everything.
    pub fn closed(name: impl Into<String>) -> Self {
        Self { name: name.into(), egress: Vec::new(), ingress: Vec::new() }
    }

    /// Its rules of one direction.
    pub fn rules(&self, direction: Direction) -> &[LayerRule] {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }

    /// The layer as a policy of its own in `overlay`, egress rules first.
    pub fn policy(&self, generation: u32, overlay: &Overlay) -> Policy {
        let mut policy = Policy::new(generation);
        for direction in [Direction::Egress, Direction::Ingress] {
            for LayerRule { action, spec, .. } in self.rules(direction) {
                policy.push_scopes(direction, *action, spec, overlay.with_twins(spec.scopes()));
            }
        }
        policy
    }
}

// === impl LayerRule ===

impl LayerRule {
    /// An allow rule of the layer itself.
    pub(crate) fn allow(spec: RuleSpec) -> Self {
        Self { action: Action::Allow, spec, policy: None }
    }
}
