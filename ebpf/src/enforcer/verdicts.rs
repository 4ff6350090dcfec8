//! Verdicts of the programs on single frames, by `BPF_PROG_TEST_RUN`, without any network.

use aya::maps::{HashMap, Map, MapData};
use lattice_policy::{Action, Direction, Proto, Reason, Table};

use self::fixture::{Fixture, entry, line};
use self::packet::*;
use crate::{EbpfError, Enforcer, Options, harness::Outcome};

mod counters;
mod fixture;
mod full;
mod model;
mod own;
mod packet;
mod pins;
mod refusal;

const TOOL: [u8; 4] = [192, 0, 2, 1];

/// The tool on TCP 8080, UDP 53 and ping, except one address; many ports of another; a peer that may call port 9000.
fn table() -> Table {
    let open = [
        line(Proto::Tcp, Some((8080, 8080)), Action::Allow, 1),
        line(Proto::Udp, Some((53, 53)), Action::Allow, 2),
        line(Proto::Icmp, None, Action::Allow, 3),
    ];
    let many: Vec<_> =
        (0..10).map(|n| line(Proto::Tcp, Some((n * 1000, n * 1000 + 9)), Action::Allow, 20)).collect();
    Table {
        egress: vec![
            entry("192.0.2.0/24", &open),
            entry("192.0.2.66/32", &[line(Proto::Any, None, Action::Deny, 4)]),
            entry("203.0.113.0/24", &many),
            entry("2001:db8::/32", &open),
            entry("::/0", &[line(Proto::Tcp, Some((443, 443)), Action::Allow, 5)]),
        ],
        ingress: vec![entry("192.0.2.7/32", &[line(Proto::Tcp, Some((9000, 9000)), Action::Allow, 9)])],
    }
}

fn syn4(dst: [u8; 4], port: u16) -> Vec<u8> {
    ip4(6, OWN4, dst, &tcp(1111, port, SYN, b""))
}

#[test]
fn nothing_passes_before_a_policy() {
    let mut fixture = Fixture::new();
    let arp = frame(
        0x0806,
        &[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 42, 0, 2, 0, 0, 0, 0, 0, 0, 10, 42, 0, 1],
    );
    assert_eq!(fixture.egress(&arp), Reason::NoPolicy);
    assert_eq!(fixture.egress(&syn4(TOOL, 8080)), Reason::NoPolicy);
    assert_eq!(fixture.ingress(&ip4(17, TOOL, OWN4, &udp(53, 1111))), Reason::NoPolicy);
    fixture.apply(&Table::default(), 1);
    assert_eq!(fixture.egress(&syn4(TOOL, 8080)), Reason::DefaultDeny);
    assert_eq!(fixture.egress(&arp), Reason::LinkControl);
}

#[test]
fn rules_decide_by_prefix_protocol_and_port() {
    let mut fixture = Fixture::with(&table());
    for (frame, reason) in [
        (syn4(TOOL, 8080), Reason::RuleAllow),
        (syn4(TOOL, 8081), Reason::DefaultDeny),
        (syn4([192, 0, 2, 66], 8080), Reason::RuleDeny),
        (syn4([192, 0, 3, 1], 8080), Reason::DefaultDeny),
        (syn4([203, 0, 113, 5], 5009), Reason::RuleAllow),
        (syn4([203, 0, 113, 5], 5010), Reason::DefaultDeny),
        (ip4(17, OWN4, TOOL, &udp(1111, 53)), Reason::RuleAllow),
        (ip4(17, OWN4, TOOL, &udp(1111, 8080)), Reason::DefaultDeny),
        (ip4(1, OWN4, TOOL, &icmp(8, 0, 1, b"")), Reason::RuleAllow),
        (ip4(1, OWN4, [203, 0, 113, 5], &icmp(8, 0, 1, b"")), Reason::DefaultDeny),
        (ip6(6, v6(OWN6), v6("2001:db8::1"), &tcp(1111, 8080, SYN, b"")), Reason::RuleAllow),
        (ip6(6, v6(OWN6), v6("2001:db8::1"), &tcp(1111, 443, SYN, b"")), Reason::DefaultDeny),
        (ip6(6, v6(OWN6), v6("2001:db9::1"), &tcp(1111, 443, SYN, b"")), Reason::RuleAllow),
        (ip6(58, v6(OWN6), v6("2001:db8::1"), &icmp(128, 0, 1, b"")), Reason::RuleAllow),
        (syn4([198, 51, 100, 1], 443), Reason::DefaultDeny), // ::/0 is not for IPv4
    ] {
        assert_eq!(fixture.egress(&frame), reason, "{frame:x?}");
    }
}

