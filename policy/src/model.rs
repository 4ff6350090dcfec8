//! Words of the policy.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::NamePattern;

/// What happens to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It passes.
    Allow,
    /// It is refused.
    Deny,
}

/// Which way a flow was opened, seen from the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The agent opened it: the rule's network is the destination.
    Egress,
    /// Somebody else opened it: the rule's network is the source, its ports are the agent's.
    Ingress,
}

/// Protocols that a rule can name. Everything else is never allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// TCP, UDP and ICMP; with ports, TCP and UDP.
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP for IPv4, ICMPv6 for IPv6; has no ports.
    Icmp,
}

/// An inclusive range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortRange {
    /// First.
    pub lo: u16,
    /// Last; not below `lo`.
    pub hi: u16,
}

impl PortRange {
    /// Whether `port` lies in the range.
    pub fn contains(self, port: u16) -> bool {
        self.lo <= port && port <= self.hi
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lo == self.hi { write!(f, "{}", self.lo) } else { write!(f, "{}-{}", self.lo, self.hi) }
    }
}

/// Names a rule in verdicts, records and counters. 0 is "no rule" (the default decided).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RuleId(pub u32);

impl RuleId {
    /// The default decided.
    pub const NONE: Self = Self(0);
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its id, unique within the policy, from 1.
    pub id: RuleId,
    /// As a person wrote it, for records and `explain`.
    pub text: String,
    /// Which way.
    pub direction: Direction,
    /// What happens.
    pub action: Action,
    /// Which protocol.
    pub proto: Proto,
    /// The other end; of a rule by name, what limits its addresses.
    pub net: IpNet,
    /// Of a rule by name: the names of which the resolver must have learned the address. A deny rule by name is for the
    /// resolver alone and fits no packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<NamePattern>,
    /// Ports; empty means every port.
    pub ports: Vec<PortRange>,
}

/// Why a verdict was reached. The numbers are part of the eBPF ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Reason {
    /// A rule allows it.
    RuleAllow = 1,
    /// A rule denies it.
    RuleDeny = 2,
    /// No rule names it.
    DefaultDeny = 3,
    /// Belongs to a flow that is allowed.
    Established = 4,
    /// Cannot be parsed.
    Malformed = 5,
    /// Not IP, or an IP protocol that no rule can name.
    Protocol = 6,
    /// A fragment that cannot be attributed to a classified datagram.
    Fragment = 7,
    /// Its source is not the sandbox's own address.
    Spoofed = 8,
    /// Multicast or broadcast.
    Multicast = 9,
    /// No policy was live.
    NoPolicy = 10,
    /// ARP or neighbour discovery on an Ethernet link.
    LinkControl = 11,
    /// The resolver was asked for a name that no rule permits.
    Name = 12,
    /// A permitted name was answered with an address that a name may not open (private, loopback, metadata, a peer's).
    Answer = 13,
    /// The way out of the overlay leads there for nobody: an address of this host, or another agent's. To enforcers it is a rule
    /// that denies; [`Policy::reason`](crate::Policy::reason) knows better.
    Uplink = 14,
}
