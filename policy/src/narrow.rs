//! Puts layers and flags together into the one policy that an enforcer loads: what *all* of them allow.
//!
//! Prefixes nest or are disjoint, so the intersection of two lists is made of pairs in which one network contains the
//! other; a sweep over both sorted lists finds just these. Names nest likewise. A name and a network make the name, limited to
//! the network.

mod meet;
mod own;
mod size;
mod widens;

use std::{borrow::Borrow, sync::Arc};

use ipnet::IpNet;

use crate::{Action, Direction, Layer, LayerRule, Overlay, Policy, Rule, RuleId, RuleSpec, layer};
use meet::{Term, intersect};
pub use widens::only_widens;

/// Most rules of an effective policy: layers of the most rules in both directions, whose peers have two addresses each, fit.
pub const MAX_RULES: usize = 2 * 65_536;

/// Most lines that its flat form may need: every prefix repeats the lines of those that cover it. The eBPF program's trie of
/// networks, where the policy before may still be, has room for eight times as many.
pub const MAX_LINES: usize = 1 << 19;

/// Most pairs of rules that may have to be compared.
pub const MAX_PAIRS: usize = 1 << 22;

/// Longest text of a rule with its sources, in characters.
const MAX_TEXT: usize = 1024;

/// Layers and flags whose intersection is too big to enforce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NarrowError {
    /// More than [`MAX_RULES`].
    #[error(
        "the policies and the sandbox's flags make more than {MAX_RULES} rules together; use wider networks or fewer rules"
    )]
    Rules,
    /// More than [`MAX_LINES`].
    #[error(
        "the policies and the sandbox's flags make more than {MAX_LINES} lines together; put fewer wide rules over many narrow ones"
    )]
    Lines,
    /// More than [`MAX_PAIRS`].
    #[error(
        "the policies and the sandbox's flags overlap in more than {MAX_PAIRS} pairs of rules; use fewer rules for the same networks"
    )]
    Pairs,
}

/// What the host itself says of one sandbox, beside the control plane's layers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Local {
    /// What the agent may open.
    pub flags: Vec<RuleSpec>,
    /// The most that `flags` may come to; `None` when they are the host's own word.
    pub most: Option<Vec<RuleSpec>>,
    /// Who may open flows to the agent although no layer says so, such as the probes of a container's health. A deny rule of a
    /// layer wins, as everywhere.
    pub ingress: Vec<RuleSpec>,
    /// What of the agent's peers may reach as far as every layer that says who may lets them, such as its port forwards. A layer that
    /// has nothing but the echo of the pool, as the workspace's policies while none is about ingress, leaves it to the host.
    pub offered: Vec<RuleSpec>,
    /// Where the host's way out of the overlay leads nobody, whatever rules say: its own addresses, and those of other agents. The
    /// host refuses it in any case; as rules, it is refused in the sandbox and on record. Left out where the policy would be too big
    /// with them ([`Policy::is_closed`]): a host's addresses must not make a good policy one that denies everything.
    ///
    /// With `most` the host has no say behind the agent's links. Then a policy with them that is too big is an error, and a rule of
    /// `most` opens such an address, if it names it alone: `192.0.2.1/32`, and no wider network.
    pub unreachable: Vec<IpNet>,
    /// Where it leads nobody because the host itself has no way there at the moment. Left out likewise.
    pub unrouted: Vec<IpNet>,
}

impl From<Vec<RuleSpec>> for Local {
    /// Flags without a limit.
    fn from(flags: Vec<RuleSpec>) -> Self {
        Self { flags, ..Self::default() }
    }
}

/// The policy that allows what every layer and, in egress, a flag allows. Without a flag the agent opens nothing. Without
/// a layer the flags alone decide, and the overlay's pool may send ICMP.
///
/// # Errors
/// When the result would be too big.
pub fn effective<L: Borrow<Layer>>(
    generation: u32,
    layers: &[L],
    flags: &[RuleSpec],
    overlay: &Overlay,
) -> Result<Policy, NarrowError> {
    effective_on(generation, layers, &flags.to_vec().into(), overlay)
}

