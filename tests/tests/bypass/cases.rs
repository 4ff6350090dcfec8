//! The attempts that send packets: where to, and why our record says that they did not get through.

use std::net::IpAddr;

use lattice_policy::Reason;
use lattice_tests::Packet;

/// An attempt that sends packets: how the canary knows them.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) to: &'static str,
    pub(crate) proto: u8,
    /// Why our record says that it did not get through, or none when it never became a packet of ours.
    pub(crate) reason: Option<Reason>,
}

impl Case {
    pub(crate) fn to(&self) -> IpAddr {
        self.to.parse().expect("an address")
    }
}

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

const fn case(name: &'static str, to: &'static str, proto: u8, reason: Reason) -> Case {
    Case { name, to, proto, reason: Some(reason) }
}

/// gVisor refuses it before there is a packet.
const fn refused(name: &'static str, to: &'static str, proto: u8) -> Case {
    Case { name, to, proto, reason: None }
}

/// Denied by the lack of a rule.
pub(crate) const UNNAMED: [Case; 27] = [
    case("tcp", "203.0.113.1", TCP, Reason::DefaultDeny),
    case("static", "203.0.113.12", TCP, Reason::DefaultDeny),
    case("udp", "203.0.113.2", UDP, Reason::DefaultDeny),
    refused("ping", "203.0.113.3", 1),
    case("private", "10.99.0.1", TCP, Reason::DefaultDeny),
    case("bound", "203.0.113.4", TCP, Reason::DefaultDeny),
    refused("to-device", "203.0.113.5", TCP),
    refused("marked", "203.0.113.6", TCP),
    refused("source-routed", "203.0.113.8", TCP),
    case("fast-open", "203.0.113.9", TCP, Reason::DefaultDeny),
    case("quic", "203.0.113.7", UDP, Reason::DefaultDeny),
    case("next-port", "203.0.113.7", TCP, Reason::DefaultDeny),
    case("big", "203.0.113.10", UDP, Reason::DefaultDeny),
    case("v6-global", "2001:db8::1", TCP, Reason::DefaultDeny),
    case("v6-local", "fd99::1", TCP, Reason::DefaultDeny),
    case("v6-nat64", "64:ff9b::cb00:7101", TCP, Reason::DefaultDeny),
    case("v6-6to4", "2002:cb00:7101::1", TCP, Reason::DefaultDeny),
    case("v6-teredo", "2001:0:cb00:7101::1", TCP, Reason::DefaultDeny),
    case("v6-mapped", "203.0.113.11", TCP, Reason::DefaultDeny),
    case("v6-udp", "2001:db8::2", UDP, Reason::DefaultDeny),
    case("dns-udp", "198.51.100.53", UDP, Reason::DefaultDeny),
    case("dns-tcp", "198.51.100.54", TCP, Reason::DefaultDeny),
    case("dot", "198.51.100.55", TCP, Reason::DefaultDeny),
    case("doq", "198.51.100.56", UDP, Reason::DefaultDeny),
    case("odd-port", "198.51.100.57", UDP, Reason::DefaultDeny),
    refused("spoofed", "203.0.113.32", UDP),
    refused("mptcp", "203.0.113.37", TCP),
];

/// Denied although a rule names everything.
pub(crate) const GUARDED: [Case; 10] = [
    case("metadata", "169.254.169.254", TCP, Reason::RuleDeny),
    case("metadata-number", "169.254.169.254", TCP, Reason::RuleDeny),
    case("metadata-v6", "fd00:ec2::254", TCP, Reason::RuleDeny),
    case("metadata-mapped", "169.254.169.254", TCP, Reason::RuleDeny),
    case("metadata-alibaba", "100.100.100.200", TCP, Reason::RuleDeny),
    case("mdns", "224.0.0.251", UDP, Reason::Multicast),
    case("llmnr", "224.0.0.252", UDP, Reason::Multicast),
    case("ssdp", "239.255.255.250", UDP, Reason::Multicast),
    case("mdns-v6", "ff02::fb", UDP, Reason::Multicast),
    case("broadcast", "255.255.255.255", UDP, Reason::Multicast),
];

/// What sockets of the sandbox cannot even say.
pub(crate) const RAW: [Case; 19] = [
    refused("raw-udp", "203.0.113.20", UDP),
    refused("raw-sctp", "203.0.113.21", 132),
    refused("raw-gre", "203.0.113.22", 47),
    refused("raw-ipip", "203.0.113.23", 4),
    refused("raw-igmp", "203.0.113.24", 2),
    refused("raw-lite", "203.0.113.25", 136),
    refused("raw-dccp", "203.0.113.26", 33),
    refused("raw-esp", "203.0.113.27", 50),
    refused("raw-first", "203.0.113.28", UDP),
    refused("raw-later", "203.0.113.29", UDP),
    refused("raw-options", "203.0.113.30", UDP),
    refused("raw-v6-chain", "2001:db8::30", 60),
    refused("raw-spoofed", "203.0.113.31", UDP),
    refused("frame", "203.0.113.34", UDP),
    refused("sctp", "203.0.113.35", 132),
    refused("udp-lite", "203.0.113.36", 136),
    refused("joined", "224.0.0.22", 2),
    refused("inherited", "203.0.113.38", UDP),
    refused("new-netns", "203.0.113.99", 0),
];

pub(crate) fn arrived(case: &Case, seen: &[Packet]) -> bool {
    let to = case.to();
    seen.iter().any(|packet| packet.dst == to && packet.proto == case.proto)
}

pub(crate) fn names(cases: &[Case]) -> Vec<&'static str> {
    cases.iter().map(|case| case.name).collect()
}
