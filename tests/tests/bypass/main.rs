//! Attempts to get past the policy, each with its native twin: the same program, run beside the sandbox, gets through. A
//! canary on the other side says what arrived. Every enforcer is held to the same attempts.

mod world;

use std::net::IpAddr;

use lattice_policy::{Action, Reason};
use lattice_tests::Packet;
use world::{Result, World};

/// What enforces the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Enforcer {
    Ebpf,
    Nftables,
    Userspace,
}

impl Enforcer {
    const ALL: [Self; 3] = [Self::Ebpf, Self::Nftables, Self::Userspace];

    fn flag(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Nftables => "nftables",
            Self::Userspace => "userspace",
        }
    }

    /// `rules`, where there is a way out of the overlay. The user-space filter has none, and refuses rules that take one.
    fn rules<'a>(self, rules: &'a [&'a str]) -> &'a [&'a str] {
        if self == Self::Userspace { &["10.42.0.0/16"] } else { rules }
    }
}

/// An attempt that sends packets: how the canary knows them.
struct Case {
    name: &'static str,
    to: &'static str,
    proto: u8,
    /// Why our record says that it did not get through, or none when it never became a packet of ours.
    reason: Option<Reason>,
}

impl Case {
    fn to(&self) -> IpAddr {
        self.to.parse().expect("an address")
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;

const fn case(name: &'static str, to: &'static str, proto: u8, reason: Reason) -> Case {
    Case { name, to, proto, reason: Some(reason) }
}

/// gVisor refuses it before there is a packet.
const fn refused(name: &'static str, to: &'static str, proto: u8) -> Case {
    Case { name, to, proto, reason: None }
}

/// Denied by the lack of a rule.
const UNNAMED: [Case; 25] = [
    case("tcp", "203.0.113.1", TCP, Reason::DefaultDeny),
    case("udp", "203.0.113.2", UDP, Reason::DefaultDeny),
    refused("ping", "203.0.113.3", 1),
    case("private", "10.99.0.1", TCP, Reason::DefaultDeny),
    case("bound", "203.0.113.4", TCP, Reason::DefaultDeny),
    refused("to-device", "203.0.113.5", TCP),
    refused("marked", "203.0.113.6", TCP),
    refused("source-routed", "203.0.113.8", TCP),
    case("fast-open", "203.0.113.9", TCP, Reason::DefaultDeny),
    case("quic", "203.0.113.7", UDP, Reason::DefaultDeny),
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
const GUARDED: [Case; 9] = [
    case("metadata", "169.254.169.254", TCP, Reason::RuleDeny),
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
const RAW: [Case; 17] = [
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
    refused("new-netns", "203.0.113.99", 0),
];

/// Not packets: the policy, the routes, the way around them.
const SURFACE: [&str; 8] =
    ["delete-route", "add-route", "link-down", "add-link", "forwarding", "ping-range", "bpf", "tun"];

fn arrived(case: &Case, seen: &[Packet]) -> bool {
    let to = case.to();
    seen.iter().any(|packet| packet.dst == to && packet.proto == case.proto)
}

fn names(cases: &[Case]) -> Vec<&'static str> {
    cases.iter().map(|case| case.name).collect()
}

/// In the sandbox nothing arrived, nothing succeeded, nothing hung, and the record says why.
fn assert_blocked(world: &World, enforcer: Enforcer, cases: &[Case], egress: &[&str]) {
    let (results, seen) = world.in_sandbox(enforcer, &names(cases), egress);
    let records = world.records();
    let mut wrong = Vec::new();
    for case in cases {
        let Some(Result { result, .. }) = results.iter().find(|result| result.name == case.name) else {
            wrong.push(format!("{}: no result", case.name));
            continue;
        };
        if arrived(case, &seen) {
            wrong.push(format!("{}: ARRIVED ({result})", case.name));
        }
        // By packets alone, whoever sends to a group is told nothing, as on any network.
        let told = case.reason != Some(Reason::Multicast);
        if told && ["ok", "silence"].contains(&result.as_str()) {
            wrong.push(format!("{}: was not told that it is refused ({result})", case.name));
        }
        let to = case.to();
        let recorded = records.iter().any(|record| {
            record.dst_ip == to && record.action == Action::Deny && Some(record.reason) == case.reason
        });
        if case.reason.is_some() && !recorded {
            let of_it: Vec<_> = records.iter().filter(|record| record.dst_ip == to).collect();
            wrong.push(format!("{}: not on record as {:?}: {of_it:?} ({result})", case.name, case.reason));
        }
    }
    assert!(wrong.is_empty(), "{enforcer:?}: {wrong:#?}");
}

/// Beside the sandbox it arrives, which proves the attempt.
fn assert_works_natively(world: &World, cases: &[Case]) {
    let (results, seen) = world.natively(&names(cases));
    let result = |case: &Case| results.iter().find(|result| result.name == case.name);
    // Not every kernel has SCTP, UDP-Lite and multipath TCP.
    let unknown = |case: &Case| {
        result(case).is_some_and(|r| ["EPROTONOSUPPORT", "ESOCKTNOSUPPORT"].contains(&r.result.as_str()))
    };
    let missing = cases.iter().filter(|case| case.proto != 0 && !arrived(case, &seen) && !unknown(case));
    let missing: Vec<_> = missing.map(|case| format!("{}: {:?}", case.name, result(case))).collect();
    assert!(missing.is_empty(), "the twin did not get through either: {missing:#?}");
}

#[test]
fn what_no_rule_names_is_out_of_reach() {
    let world = World::new();
    assert_works_natively(&world, &UNNAMED);
    for enforcer in Enforcer::ALL {
        assert_blocked(&world, enforcer, &UNNAMED, enforcer.rules(&["tcp:203.0.113.7/32:443"]));
    }
}

#[test]
fn what_is_guarded_is_out_of_reach_of_a_rule_for_everything() {
    let world = World::new();
    assert_works_natively(&world, &GUARDED);
    for enforcer in Enforcer::ALL {
        assert_blocked(&world, enforcer, &GUARDED, enforcer.rules(&["0.0.0.0/0", "::/0"]));
    }
}

#[test]
fn no_socket_of_the_sandbox_says_what_the_policy_does_not_know() {
    let world = World::new();
    assert_works_natively(&world, &RAW);
    for enforcer in Enforcer::ALL {
        assert_blocked(&world, enforcer, &RAW, enforcer.rules(&["0.0.0.0/0", "::/0"]));
    }
}

#[test]
fn the_policy_cannot_be_taken_away_from_inside() {
    let world = World::new();
    let (native, _) = world.natively(&SURFACE);
    let failed: Vec<_> = native.iter().filter(|result| result.result != "ok").collect();
    assert!(failed.is_empty(), "the twin could not either: {failed:?}");
    let mut all = SURFACE.to_vec();
    all.extend(names(&UNNAMED));
    for enforcer in Enforcer::ALL {
        let (results, seen) = world.in_sandbox(enforcer, &all, enforcer.rules(&["tcp:203.0.113.7/32:443"]));
        let surface = results.iter().filter(|result| SURFACE.contains(&result.name.as_str()));
        let done: Vec<_> = surface.filter(|result| result.result == "ok").collect();
        assert!(done.is_empty(), "{enforcer:?}: {done:?}");
        let leaked: Vec<_> =
            UNNAMED.iter().filter(|case| arrived(case, &seen)).map(|case| case.name).collect();
        assert!(leaked.is_empty(), "{enforcer:?}, after trying: {leaked:?} of {}", world.internet());
    }
}