#[test]
fn only_known_protocols_and_own_addresses() {
    let mut fixture = Fixture::with(&Table {
        egress: vec![
            entry("0.0.0.0/0", &[line(Proto::Any, None, Action::Allow, 1)]),
            entry("::/0", &[line(Proto::Any, None, Action::Allow, 1)]),
        ],
        ingress: vec![entry("0.0.0.0/0", &[line(Proto::Any, None, Action::Allow, 1)])],
    });
    for proto in [0, 2, 4, 41, 47, 50, 51, 58, 132, 136, 255] {
        assert_eq!(fixture.egress(&ip4(proto, OWN4, TOOL, &[0; 40])), Reason::Protocol, "{proto}");
    }
    assert_eq!(fixture.egress(&ip6(1, v6(OWN6), v6("2001:db8::1"), &[0; 40])), Reason::Protocol);
    for ether_type in [0x8100, 0x88a8, 0x8847, 0x8863, 0x0842] {
        assert_eq!(fixture.egress(&frame(ether_type, &[0x45; 60])), Reason::Protocol, "{ether_type:x}");
    }
    assert_eq!(fixture.egress(&ip4(17, [10, 42, 0, 3], TOOL, &udp(1, 53))), Reason::Spoofed);
    assert_eq!(fixture.egress(&ip6(17, v6("fd00::3"), v6("2001:db8::1"), &udp(1, 53))), Reason::Spoofed);
    for dst in [[224, 0, 0, 251], [255, 255, 255, 255], [240, 0, 0, 1]] {
        assert_eq!(fixture.egress(&ip4(17, OWN4, dst, &udp(1, 5353))), Reason::Multicast);
    }
    assert_eq!(fixture.egress(&ip6(17, v6(OWN6), v6("ff02::fb"), &udp(1, 5353))), Reason::Multicast);
    let mut broadcast = ip4(17, OWN4, [10, 42, 255, 255], &udp(1, 53));
    broadcast[..6].fill(0xff);
    assert_eq!(fixture.egress(&broadcast), Reason::Multicast);
    assert_eq!(fixture.ingress(&ip4(17, TOOL, [10, 42, 0, 3], &udp(1, 53))), Reason::DefaultDeny);
    assert_eq!(fixture.ingress(&ip4(17, OWN4, OWN4, &udp(1, 53))), Reason::Spoofed);
}

#[test]
fn malformed_packets_are_denied() {
    let mut fixture = Fixture::with(&table());
    let good = syn4(TOOL, 8080);
    let altered = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[ETHERNET + at] = value;
        frame
    };
    for (frame, why) in [
        (altered(0, 0x55), "version 5 in an IPv4 frame"),
        (altered(0, 0x44), "header shorter than a header"),
        (altered(3, 19), "total shorter than the header"),
        (altered(3, 20 + 19), "transport header cut by the total length"),
        (altered(2, 1), "total longer than the frame"),
        (ip4(17, OWN4, TOOL, &udp(1, 53)[..7]), "short UDP"),
        (ip4(1, OWN4, TOOL, &[8, 0, 0, 0]), "short ICMP"),
        (ip6(6, v6(OWN6), v6("2001:db8::1"), &tcp(1, 8080, SYN, b"")[..19]), "short TCP"),
        (ip6(6, v6(OWN6), v6("::ffff:192.0.2.1"), &tcp(1, 8080, SYN, b"")), "IPv4-mapped destination"),
        (ip6(60, v6(OWN6), v6("2001:db8::1"), &[6, 200, 0, 0, 0, 0, 0, 0]), "extension beyond the end"),
        (ip6(60, v6(OWN6), v6("2001:db8::1"), &[60, 0, 0, 0, 0, 0, 0, 0].repeat(20)), "endless extensions"),
    ] {
        assert_eq!(fixture.egress(&frame), Reason::Malformed, "{why}");
    }
    assert_eq!(fixture.egress(&altered(0, 0x46)), Reason::Protocol, "options");
    let mut long6 = ip6(17, v6(OWN6), v6("2001:db8::1"), &udp(1, 53));
    long6[ETHERNET + 5] += 1;
    assert_eq!(fixture.egress(&long6), Reason::Malformed, "payload longer than the frame");
}

