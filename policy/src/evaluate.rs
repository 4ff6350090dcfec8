//! The reference evaluator: what a policy says about one packet, read straight from its rules.
//!
//! It knows nothing of [`crate::Table`], so that the two can be held against each other, and it is what
//! `lattice policy explain` prints.

use std::net::IpAddr;

use crate::{Action, Direction, Pin, Policy, Proto, Reason, Rule, RuleId, builtin, pin};

/// The facts of a packet that rules look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Packet {
    /// Which way it goes.
    pub direction: Direction,
    /// IP protocol number, behind IPv6 extension headers.
    pub proto: u8,
    /// The other end: destination of egress, source of ingress. An IPv4-mapped address stands for its IPv4 address.
    pub remote: IpAddr,
    /// Destination port in either direction, so on ingress the agent's own. `None`: ICMP, or a later fragment.
    pub port: Option<u16>,
}

/// What happens to a packet, and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// Allow or deny.
    pub action: Action,
    /// The rule that decided; [`RuleId::NONE`] when none did.
    pub rule: RuleId,
    /// Why.
    pub reason: Reason,
}

// === impl Packet ===

impl Packet {
    /// The same packet with an IPv4-mapped remote address replaced by the IPv4 address it stands for.
    pub(crate) fn canonical(self) -> Self {
        Self { remote: self.remote.to_canonical(), ..self }
    }

    /// The protocol in the words of rules; `None` when no rule can name it. The remote address must be canonical:
    /// ICMP inside IPv6 and ICMPv6 inside IPv4 are not ICMP.
    pub(crate) fn proto(&self) -> Option<Proto> {
        match (self.proto, self.remote) {
            (6, _) => Some(Proto::Tcp),
            (17, _) => Some(Proto::Udp),
            (1, IpAddr::V4(_)) | (58, IpAddr::V6(_)) => Some(Proto::Icmp),
            _ => None,
        }
    }
}

// === impl Verdict ===

impl Verdict {
    /// Nothing names the packet.
    pub const DEFAULT: Self = Self { action: Action::Deny, rule: RuleId::NONE, reason: Reason::DefaultDeny };

    /// No rule can name the packet's protocol.
    pub const PROTOCOL: Self = Self { action: Action::Deny, rule: RuleId::NONE, reason: Reason::Protocol };

    /// The verdict of a rule of the policy or a built-in one.
    pub fn of(action: Action, rule: RuleId) -> Self {
        Self { action, rule, reason: builtin::reason(action, rule) }
    }
}

/// Decides about `packet` while no name is pinned. The order of precedence is that of the [crate]'s page.
pub fn evaluate(policy: &Policy, packet: &Packet) -> Verdict {
    let packet = packet.canonical();
    let Some(proto) = packet.proto() else { return Verdict::PROTOCOL };
    let fitting = |action: Action| {
        let rules = policy.rules().iter();
        rules.filter(move |rule| rule.action == action && fits(rule, &packet, proto))
    };

    if let Some(deny) = fitting(Action::Deny).next() {
        return Verdict::of(Action::Deny, deny.id);
    }
    if let Some(guard) = builtin::rules().iter().find(|rule| fits(rule, &packet, proto)) {
        let exact = fitting(Action::Allow).find(|rule| builtin::is_exact(&rule.net));
        return exact
            .map_or(Verdict::of(Action::Deny, guard.id), |allow| Verdict::of(Action::Allow, allow.id));
    }
    fitting(Action::Allow).next().map_or(Verdict::DEFAULT, |allow| Verdict::of(Action::Allow, allow.id))
}

/// Decides about `packet` with the pins that hold now: [`evaluate`], and where nothing fits, they.
pub fn evaluate_pinned(policy: &Policy, packet: &Packet, pins: &[Pin]) -> Verdict {
    match evaluate(policy, packet) {
        Verdict::DEFAULT => pin::lookup(packet, pins),
        verdict => verdict,
    }
}

fn fits(rule: &Rule, packet: &Packet, proto: Proto) -> bool {
    let ports = match (rule.ports.as_slice(), proto, packet.port) {
        ([], _, _) => true,
        (_, Proto::Icmp, _) | (_, _, None) => false,
        (ranges, _, Some(port)) => ranges.iter().any(|range| range.contains(port)),
    };
    ports
        && rule.name.is_none()
        && rule.direction == packet.direction
        && (rule.proto == Proto::Any || rule.proto == proto)
        && rule.net.contains(&packet.remote)
}

#[cfg(test)]
mod tests;
