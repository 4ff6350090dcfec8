//! From members and named policies to the layers of one member.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net};

use super::{Layer, LayerRule, MAX_RULES, Member, MemberKind, addresses::aggregated};
use crate::{
    Action, Direction, NamedPolicy, PolicyRule, PortRange, Preset, Proto, RuleSpec, Selector, Target,
    grammar::{self, everywhere},
    named::NamedTarget,
};

/// How many different layers are kept for the next receiver. Most peers of a workspace share a few.
const KEPT: usize = 64;

/// The rules that a layer has beside those of the policies: see [`open`] and [`echo`].
const OWN_RULES: usize = 2;

/// The policies that select a receiver, and whether the layer is that of the isolated preset.
type Key = (Vec<usize>, bool);

/// Compiles layers for the members of one workspace. What they have in common is worked out once.
#[derive(Debug)]
pub struct Compiler<'a> {
    policies: &'a [NamedPolicy],
    /// The members' addresses by every selector that a rule names.
    peers: HashMap<&'a Selector, Vec<Target>>,
    echo: RuleSpec,
    sandboxed: Arc<Layer>,
    coordinator: Arc<Layer>,
    kept: HashMap<Key, Arc<Layer>>,
}

impl<'a> Compiler<'a> {
    /// For the workspace of `members`, whose addresses lie in `pool`.
    pub fn new(pool: Ipv4Net, members: &[Member], policies: &'a [NamedPolicy]) -> Self {
        let mut peers = HashMap::new();
        for rule in policies.iter().flat_map(|policy| &policy.rules) {
            if let NamedTarget::Peers(selector) = &rule.rule.target {
                peers.entry(selector).or_insert_with(|| {
                    let fitting = members.iter().filter(|m| m.fits(selector)).map(|m| m.address);
                    aggregated(fitting).into_iter().map(Target::Net).collect()
                });
            }
        }
        let echo = echo(pool);
        let sandboxed = Arc::new(sandboxed(members));
        let coordinator = Arc::new(coordinator(members, echo.clone()));
        Self { policies, peers, echo, sandboxed, coordinator, kept: HashMap::new() }
    }

    /// Whether the policies that select `receiver` say more than a layer may hold: then it may do nothing.
    pub fn is_too_much(&self, receiver: &Member) -> bool {
        self.is_beyond(&self.selecting(receiver))
    }

    /// The layers of `receiver`.
    pub fn layers(&mut self, receiver: &Member) -> Vec<Arc<Layer>> {
        let selecting = self.selecting(receiver);
        let preset = receiver.preset.map(|preset| match preset {
            Preset::Sandboxed => self.sandboxed.clone(),
            Preset::Coordinator => self.coordinator.clone(),
            Preset::Isolated => self.kept((selecting.clone(), true)),
        });
        let policies = self.kept((selecting, false));
        std::iter::once(policies).chain(preset).collect()
    }

    fn selecting(&self, receiver: &Member) -> Vec<usize> {
        let all = self.policies.iter().enumerate();
        all.filter(|(_, policy)| receiver.fits(&policy.selector)).map(|(index, _)| index).collect()
    }

    /// Counted before anything is made: it could be more than the memory holds.
    fn is_beyond(&self, selecting: &[usize]) -> bool {
        [Direction::Egress, Direction::Ingress].into_iter().any(|direction| {
            let policies = selecting.iter().filter_map(|&index| self.policies.get(index));
            let rules = policies.flat_map(|policy| &policy.rules).filter(|rule| rule.direction == direction);
            let count: usize = rules.map(|rule| self.targets(rule).len()).sum();
            count + OWN_RULES > MAX_RULES
        })
    }

    fn kept(&mut self, key: Key) -> Arc<Layer> {
        if let Some(layer) = self.kept.get(&key) {
            return layer.clone();
        }
        let layer = Arc::new(match key.1 {
            is_preset if self.is_beyond(&key.0) => {
                // Begins as the layer is named otherwise: the receiver looks for its preset.
                let name = if is_preset { format!("preset {}", Preset::Isolated) } else { "policies".into() };
                Layer::closed(format!("{name}: of more than {MAX_RULES} rules"))
            }
            true => self.isolated(&key.0),
            false => self.named(&key.0),
        });
        if self.kept.len() >= KEPT {
            self.kept.clear();
        }
        self.kept.insert(key, layer.clone());
        layer
    }