#[test]
fn extension_headers_are_walked_but_never_rerouted() {
    let mut fixture = Fixture::with(&table());
    let peer = v6("2001:db8::1");
    let behind = |next: u8, headers: &[u8], port| {
        ip6(next, v6(OWN6), peer, &[headers, &tcp(9, port, SYN, b"")].concat())
    };
    let hop_and_destination = [60, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0];
    assert_eq!(fixture.egress(&behind(0, &hop_and_destination, 8080)), Reason::RuleAllow);
    assert_eq!(fixture.egress(&behind(0, &hop_and_destination, 8081)), Reason::DefaultDeny);
    let routing = |left| [6, 0, 4, left, 0, 0, 0, 0];
    assert_eq!(fixture.egress(&behind(43, &routing(0), 8080)), Reason::Established);
    assert_eq!(fixture.egress(&behind(43, &routing(1), 8080)), Reason::Protocol);
    let late_hop = [0, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0];
    assert_eq!(fixture.egress(&behind(60, &late_hop, 8080)), Reason::Malformed);
}

#[test]
fn later_fragments_follow_their_first() {
    let mut fixture = Fixture::with(&table());
    let later4 = fragment4(ip4(17, OWN4, TOOL, &[0; 64]), false, 100);
    assert_eq!(fixture.egress(&later4), Reason::Fragment, "its first was not seen");
    assert_eq!(fixture.egress(&fragment4(ip4(17, OWN4, TOOL, &udp(1, 54)), true, 0)), Reason::DefaultDeny);
    assert_eq!(fixture.egress(&later4), Reason::Fragment, "its first was denied");
    assert_eq!(fixture.egress(&fragment4(ip4(17, OWN4, TOOL, &udp(1, 53)), true, 0)), Reason::RuleAllow);
    assert_eq!(fixture.egress(&later4), Reason::Established);
    assert_eq!(
        fixture.egress(&fragment4(ip4(6, OWN4, TOOL, &[0; 64]), false, 100)),
        Reason::Fragment,
        "other protocol"
    );
    assert_eq!(fixture.ingress(&fragment4(ip4(17, TOOL, OWN4, &[0; 64]), false, 100)), Reason::Fragment);

    let peer = v6("2001:db8::1");
    let fragment =
        |next, more, offset, payload: &[u8]| ip6(44, v6(OWN6), peer, &fragment6(next, more, offset, payload));
    assert_eq!(fixture.egress(&fragment(17, false, 100, &[0; 64])), Reason::Fragment);
    // Ports behind the end that the header claims: a receiver would take them from a later fragment.
    let options = [17, 0, 1, 4, 0, 0, 0, 0];
    let mut padded = fragment(60, true, 0, &options);
    padded.extend(udp(1, 53));
    assert_eq!(fixture.egress(&padded), Reason::Malformed);
    assert_eq!(fixture.egress(&fragment(17, false, 100, &[0; 64])), Reason::Fragment);
    assert_eq!(fixture.egress(&fragment(17, true, 0, &udp(1, 53))), Reason::RuleAllow);
    assert_eq!(fixture.egress(&fragment(17, false, 100, &[0; 64])), Reason::Established);

    fixture.apply(&Table::default(), 2);
    assert_eq!(fixture.egress(&later4), Reason::Fragment, "allowed by an older policy");
}

#[test]
fn replies_pass_and_openers_are_judged() {
    let mut fixture = Fixture::with(&table());
    let reply = ip4(6, TOOL, OWN4, &tcp(8080, 1111, SYN | ACK, b""));
    assert_eq!(fixture.ingress(&reply), Reason::DefaultDeny);
    assert_eq!(fixture.egress(&syn4(TOOL, 8080)), Reason::RuleAllow);
    assert_eq!(fixture.ingress(&reply), Reason::Established);
    assert_eq!(
        fixture.ingress(&ip4(6, TOOL, OWN4, &tcp(8080, 1111, SYN, b""))),
        Reason::DefaultDeny,
        "not a reply"
    );
    assert_eq!(
        fixture.ingress(&ip4(6, TOOL, OWN4, &tcp(8080, 1112, ACK, b""))),
        Reason::DefaultDeny,
        "other port"
    );

    let peer = [192, 0, 2, 7];
    let answer = ip4(6, OWN4, peer, &tcp(9000, 4000, SYN | ACK, b""));
    assert_eq!(fixture.egress(&answer), Reason::DefaultDeny);
    assert_eq!(fixture.ingress(&ip4(6, peer, OWN4, &tcp(4000, 9000, SYN, b""))), Reason::RuleAllow);
    assert_eq!(fixture.egress(&answer), Reason::Established);
    assert_eq!(
        fixture.egress(&ip4(6, OWN4, peer, &tcp(9000, 4000, SYN, b""))),
        Reason::DefaultDeny,
        "not a reply"
    );

    assert_eq!(fixture.egress(&ip4(1, OWN4, TOOL, &icmp(8, 0, 77, b""))), Reason::RuleAllow);
    assert_eq!(fixture.ingress(&ip4(1, TOOL, OWN4, &icmp(0, 0, 77, b""))), Reason::Established);
    assert_eq!(fixture.ingress(&ip4(1, TOOL, OWN4, &icmp(8, 0, 77, b""))), Reason::DefaultDeny);
    assert_eq!(fixture.ingress(&ip4(1, TOOL, OWN4, &icmp(0, 0, 78, b""))), Reason::DefaultDeny);
}

