//! For any policy, the filter says of the first packet of a flow what the reference says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use lattice_filter::Filter;
use lattice_policy::{
    Action, Direction, Match, Packet, Pin, Policy, PortRange, Proto, Reason, RuleSpec, Target, builtin,
    evaluate,
};
use lattice_verdicts::packet::{self, OWN4, OWN6};
use proptest::{collection::vec, prelude::*, sample::select};

const NOW: u64 = 1000;

/// Few addresses and ports, so that rules cover, shadow and repeat each other.
fn address() -> impl Strategy<Value = IpAddr> {
    let special = [
        "169.254.169.254",
        "169.254.1.1",
        "100.100.100.200",
        "0.0.0.0",
        "223.255.255.255",
        "fd00:ec2::254",
        "fe80::1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::e000:1",
        "::",
        "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ];
    prop_oneof![
        4 => (0u32..64, 0u32..4).prop_map(|(low, high)| Ipv4Addr::from(0x0A00_0000 | high << 22 | low).into()),
        3 => (0u128..16, 0u128..4).prop_map(|(low, high)| Ipv6Addr::from(0xFD00 << 112 | high << 60 | low).into()),
        3 => select(special.map(|text| text.parse::<IpAddr>().unwrap()).to_vec()),
        1 => any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).into()),
        1 => any::<u128>().prop_map(|bits| Ipv6Addr::from(bits).into()),
    ]
}

fn port() -> impl Strategy<Value = u16> {
    select(vec![0, 1, 22, 53, 79, 80, 81, 443, 8080, 65534, 65535])
}

fn proto() -> impl Strategy<Value = Proto> {
    select(vec![Proto::Any, Proto::Tcp, Proto::Udp, Proto::Icmp])
}

fn policy() -> impl Strategy<Value = Policy> {
    let net = (address(), any::<bool>(), 0u8..=128).prop_map(|(address, exact, len)| {
        let max = IpNet::from(address).max_prefix_len();
        IpNet::new(address, if exact { max } else { len % (max + 1) }).unwrap()
    });
    // Reversed ranges do not come from the grammar; they must fit nothing.
    let ports =
        prop_oneof![Just(Vec::new()), vec((port(), port()).prop_map(|(lo, hi)| PortRange { lo, hi }), 1..9)];
    let action = select(vec![Action::Allow, Action::Allow, Action::Deny]);
    let rule = (any::<bool>(), action, proto(), net, ports).prop_map(|(out, action, proto, net, ports)| {
        (out, action, RuleSpec { proto, target: Target::Net(net), ports, text: net.to_string() })
    });
    vec(rule, 0..24).prop_map(|rules| {
        rules.into_iter().fold(Policy::new(1), |policy, (out, action, spec)| match out {
            true => policy.egress(action, spec),
            false => policy.ingress(action, spec),
        })
    })
}

fn pins() -> impl Strategy<Value = Vec<Pin>> {
    let line =
        (proto(), prop::option::of((port(), port())), 1000..1009u32).prop_map(|(proto, ports, rule)| {
            lattice_verdicts::table::line(
                proto,
                ports.map(|(a, b)| (a.min(b), a.max(b))),
                Action::Allow,
                rule,
            )
        });
    let pin = (address(), vec(line, 0..=Pin::MAX_LINES), select(vec![NOW - 1, NOW, NOW + 1, u64::MAX]))
        .prop_map(|(address, matches, until_ns)| Pin { address, matches, until_ns });
    vec(pin, 0..12)
}

/// A packet as rules see it.
fn opening() -> impl Strategy<Value = Packet> {
    let direction = select(vec![Direction::Egress, Direction::Ingress]);
    (direction, select(vec![6, 17, 1]), address(), port()).prop_map(|(direction, number, remote, port)| {
        let proto = if number == 1 && remote.is_ipv6() { 58 } else { number };
        Packet { direction, proto, remote, port: (number != 1).then_some(port) }
    })
}

