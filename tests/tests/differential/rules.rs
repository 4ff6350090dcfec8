//! Random policies over few addresses and ports, so that rules cover, cut and contradict each other.

use std::net::IpAddr;

use ipnet::IpNet;
use lattice_policy::{Action, Match, Pin, Policy, PortRange, Proto, RuleId, parse_rule};

use crate::random::Random;

/// The other ends. Some are guarded by built-in rules.
pub(crate) const REMOTES: [&str; 14] = [
    "192.0.2.1",
    "192.0.2.2",
    "192.0.2.129",
    "192.0.3.1",
    "198.51.100.7",
    "10.42.0.9",
    "169.254.169.254",
    "169.254.0.9",
    "2001:db8::1",
    "2001:db8::2",
    "2001:db8:1::1",
    "fd00::9",
    "fd00:ec2::254",
    "fe80::9",
];

/// The ports of whoever is called.
pub(crate) const PORTS: [u16; 9] = [1, 53, 80, 443, 444, 8000, 8050, 8100, 65535];

const PROTOS: [&str; 4] = ["", "tcp:", "udp:", "icmp:"];

pub(crate) fn policy(random: &mut Random, generation: u32) -> Policy {
    let rules = random.below(40);
    (0..rules).fold(Policy::new(generation), |policy, _| {
        let action = if random.one_in(3) { Action::Deny } else { Action::Allow };
        let spec = parse_rule(&rule(random)).expect("a rule");
        if random.one_in(3) { policy.ingress(action, spec) } else { policy.egress(action, spec) }
    })
}

fn rule(random: &mut Random) -> String {
    let proto = random.pick(&PROTOS);
    let net = net(random);
    let ports = ports(random);
    match (proto, net) {
        ("icmp:", net) => format!("icmp:{net}"),
        (_, net) if ports.is_empty() => format!("{proto}{net}"),
        (_, IpNet::V4(net)) => format!("{proto}{net}:{ports}"),
        (_, IpNet::V6(net)) => format!("{proto}[{net}]:{ports}"),
    }
}

fn net(random: &mut Random) -> IpNet {
    let address: IpAddr = random.pick(&REMOTES).parse().expect("an address");
    let lengths: &[u8] = match address {
        IpAddr::V4(_) => &[0, 8, 16, 23, 24, 25, 30, 31, 32, 32, 32],
        IpAddr::V6(_) => &[0, 10, 32, 48, 64, 127, 128, 128],
    };
    IpNet::new(address, random.pick(lengths)).expect("a length").trunc()
}

/// Sometimes more ranges than fit into the entry of a prefix.
fn ports(random: &mut Random) -> String {
    let ranges = random.pick(&[0, 0, 1, 1, 2, 3, 9]);
    let range = |random: &mut Random| {
        let (a, b) = (random.pick(&PORTS), random.pick(&PORTS));
        if random.one_in(2) { a.to_string() } else { format!("{}-{}", a.min(b), a.max(b)) }
    };
    (0..ranges).map(|_| range(random)).collect::<Vec<_>>().join(",")
}

/// Pins of some of the addresses. Those whose time is over must not count.
pub(crate) fn pins(random: &mut Random, now_ns: u64) -> Vec<Pin> {
    let mut pins: Vec<Pin> = Vec::new();
    for address in REMOTES {
        if random.one_in(3) {
            let lines = 1 + random.below(Pin::MAX_LINES);
            let until_ns = if random.one_in(5) { now_ns / 2 } else { now_ns * 2 };
            let address = address.parse().expect("an address");
            pins.push(Pin { address, matches: (0..lines).map(|_| line(random)).collect(), until_ns });
        }
    }
    pins
}

fn line(random: &mut Random) -> Match {
    let proto = random.pick(&[Proto::Any, Proto::Tcp, Proto::Udp, Proto::Icmp]);
    let (a, b) = (random.pick(&PORTS), random.pick(&PORTS));
    let range = PortRange { lo: a.min(b), hi: a.max(b) };
    let ports = (proto != Proto::Icmp && !random.one_in(3)).then_some(range);
    Match { proto, ports, action: Action::Allow, rule: RuleId(1000 + u32::from(a)) }
}