#[test]
fn icmp_errors_pass_only_about_allowed_flows() {
    let mut fixture = Fixture::with(&table());
    let router = [198, 51, 100, 9];
    let sent = syn4(TOOL, 8080);
    let error = ip4(1, router, OWN4, &icmp(3, 4, 0, &sent[ETHERNET..ETHERNET + 28]));
    assert_eq!(fixture.ingress(&error), Reason::DefaultDeny);
    assert_eq!(fixture.egress(&sent), Reason::RuleAllow);
    assert_eq!(fixture.ingress(&error), Reason::Established);

    // The agent's own error about what it got: to its sender, and to nobody else.
    let got = ip4(6, TOOL, OWN4, &tcp(8080, 1111, ACK, b""));
    let quote = icmp(3, 3, 0, &got[ETHERNET..ETHERNET + 28]);
    assert_eq!(fixture.egress(&ip4(1, OWN4, TOOL, &quote)), Reason::Established);
    assert_eq!(fixture.egress(&ip4(1, OWN4, router, &quote)), Reason::DefaultDeny);

    let sent = ip6(17, v6(OWN6), v6("2001:db8::1"), &udp(5, 53));
    let error = ip6(58, v6("2001:db8:9::1"), v6(OWN6), &icmp(2, 0, 0, &sent[ETHERNET..ETHERNET + 48]));
    assert_eq!(fixture.ingress(&error), Reason::DefaultDeny);
    assert_eq!(fixture.egress(&sent), Reason::RuleAllow);
    assert_eq!(fixture.ingress(&error), Reason::Established);
}

#[test]
fn link_control_is_only_what_a_link_needs() {
    let mut fixture = Fixture::with(&Table::default());
    let arp = |sender: [u8; 4]| {
        let mac = AGENT_MAC;
        frame(0x0806, &[&[0, 1, 8, 0, 6, 4, 0, 1], &mac[..], &sender, &[0; 6], &[10, 42, 0, 1]].concat())
    };
    assert_eq!(fixture.egress(&arp(OWN4)), Reason::LinkControl);
    assert_eq!(fixture.egress(&arp([0; 4])), Reason::LinkControl);
    assert_eq!(fixture.egress(&arp([10, 42, 0, 1])), Reason::Spoofed);
    assert_eq!(fixture.egress(&frame(0x0806, &[0; 28])), Reason::Malformed);

    let nd = |kind, src: &str| ip6(58, v6(src), v6("ff02::1"), &icmp(kind, 0, 0, &[0; 16]));
    for kind in [133, 135, 136] {
        assert_eq!(fixture.egress(&nd(kind, "fe80::1")), Reason::LinkControl, "{kind}");
    }
    assert_eq!(fixture.egress(&nd(134, "fe80::1")), Reason::Protocol, "the agent is no router");
    assert_eq!(fixture.ingress(&nd(134, "fe80::2")), Reason::LinkControl);
    assert_eq!(fixture.egress(&nd(135, "fd00::3")), Reason::Spoofed);
    let mut routed = nd(135, OWN6);
    routed[ETHERNET + 7] = 254;
    assert_eq!(fixture.egress(&routed), Reason::Multicast, "not with a hop limit that routers have lowered");
}

#[test]
fn a_new_policy_is_in_force_at_the_next_packet() {
    let mut fixture = Fixture::with(&table());
    assert_eq!(fixture.egress(&syn4(TOOL, 8080)), Reason::RuleAllow);
    let reply = ip4(6, TOOL, OWN4, &tcp(8080, 1111, ACK, b""));
    // The same generation again, and more policies than slots.
    for generation in [1, 1, 9, 5, 3, u32::MAX] {
        fixture.apply(&table(), generation);
        assert_eq!(fixture.ingress(&reply), Reason::Established, "allowed by the new one as well");
    }
    fixture.apply(&Table::default(), 2);
    assert_eq!(fixture.ingress(&reply), Reason::DefaultDeny);
    assert_eq!(fixture.egress(&ip4(6, OWN4, TOOL, &tcp(1111, 8080, ACK, b"data"))), Reason::DefaultDeny);
    fixture.apply(&table(), 3);
    assert_eq!(fixture.ingress(&reply), Reason::DefaultDeny, "a flow that was cut stays cut");
}

