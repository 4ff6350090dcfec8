//! Peers that neither layers nor other peers tell apart form a class. What is worked out for a class holds for all of its members,
//! so ten thousand sandboxes cost no more than one.

use ipnet::{IpNet, Ipv4Net};
use lattice_policy::{Member, MemberKind, NamedPolicy, Overlay, Preset, Selector};

/// What a class has in common, for one set of policies. Compared, never looked into but here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    sandbox: bool,
    preset: Option<Preset>,
    /// The policies that select it.
    selecting: Vec<usize>,
    /// What of [`Targets`] names it.
    named: Vec<usize>,
    /// Of a tool, its label `ports`.
    tool: Option<Option<String>>,
}

/// What the rules of all policies name, each once, and only what tells peers of the pool apart.
#[derive(Debug, Default)]
pub struct Targets {
    selectors: Vec<Selector>,
    /// By IPv4, also where a rule says it by IPv6.
    nets: Vec<Ipv4Net>,
}

impl Targets {
    /// Those of `policies`.
    pub fn of(policies: &[NamedPolicy], overlay: &Overlay) -> Self {
        let mut targets = Self::default();
        for rule in policies.iter().flat_map(|policy| &policy.rules).map(|rule| &rule.rule) {
            if let Some(selector) = rule.peers().filter(|selector| !targets.selectors.contains(selector)) {
                targets.selectors.push(selector.clone());
            }
            // One that holds the pool names all alike.
            let parts = rule.net().and_then(|net| match net {
                IpNet::V4(net) => overlay.pool().contains(&net).then_some(net),
                IpNet::V6(net) => overlay.v4(&net),
            });
            let parts = parts.filter(|net| *net != overlay.pool());
            if let Some(net) = parts.filter(|net| !targets.nets.contains(net)) {
                targets.nets.push(net);
            }
        }
        targets
    }
}

impl Key {
    /// The class of `member` by `policies`, whose targets are `targets`.
    pub fn of(member: &Member, policies: &[NamedPolicy], targets: &Targets) -> Self {
        let selecting = policies.iter().enumerate().filter(|(_, policy)| member.fits(&policy.selector));
        let chosen = targets.selectors.iter().map(|selector| member.fits(selector));
        let held = targets.nets.iter().map(|net| net.contains(&member.address));
        let named = chosen.chain(held).enumerate().filter(|(_, names)| *names);
        let is_tool = member.labels.get("role") == Some("tool");
        Self {
            sandbox: member.kind == MemberKind::Sandbox,
            preset: member.preset,
            selecting: selecting.map(|(at, _)| at).collect(),
            named: named.map(|(at, _)| at).collect(),
            tool: is_tool.then(|| member.labels.get("ports").map(str::to_owned)),
        }
    }

    /// Whether layers bind its members.
    pub fn is_bound(&self) -> bool {
        self.sandbox
    }

    /// Whether the layers of its members name all sandboxes.
    pub fn is_coordinator(&self) -> bool {
        self.preset == Some(Preset::Coordinator)
    }

    /// Whether somebody's layers name its members, so that one more or less makes them others.
    pub fn is_named(&self, coordinators: bool) -> bool {
        !self.named.is_empty() || self.tool.is_some() || (self.sandbox && coordinators)
    }
}
