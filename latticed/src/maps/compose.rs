//! What presets and policies mean for one peer, in the form that its network map carries.

use std::sync::Arc;

use lattice_policy::{Action, Layer, LayerRule, NamedPolicy};
use lattice_wire::{Layer as MapLayer, MapPolicy, MapRule, netmap::MAX_LAYER_RULES};
use tracing::error;

use crate::{selected, store::policies::PolicyRow};

const _: () =
    assert!(lattice_policy::layer::MAX_RULES == MAX_LAYER_RULES, "what is compiled is what peers accept");

/// A workspace's policies, read.
#[derive(Debug, Default)]
pub struct Policies {
    /// Those that this version can read.
    pub read: Vec<NamedPolicy>,
    /// The names of the others. Nobody may do what one of them perhaps denies.
    pub unread: Vec<String>,
}

impl Policies {
    /// Reads them.
    pub fn of(rows: &[PolicyRow]) -> Self {
        let mut policies = Self::default();
        for row in rows {
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

/// The layers of one peer.
pub fn to_wire(layers: &[Arc<Layer>]) -> MapPolicy {
    let rules = |rules: &[LayerRule]| {
        let rule = |rule: &LayerRule| MapRule {
            allow: rule.action == Action::Allow,
            rule: rule.spec.text.clone(),
            policy: rule.policy.clone(),
        };
        rules.iter().map(rule).collect()
    };
    let layer = |layer: &Arc<Layer>| MapLayer {
        name: layer.name.clone(),
        egress: rules(&layer.egress),
        ingress: rules(&layer.ingress),
    };
    MapPolicy { layers: layers.iter().map(layer).collect() }
}