#[test]
fn a_flow_that_another_cpu_saw_later_is_alive() {
    let mut fixture = Fixture::with(&table());
    assert_eq!(fixture.egress(&syn4(TOOL, 8080)), Reason::RuleAllow);
    let pin = fixture.harness.pins().dir.join(format!("abi{}/FLOWS", crate::abi::VERSION));
    let map = Map::LruHashMap(MapData::from_pin(pin).unwrap());
    let mut flows: HashMap<_, [u8; 40], [u8; 24]> = HashMap::try_from(map).unwrap();
    let (key, mut flow) = flows.iter().next().unwrap().unwrap();
    let seen_ns = u64::from_ne_bytes(flow[..8].try_into().unwrap());
    flow[..8].copy_from_slice(&(seen_ns + 3_600_000_000_000).to_ne_bytes());
    flows.insert(key, flow, 0).unwrap();
    assert_eq!(fixture.ingress(&ip4(6, TOOL, OWN4, &tcp(8080, 1111, ACK, b""))), Reason::Established);
}

#[test]
fn each_new_flow_is_told_and_a_denied_one_once_a_second() {
    let mut fixture = Fixture::with(&table());
    for _ in 0..3 {
        fixture.run(Direction::Egress, &syn4(TOOL, 8080), 0);
        fixture.run(Direction::Egress, &syn4(TOOL, 22), 0);
    }
    fixture.run(Direction::Ingress, &ip4(17, TOOL, OWN4, &udp(53, 4444)), 0);
    let told = fixture.told();
    let said: Vec<_> =
        told.iter().map(|f| (f.direction, f.action, f.reason, f.rule.0, f.src, f.dst)).collect();
    let own = |port| (OWN4, port).into();
    let tool = |port| (TOOL, port).into();
    assert_eq!(
        said,
        [
            (Direction::Egress, Action::Allow, Reason::RuleAllow, 1, own(1111), tool(8080)),
            (Direction::Egress, Action::Deny, Reason::DefaultDeny, 0, own(1111), tool(22)),
            (Direction::Ingress, Action::Deny, Reason::DefaultDeny, 0, tool(53), own(4444)),
        ]
    );
    assert!(told.iter().all(|f| f.generation == 1 && f.at_ns > 0 && f.link == 1));
    assert_eq!((told[0].proto, told[0].bytes), (6, 40));
}

#[test]
fn a_second_loader_is_refused_and_a_later_one_takes_over() {
    let mut fixture = Fixture::with(&table());
    let pin_dir = fixture.harness.pins().dir.clone();
    let own = vec![[10, 42, 0, 9].into()];
    let options = Options { pin_dir: pin_dir.clone(), own: own.clone(), attach: crate::AttachMode::Auto };
    assert!(matches!(Enforcer::load(&options), Err(EbpfError::InUse(dir)) if dir == pin_dir));
    assert!(matches!(fixture.harness.enforcer.events(), Err(EbpfError::EventsTaken)));
    let Fixture { harness, events } = fixture;
    drop(events);
    let mut fixture = Fixture::of(harness.reload(&own).unwrap());
    assert_eq!(fixture.egress(&syn4(TOOL, 8080)), Reason::Spoofed, "the addresses are the new ones");
    let frame = ip4(6, [10, 42, 0, 9], TOOL, &tcp(1111, 8080, SYN, b""));
    assert_eq!(fixture.egress(&frame), Reason::RuleAllow, "the policy is the pinned one");
}

#[test]
fn a_directory_elsewhere_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { pin_dir: dir.path().into(), own: Vec::new(), attach: crate::AttachMode::Auto };
    assert!(matches!(Enforcer::load(&options), Err(EbpfError::PinDir { .. })));
}

#[test]
fn maps_of_another_layout_are_not_taken_over() {
    let mut fixture = Fixture::with(&table());
    assert_eq!(fixture.egress(&syn4(TOOL, 8080)), Reason::RuleAllow);
    let dir = fixture.harness.pins().dir.clone();
    let Fixture { harness, events } = fixture;
    drop(events);
    std::fs::rename(dir.join(format!("abi{}", crate::abi::VERSION)), dir.join("abi1")).unwrap();
    let mut fixture = Fixture::of(harness.reload(&[OWN4.into()]).unwrap());
    assert_eq!(fixture.egress(&syn4(TOOL, 8080)), Reason::NoPolicy, "neither its policy nor its flows");
}