/// What the rules say, then the pins.
fn expected(policy: &Policy, pins: &[Pin], packet: &Packet) -> (Action, Reason, u32) {
    let verdict = evaluate(policy, packet);
    let fits = |line: &&Match| {
        let proto = match packet.proto {
            6 => Proto::Tcp,
            17 => Proto::Udp,
            _ => Proto::Icmp,
        };
        let port = |ports: PortRange| packet.port.is_some_and(|port| ports.contains(port));
        (line.proto == Proto::Any || line.proto == proto) && line.ports.is_none_or(port)
    };
    if verdict.reason == Reason::DefaultDeny && packet.direction == Direction::Egress {
        // The latest of an address counts.
        let pin = pins.iter().rev().find(|pin| pin.address == packet.remote);
        if let Some(line) = pin.filter(|pin| pin.until_ns > NOW).and_then(|pin| pin.matches.iter().find(fits))
        {
            return (line.action, Reason::RuleAllow, line.rule.0);
        }
    }
    // Enforcers know a group by its address; the built-in rule for groups behind NAT64 is to them a rule like others.
    let reason = if verdict.reason == Reason::Multicast { Reason::RuleDeny } else { verdict.reason };
    (verdict.action, reason, verdict.rule.0)
}

/// What is decided before any rule is asked.
fn is_special(packet: &Packet) -> bool {
    let own = [IpAddr::from(OWN4), OWN6.into()];
    let remote = packet.remote;
    let group = match remote {
        IpAddr::V4(ip) => ip.octets()[0] >= 224,
        IpAddr::V6(ip) => ip.is_multicast() || ip.to_ipv4_mapped().is_some(),
    };
    group || own.contains(&remote)
}

/// First and last address of every prefix of the policy and the built-in rules, and their neighbours.
fn edges(policy: &Policy) -> Vec<IpAddr> {
    let around = |net: IpNet| {
        let (first, last) = (net.network(), net.broadcast());
        let step = |address: IpAddr, by: i8| match address {
            IpAddr::V4(a) => IpAddr::V4(a.to_bits().wrapping_add_signed(by.into()).into()),
            IpAddr::V6(a) => IpAddr::V6(a.to_bits().wrapping_add_signed(by.into()).into()),
        };
        [first, last, step(first, -1), step(last, 1)]
    };
    policy.rules().iter().chain(builtin::rules()).flat_map(|rule| around(rule.net)).collect()
}

/// Asks the filter and the reference.
struct Check<'a> {
    policy: &'a Policy,
    pins: &'a [Pin],
    filter: Filter,
    /// The port of the last caller: another each time, so that each packet is the first of its flow.
    caller: u16,
}

impl<'a> Check<'a> {
    fn new(policy: &'a Policy, pins: &'a [Pin]) -> Self {
        let mut filter = Filter::new(vec![OWN4.into(), OWN6.into()]);
        filter.apply(&policy.compile(), pins, 1);
        Self { policy, pins, filter, caller: 10_000 }
    }

    fn run(&mut self, packet: &Packet) -> Result<(), TestCaseError> {
        if is_special(packet) {
            return Ok(());
        }
        self.caller += 1;
        let Packet { direction, proto, remote, port } = *packet;
        let bytes = packet::opening(direction, proto, remote, self.caller, port.unwrap_or(0));
        let peeked = self.filter.peek(packet.direction, &bytes, NOW);
        let said = self.filter.judge(packet.direction, &bytes, NOW);
        assert_eq!(peeked, said);
        let expected = expected(self.policy, self.pins, packet);
        prop_assert_eq!((said.action, said.reason, said.rule.0), expected, "{:?}", packet);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_filter_and_the_rules_agree(policy in policy(), pins in pins(), openings in vec(opening(), 24)) {
        let mut check = Check::new(&policy, &pins);
        for packet in openings {
            check.run(&packet)?;
        }
        for Pin { address, .. } in &pins {
            for port in [22, 80] {
                let (direction, port) = (Direction::Egress, Some(port));
                check.run(&Packet { direction, proto: 6, remote: *address, port })?;
            }
        }
    }

    #[test]
    fn the_filter_and_the_rules_agree_at_the_edges(policy in policy(), tcp: bool, port in port()) {
        let proto = if tcp { 6 } else { 17 };
        let mut check = Check::new(&policy, &[]);
        for remote in edges(&policy) {
            for direction in [Direction::Egress, Direction::Ingress] {
                check.run(&Packet { direction, proto, remote, port: Some(port) })?;
            }
        }
    }
}
