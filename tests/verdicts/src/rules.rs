//! What a packet says, and what the rules say of it.

use lattice_policy::{Action, Proto, Reason, Table};

use crate::{Judge, packet::*, table::*};

pub fn rules_decide_by_prefix_protocol_and_port<J: Judge>() {
    let mut judge = J::with(&table());
    for (packet, reason, rule) in [
        (syn4(TOOL, 8080), Reason::RuleAllow, 1),
        (syn4(TOOL, 8081), Reason::DefaultDeny, 0),
        (syn4([192, 0, 2, 66], 8080), Reason::RuleDeny, 4),
        (syn4([192, 0, 3, 1], 8080), Reason::DefaultDeny, 0),
        (syn4([203, 0, 113, 5], 5009), Reason::RuleAllow, 20),
        (syn4([203, 0, 113, 5], 5010), Reason::DefaultDeny, 0),
        (ip4(17, OWN4, TOOL, &udp(1111, 53)), Reason::RuleAllow, 2),
        (ip4(17, OWN4, TOOL, &udp(1111, 8080)), Reason::DefaultDeny, 0),
        (ip4(1, OWN4, TOOL, &icmp(8, 0, 1, b"")), Reason::RuleAllow, 3),
        (ip4(1, OWN4, [203, 0, 113, 5], &icmp(8, 0, 1, b"")), Reason::DefaultDeny, 0),
        (ip6(6, OWN6, TOOL6, &tcp(1111, 8080, SYN, b"")), Reason::RuleAllow, 1),
        (ip6(6, OWN6, TOOL6, &tcp(1111, 443, SYN, b"")), Reason::DefaultDeny, 0),
        (ip6(6, OWN6, v6("2001:db9::1"), &tcp(1111, 443, SYN, b"")), Reason::RuleAllow, 5),
        (ip6(58, OWN6, TOOL6, &icmp(128, 0, 1, b"")), Reason::RuleAllow, 3),
        (syn4([198, 51, 100, 1], 443), Reason::DefaultDeny, 0), // ::/0 is not for IPv4
    ] {
        assert_eq!(judge.egress(&packet), reason, "{packet:x?}");
        let told: Vec<_> = judge.told().iter().map(|flow| (flow.reason, flow.rule.0)).collect();
        assert_eq!(told, [(reason, rule)], "{packet:x?}");
    }
}

pub fn a_range_without_ports_fits_nothing<J: Judge>() {
    let entry =
        |count| entry("192.0.2.0/24", &vec![line(Proto::Tcp, Some((90, 80)), Action::Allow, 1); count]);
    // Few lines and many.
    for count in [1, 9] {
        let mut judge = J::with(&Table { egress: vec![entry(count)], ingress: vec![] });
        for port in [0, 79, 80, 85, 90, 91, 65535] {
            assert_eq!(judge.egress(&syn4(TOOL, port)), Reason::DefaultDeny, "{port}");
        }
    }
}

pub fn what_a_rule_denies_is_denied_again<J: Judge>() {
    let mut judge = J::with(&table());
    let flags = [SYN, SYN, ACK, RST];
    for packet in flags.map(|flags| ip4(6, OWN4, [192, 0, 2, 66], &tcp(1111, 8080, flags, b""))) {
        assert_eq!(judge.egress(&packet), Reason::RuleDeny);
    }
}

pub fn only_known_protocols_and_own_addresses<J: Judge>() {
    let any = [line(Proto::Any, None, Action::Allow, 1)];
    let mut judge = J::with(&Table {
        egress: vec![entry("0.0.0.0/0", &any), entry("::/0", &any)],
        ingress: vec![entry("0.0.0.0/0", &any)],
    });
    for proto in [0, 2, 4, 41, 47, 50, 51, 58, 132, 136, 255] {
        assert_eq!(judge.egress(&ip4(proto, OWN4, TOOL, &[0; 40])), Reason::Protocol, "{proto}");
    }
    assert_eq!(judge.egress(&ip6(1, OWN6, TOOL6, &[0; 40])), Reason::Protocol);
    assert_eq!(judge.egress(&ip4(17, [10, 42, 0, 3], TOOL, &udp(1, 53))), Reason::Spoofed);
    assert_eq!(judge.egress(&ip6(17, v6("fd00::3"), TOOL6, &udp(1, 53))), Reason::Spoofed);
    for dst in [[224, 0, 0, 251], [255, 255, 255, 255], [240, 0, 0, 1]] {
        assert_eq!(judge.egress(&ip4(17, OWN4, dst, &udp(1, 5353))), Reason::Multicast);
    }
    assert_eq!(judge.egress(&ip6(17, OWN6, v6("ff02::fb"), &udp(1, 5353))), Reason::Multicast);
    assert_eq!(judge.ingress(&ip4(17, TOOL, [10, 42, 0, 3], &udp(1, 53))), Reason::DefaultDeny);
    assert_eq!(judge.ingress(&ip4(17, OWN4, OWN4, &udp(1, 53))), Reason::Spoofed);
    assert_eq!(judge.egress(&ip4(17, OWN4, OWN4, &udp(1, 53))), Reason::RuleAllow, "to itself, as to others");
}