    /// The layer of the named policies.
    fn named(&self, selecting: &[usize]) -> Layer {
        let rules = |direction| {
            let mut rules = Vec::new();
            let mut has_allow = false;
            for policy in selecting.iter().filter_map(|&index| self.policies.get(index)) {
                for rule in policy.rules.iter().filter(|rule| rule.direction == direction) {
                    // Also where no peer fits its selector: that must not open what it was meant to limit.
                    has_allow |= rule.action == Action::Allow;
                    rules.extend(self.expanded(policy, rule));
                }
            }
            (rules, has_allow)
        };
        let (mut egress, limited) = rules(Direction::Egress);
        if !limited {
            egress.extend(open());
        }
        let (mut ingress, _) = rules(Direction::Ingress);
        ingress.push(LayerRule::allow(self.echo.clone()));
        Layer { name: "policies".into(), egress, ingress }
    }

    fn isolated(&self, selecting: &[usize]) -> Layer {
        let policies = selecting.iter().filter_map(|&index| self.policies.get(index));
        let egress = policies.flat_map(|policy| {
            let narrow = policy.rules.iter().filter(|rule| {
                rule.direction == Direction::Egress && rule.action == Action::Allow && rule.rule.is_narrow()
            });
            narrow.flat_map(|rule| self.expanded(policy, rule))
        });
        Layer { egress: egress.collect(), ..Layer::closed(preset_name(Preset::Isolated)) }
    }

    /// The plain rules of a rule.
    fn expanded(&self, policy: &NamedPolicy, rule: &PolicyRule) -> Vec<LayerRule> {
        let spec = |target: &Target| RuleSpec::new(rule.rule.proto, target.clone(), rule.rule.ports.clone());
        let plain =
            |target| LayerRule { action: rule.action, spec: spec(target), policy: Some(policy.name.clone()) };
        self.targets(rule).iter().map(plain).collect()
    }

    fn targets<'b>(&'b self, rule: &'b PolicyRule) -> &'b [Target] {
        match &rule.rule.target {
            NamedTarget::Plain(target) => std::slice::from_ref(target),
            NamedTarget::Peers(selector) => self.peers.get(selector).map_or(&[][..], Vec::as_slice),
        }
    }
}

/// ICMP of every address of the pool: a peer that can be pinged is easier to find than one that cannot.
pub(crate) fn echo(pool: Ipv4Net) -> RuleSpec {
    RuleSpec::new(Proto::Icmp, IpNet::V4(pool.trunc()), Vec::new())
}

fn open() -> impl Iterator<Item = LayerRule> {
    everywhere().into_iter().map(|net| LayerRule::allow(RuleSpec::new(Proto::Any, net, Vec::new())))
}

fn preset_name(preset: Preset) -> String {
    format!("preset {preset}")
}

/// Tools that are reached on the same ports share their networks.
fn sandboxed(members: &[Member]) -> Layer {
    let mut tools: BTreeMap<Vec<PortRange>, Vec<&Member>> = BTreeMap::new();
    for tool in members.iter().filter(|member| member.labels.get("role") == Some("tool")) {
        // Ports that cannot be read open nothing.
        if let Some(ports) = ports(tool) {
            tools.entry(ports).or_default().push(tool);
        }
    }
    let rules = tools.into_iter().flat_map(|(ports, tools)| {
        let nets = aggregated(tools.into_iter().map(|tool| tool.address)).into_iter();
        nets.map(move |net| LayerRule::allow(RuleSpec::new(Proto::Any, net, ports.clone())))
    });
    Layer { egress: rules.collect(), ..Layer::closed(preset_name(Preset::Sandboxed)) }
}

fn ports(tool: &Member) -> Option<Vec<PortRange>> {
    let Some(ports) = tool.labels.get("ports") else { return Some(Vec::new()) };
    grammar::parse_ports(Proto::Any, Some(&ports.replace('+', ","))).ok()
}

fn coordinator(members: &[Member], echo: RuleSpec) -> Layer {
    let sandboxes = members.iter().filter(|member| member.kind == MemberKind::Sandbox);
    let nets = aggregated(sandboxes.map(|member| member.address)).into_iter();
    let specs = nets.map(|net| RuleSpec::new(Proto::Any, net, Vec::new())).chain([echo]);
    Layer {
        name: preset_name(Preset::Coordinator),
        egress: open().collect(),
        ingress: specs.map(LayerRule::allow).collect(),
    }
}

#[cfg(test)]
mod tests;
