//! Records: what was decided about a flow, and how it is written down.

mod time;

use std::net::{IpAddr, SocketAddr};

use lattice_policy::{Action, Direction, Reason, RuleId};
use serde::{Deserialize, Serialize};

use crate::{Timestamp, chain::Link};

/// What enforced the verdict, and so how far an agent could have avoided it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// eBPF or nftables, below the sandbox.
    Kernel,
    /// A packet filter in user space that the agent cannot avoid.
    Netns,
    /// A proxy that the agent must choose to use.
    Cooperative,
}

/// A verdict, as an enforcer reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// When it was reached.
    pub timestamp: Timestamp,
    /// Source of the packet; port 0 where there is none. An IPv4-mapped address is recorded as IPv4.
    pub src: SocketAddr,
    /// Destination of the packet; port 0 where there is none.
    pub dst: SocketAddr,
    /// IP protocol number.
    pub proto: u8,
    /// Who opened the flow.
    pub direction: Direction,
    /// What was decided.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// The rule that decided; [`RuleId::NONE`] when none did.
    pub rule: RuleId,
    /// The text of that rule.
    pub rule_text: Option<String>,
    /// Of the policy that decided.
    pub generation: u32,
    /// Length of the packet or packets that the verdict is about.
    pub bytes: u64,
    /// The DNS name that was asked for, when the verdict is about one.
    pub name: Option<String>,
}

/// A verdict, as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowRecord {
    /// When, in UTC with microseconds.
    #[serde(with = "time")]
    pub timestamp: Timestamp,
    /// Source address.
    #[serde(rename = "srcIP")]
    pub src_ip: IpAddr,
    /// Destination address.
    #[serde(rename = "dstIP")]
    pub dst_ip: IpAddr,
    /// `tcp`, `udp`, `icmp` (ICMPv6 on IPv6), or the IP protocol number.
    pub proto: String,
    /// Destination port, or 0.
    pub dst_port: u16,
    /// What was decided.
    pub action: Action,
    /// Source port, or 0.
    pub src_port: u16,
    /// Who opened the flow.
    pub direction: Direction,
    /// Text of the rule that decided.
    pub rule: Option<String>,
    /// Id of that rule, or 0.
    pub rule_id: u32,
    /// Generation of the policy.
    pub generation: u32,
    /// Why.
    pub reason: Reason,
    /// What enforced it.
    pub class: Class,
    /// Name of the sandbox.
    pub agent: String,
    /// Which opening of the file wrote it; grows.
    pub epoch: u64,
    /// Counts the lines of the epoch, from 1.
    pub seq: u64,
    /// Length of the packet or packets.
    pub bytes: u64,
    /// The DNS name that was asked for, when the verdict is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// SHA-256 of the line above, in hex; zeros for the first line of a file.
    pub prev: String,
}

/// Says that records are missing here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GapRecord {
    /// When the gap was written down.
    #[serde(with = "time")]
    pub timestamp: Timestamp,
    /// How many records were lost.
    pub lost: u64,
    /// Why.
    pub why: String,
    /// What should have enforced the verdicts.
    pub class: Class,
    /// Name of the sandbox.
    pub agent: String,
    /// As in [`FlowRecord`].
    pub epoch: u64,
    /// As in [`FlowRecord`].
    pub seq: u64,
    /// As in [`FlowRecord`].
    pub prev: String,
}

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Entry {
    /// It has the field `lost`, which no flow record has.
    Gap(GapRecord),
    /// A verdict.
    Flow(FlowRecord),
}

impl FlowRecord {
    pub(crate) fn new(flow: &Flow, class: Class, agent: &str, link: Link) -> Self {
        let (src_ip, dst_ip) = (flow.src.ip().to_canonical(), flow.dst.ip().to_canonical());
        Self {
            timestamp: flow.timestamp,
            src_ip,
            dst_ip,
            proto: proto_name(flow.proto, dst_ip),
            dst_port: flow.dst.port(),
            action: flow.action,
            src_port: flow.src.port(),
            direction: flow.direction,
            rule: flow.rule_text.clone(),
            rule_id: flow.rule.0,
            generation: flow.generation,
            reason: flow.reason,
            class,
            agent: agent.to_owned(),
            epoch: link.epoch,
            seq: link.seq,
            bytes: flow.bytes,
            name: flow.name.clone(),
            prev: link.prev,
        }
    }
}

impl Entry {
    pub(crate) fn link(&self) -> Link {
        let (epoch, seq, prev) = match self {
            Self::Gap(gap) => (gap.epoch, gap.seq, &gap.prev),
            Self::Flow(flow) => (flow.epoch, flow.seq, &flow.prev),
        };
        Link { epoch, seq, prev: prev.clone() }
    }
}

fn proto_name(proto: u8, address: IpAddr) -> String {
    match (proto, address) {
        (6, _) => "tcp".to_owned(),
        (17, _) => "udp".to_owned(),
        (1, IpAddr::V4(_)) | (58, IpAddr::V6(_)) => "icmp".to_owned(),
        (other, _) => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