pub fn malformed_packets_are_denied<J: Judge>() {
    let mut judge = J::with(&table());
    let good = syn4(TOOL, 8080);
    let altered = |at: usize, value: u8| {
        let mut packet = good.clone();
        packet[at] = value;
        packet
    };
    for (packet, why) in [
        (altered(0, 0x44), "header shorter than a header"),
        (altered(3, 19), "total shorter than the header"),
        (altered(3, 20 + 19), "transport header cut by the total length"),
        (altered(2, 1), "total longer than the packet"),
        (ip4(17, OWN4, TOOL, &udp(1, 53)[..7]), "short UDP"),
        (ip4(1, OWN4, TOOL, &[8, 0, 0, 0]), "short ICMP"),
        (ip6(6, OWN6, TOOL6, &tcp(1, 8080, SYN, b"")[..19]), "short TCP"),
        (ip6(6, OWN6, v6("::ffff:192.0.2.1"), &tcp(1, 8080, SYN, b"")), "IPv4-mapped destination"),
        (ip6(60, OWN6, TOOL6, &[6, 200, 0, 0, 0, 0, 0, 0]), "extension beyond the end"),
        (ip6(60, OWN6, TOOL6, &[60, 0, 0, 0, 0, 0, 0, 0].repeat(20)), "endless extensions"),
    ] {
        assert_eq!(judge.egress(&packet), Reason::Malformed, "{why}");
    }
    assert_eq!(judge.egress(&altered(0, 0x46)), Reason::Protocol, "options");
    let mut long6 = ip6(17, OWN6, TOOL6, &udp(1, 53));
    long6[5] += 1;
    assert_eq!(judge.egress(&long6), Reason::Malformed, "payload longer than the packet");
    let padded = [&good[..], &[0; 6]].concat();
    assert_eq!(judge.egress(&padded), Reason::RuleAllow, "what lies behind the end is no part of it");
}

pub fn extension_headers_are_walked_but_never_rerouted<J: Judge>() {
    let mut judge = J::with(&table());
    let behind =
        |next: u8, headers: &[u8], port| ip6(next, OWN6, TOOL6, &[headers, &tcp(9, port, SYN, b"")].concat());
    let hop_and_destination = [60, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0];
    assert_eq!(judge.egress(&behind(0, &hop_and_destination, 8080)), Reason::RuleAllow);
    assert_eq!(judge.egress(&behind(0, &hop_and_destination, 8081)), Reason::DefaultDeny);
    let routing = |left| [6, 0, 4, left, 0, 0, 0, 0];
    assert_eq!(judge.egress(&behind(43, &routing(0), 8080)), Reason::Established);
    assert_eq!(judge.egress(&behind(43, &routing(1), 8080)), Reason::Protocol);
    let late_hop = [0, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0];
    assert_eq!(judge.egress(&behind(60, &late_hop, 8080)), Reason::Malformed);
    let twice = [&[44, 0, 0, 0, 0, 0, 0, 9][..], &fragment6(6, true, 0, b"")].concat();
    assert_eq!(judge.egress(&behind(44, &twice, 8080)), Reason::Malformed, "a fragment of a fragment");
    let chain = |headers: usize| {
        let mut bytes = [60, 0, 1, 4, 0, 0, 0, 0].repeat(headers);
        let last = bytes.len() - 8;
        bytes[last] = 6;
        behind(60, &bytes, 8080)
    };
    assert_eq!(judge.egress(&chain(5)), Reason::Established);
    assert_eq!(judge.egress(&chain(6)), Reason::Malformed, "one more than is followed");
}