/// [`effective`] on a host that limits the flags, or lets somebody in.
///
/// # Errors
/// When the result would be too big.
pub fn effective_on<L: Borrow<Layer>>(
    generation: u32,
    layers: &[L],
    local: &Local,
    overlay: &Overlay,
) -> Result<Policy, NarrowError> {
    let layers: Vec<&Layer> = layers.iter().map(Borrow::borrow).collect();
    let mut flags = flags(&local.flags, overlay);
    if let Some(most) = &local.most {
        flags = intersect(&flags, &self::flags(most, overlay), overlay)?;
    }
    let egress = layers.iter().try_fold(flags, |terms, layer| {
        intersect(&terms, &terms_of(layer, Direction::Egress, Action::Allow, overlay), overlay)
    })?;
    let ingress = match layers.split_first() {
        None => Term::flag(0, &layer::echo(overlay.pool()), overlay).collect(),
        Some((first, others)) => {
            let first = terms_of(first, Direction::Ingress, Action::Allow, overlay);
            others.iter().try_fold(first, |terms, layer| {
                intersect(&terms, &terms_of(layer, Direction::Ingress, Action::Allow, overlay), overlay)
            })?
        }
    };
    let mut saying = layers.iter().filter(|layer| !leaves_ingress(layer, overlay));
    let offered = saying.try_fold(host(&local.offered, overlay), |terms, layer| {
        intersect(&terms, &terms_of(layer, Direction::Ingress, Action::Allow, overlay), overlay)
    })?;
    let denies = |direction| {
        layers.iter().flat_map(move |layer| terms_of(layer, direction, Action::Deny, overlay)).collect()
    };

    let mut policy = Policy::new(generation);
    for (direction, action, terms) in [
        (Direction::Egress, Action::Allow, egress),
        (Direction::Egress, Action::Deny, denies(Direction::Egress)),
        (Direction::Ingress, Action::Allow, ingress),
        (Direction::Ingress, Action::Allow, offered),
        (Direction::Ingress, Action::Allow, host(&local.ingress, overlay)),
        (Direction::Ingress, Action::Deny, denies(Direction::Ingress)),
    ] {
        for term in terms {
            policy.push(term.into_rule(direction, action));
        }
    }
    size::check(&policy)?;
    // The last, so that a deny rule of a layer is named before.
    let closed = own::denies(&policy, local, overlay);
    policy.close(closed.iter().cloned().chain(own::unrouted(local)).collect());
    if size::check(&policy).is_err() {
        policy.reopen();
        policy.close(closed);
    }
    match size::check(&policy) {
        Err(error) if local.most.is_some() => return Err(error),
        Err(_) => policy.reopen(),
        Ok(()) => {}
    }
    Ok(policy)
}

fn flags(specs: &[RuleSpec], overlay: &Overlay) -> Vec<Term> {
    specs.iter().enumerate().flat_map(|(order, spec)| Term::flag(order, spec, overlay)).collect()
}

/// The rules by which the host lets somebody in.
fn host(specs: &[RuleSpec], overlay: &Overlay) -> Vec<Term> {
    let from = |spec| Term::of(0, spec, vec![Arc::from("this host")], overlay);
    specs.iter().filter(|spec| !spec.is_by_name()).flat_map(from).collect()
}

/// Whether a layer says nothing of who may reach the agent but what every workspace has.
fn leaves_ingress(layer: &Layer, overlay: &Overlay) -> bool {
    let echo = layer::echo(overlay.pool());
    let mut allowed = layer.ingress.iter().filter(|rule| rule.action == Action::Allow).peekable();
    allowed.peek().is_some() && allowed.all(|rule| rule.policy.is_none() && rule.spec == echo)
}

/// The rules of a layer with one action, each knowing where it comes from.
fn terms_of(layer: &Layer, direction: Direction, action: Action, overlay: &Overlay) -> Vec<Term> {
    let name: Arc<str> = layer.name.as_str().into();
    let of_action = layer.rules(direction).iter().filter(move |rule| rule.action == action);
    of_action.enumerate().flat_map(|(order, rule)| Term::layer(order, rule, &name, overlay)).collect()
}

impl Term {
    fn flag(order: usize, spec: &RuleSpec, overlay: &Overlay) -> impl Iterator<Item = Self> + use<> {
        Self::of(order, spec, Vec::new(), overlay)
    }

    /// A rule that leaves everything to the others is no source worth a word.
    fn layer(
        order: usize,
        rule: &LayerRule,
        name: &Arc<str>,
        overlay: &Overlay,
    ) -> impl Iterator<Item = Self> + use<> {
        let from = match &rule.policy {
            Some(policy) => vec![format!("policy {policy}").into()],
            None if meet::is_open(&rule.spec) => Vec::new(),
            None => vec![name.clone()],
        };
        Self::of(order, &rule.spec, from, overlay)
    }

    fn of(
        order: usize,
        spec: &RuleSpec,
        from: Vec<Arc<str>>,
        overlay: &Overlay,
    ) -> impl Iterator<Item = Self> + use<> {
        let RuleSpec { proto, ports, text, .. } = spec.clone();
        let scopes = overlay.with_twins(spec.scopes()).into_iter();
        scopes.map(move |scope| Self {
            order,
            scope,
            proto,
            ports: ports.clone(),
            text: text.clone(),
            from: from.clone(),
        })
    }

    /// The rule, its text followed by its sources.
    fn into_rule(self, direction: Direction, action: Action) -> Rule {
        let Self { scope, proto, ports, text, from, .. } = self;
        let text = match from.as_slice() {
            [] => text,
            from => format!("{text} ({})", from.join(", ")).chars().take(MAX_TEXT).collect(),
        };
        Rule { id: RuleId::NONE, text, direction, action, proto, net: scope.net, name: scope.name, ports }
    }
}

#[cfg(test)]
mod tests;
