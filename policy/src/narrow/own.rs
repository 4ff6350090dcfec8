//! Where a host leads no agent, as rules that deny.
//!
//! Where nothing behind the agent's links would refuse it, as in a pod, the rules are all there is. The host's own limit
//! ([`Local::most`]) opens an address of the host by naming it alone: `192.0.2.1/32:9100` opens that port, `0.0.0.0/0` none.

use ipnet::IpNet;

use super::{Local, MAX_TEXT, flags, meet::Term};
use crate::{Action, Direction, Overlay, Policy, PortRange, Proto, Rule, RuleId, RuleSpec};

const UPLINK: &str = "by the uplink nobody reaches this host or another agent";
const UNROUTED: &str = "this host has no route to it";
const NODE: &str = "this node, unless its own egress_allow names the address alone";

/// What `policy`, which has all other rules, must deny besides.
pub(super) fn denies(policy: &Policy, local: &Local, overlay: &Overlay) -> Vec<Rule> {
    let Some(most) = &local.most else {
        return local.unreachable.iter().map(|net| deny(*net, UPLINK, Proto::Any, Vec::new())).collect();
    };
    let most = flags(most, overlay);
    let mut rules = Vec::new();
    // Most pods may reach the overlay and little else: what no rule opens need not be closed.
    let opens = |net: &IpNet| {
        policy.rules().iter().any(|rule| {
            (rule.direction, rule.action) == (Direction::Egress, Action::Allow)
                && (rule.net.contains(net) || net.contains(&rule.net))
        })
    };
    for net in local.unreachable.iter().filter(|net| opens(net)) {
        let named: Vec<&Term> =
            most.iter().filter(|term| term.scope.name.is_none() && term.scope.net == *net).collect();
        if named.is_empty() {
            rules.push(deny(*net, NODE, Proto::Any, Vec::new()));
            continue;
        }
        for proto in [Proto::Tcp, Proto::Udp, Proto::Icmp] {
            let fit = || named.iter().filter(|term| term.proto == Proto::Any || term.proto == proto);
            let is_open = fit().any(|term| term.ports.is_empty());
            let ports = match proto {
                _ if is_open => continue,
                // Rules with ports are for TCP and UDP.
                Proto::Icmp => Vec::new(),
                // Not all ports: later fragments have none.
                _ if fit().next().is_none() => Vec::new(),
                _ => match others(fit().flat_map(|term| term.ports.iter().copied()).collect()) {
                    left if left.is_empty() => continue,
                    left => left,
                },
            };
            rules.push(deny(*net, NODE, proto, ports));
        }
    }
    rules
}

/// Where nothing leads: what is sent there is lost anyway, so these rules only have a record say why.
pub(super) fn unrouted(local: &Local) -> impl Iterator<Item = Rule> {
    local.unrouted.iter().map(|net| deny(*net, UNROUTED, Proto::Any, Vec::new()))
}

fn deny(net: IpNet, why: &str, proto: Proto, ports: Vec<PortRange>) -> Rule {
    let text = format!("{} ({why})", RuleSpec::new(proto, net, ports.clone()).text);
    let text = text.chars().take(MAX_TEXT).collect();
    Rule {
        id: RuleId::NONE,
        text,
        direction: Direction::Egress,
        action: Action::Deny,
        proto,
        net,
        name: None,
        ports,
    }
}

/// All ports but `ports`.
fn others(mut ports: Vec<PortRange>) -> Vec<PortRange> {
    ports.sort_by_key(|range| (range.lo, range.hi));
    let mut left = Vec::new();
    let mut next = Some(0);
    for PortRange { lo, hi } in ports {
        let Some(from) = next else { break };
        if from < lo {
            left.push(PortRange { lo: from, hi: lo - 1 });
        }
        next = hi.checked_add(1).map(|after| after.max(from));
    }
    left.extend(next.map(|lo| PortRange { lo, hi: u16::MAX }));
    left
}
