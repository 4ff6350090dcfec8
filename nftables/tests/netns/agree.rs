//! The kernel says what the table says: of thousands of packets, of a policy with ten thousand rules.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
};

use lattice_policy::{
    Action, Direction, Entry, Flow, Match, Packet, Pin, Policy, PortRange, Proto, Reason, Table, Verdict,
    parse_rule,
};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, sendto, socket,
};

use crate::lab::{AGENT4, AGENT6, Lab, PEER4, PEER6, line};

/// Xorshift: the same packets in every run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.next(list.len() as u64) as usize]
    }

    /// In a part of each family that is small enough to meet rules, and away from what has a meaning of its own.
    fn address(&mut self) -> IpAddr {
        if self.next(3) > 0 {
            Ipv4Addr::from(0x0B00_0000 + self.next(1 << 20) as u32).into()
        } else {
            Ipv6Addr::from(
                0x2001_0db8_u128 << 96
                    | u128::from(self.next(1 << 16)) << 64
                    | u128::from(self.next(1 << 10)),
            )
            .into()
        }
    }

    fn port(&mut self) -> u16 {
        let any = self.next(1 << 16) as u16;
        self.of(&[22, 53, 80, 443, 8000, 8080, 8090, 65535, any])
    }

    fn rule(&mut self) -> String {
        let address = self.address();
        let wide = self.next(50) == 0;
        let bits = match address {
            IpAddr::V4(_) if wide => self.of(&[20, 24, 28]),
            IpAddr::V6(_) if wide => self.of(&[60, 64, 112]),
            IpAddr::V4(_) => self.of(&[32, 32, 31]),
            IpAddr::V6(_) => self.of(&[128, 128, 127]),
        };
        let proto = self.of(&["", "tcp:", "tcp:", "udp:", "icmp:"]);
        let ports = self.of(&["", ":443", ":22,80,443", ":8000-8090", ":1-65535"]);
        let ports = if proto == "icmp:" { "" } else { ports };
        let net = ipnet::IpNet::new(address, bits).unwrap().trunc();
        let net = if address.is_ipv6() && !ports.is_empty() { format!("[{net}]") } else { net.to_string() };
        format!("{proto}{net}{ports}")
    }
}

fn policy(random: &mut Random, rules: usize) -> Policy {
    let mut policy = Policy::new(1);
    for n in 0..rules {
        let text = random.rule();
        let Ok(spec) = parse_rule(&text) else { panic!("{text}") };
        let action = if random.next(4) == 0 { Action::Deny } else { Action::Allow };
        policy = if n % 8 == 0 { policy.ingress(action, spec) } else { policy.egress(action, spec) };
    }
    policy
}

/// What holds with pins: they are asked where nothing in the table fits.
fn decide(table: &Table, pins: &HashMap<IpAddr, Vec<Match>>, packet: &Packet) -> Verdict {
    let verdict = table.lookup(packet);
    let Some(matches) = pins.get(&packet.remote).filter(|_| verdict.reason == Reason::DefaultDeny) else {
        return verdict;
    };
    let entry = Entry { net: packet.remote.into(), matches: matches.clone() };
    Table { egress: vec![entry], ingress: Vec::new() }.lookup(packet)
}

/// Sends the first packet of a flow.
struct Sender {
    udp: [UdpSocket; 2],
    icmp: [OwnedFd; 2],
}

impl Sender {
    /// In the **caller's** network namespace.
    fn new() -> Self {
        let raw = |family, proto| socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, proto).unwrap();
        Self {
            udp: [UdpSocket::bind((AGENT4, 0)).unwrap(), UdpSocket::bind((AGENT6, 0)).unwrap()],
            icmp: [
                raw(AddressFamily::Inet, SockProtocol::Icmp),
                raw(AddressFamily::Inet6, SockProtocol::IcmpV6),
            ],
        }
    }

    /// A denied send may fail; what counts is the record.
    fn send(&self, packet: &Packet, id: u16) {
        let (family, inet) = match packet.remote {
            IpAddr::V4(_) => (0, AddressFamily::Inet),
            IpAddr::V6(_) => (1, AddressFamily::Inet6),
        };
        let (_, to) = ends(packet);
        match packet.proto {
            17 => drop(self.udp[family].send_to(b"?", to)),
            6 => {
                let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
                let socket = socket(inet, SockType::Stream, flags, None).unwrap();
                let _ = connect(socket.as_raw_fd(), &SockaddrStorage::from(to));
            }
            _ => {
                let kind = if family == 0 { 8u8 } else { 128 };
                // The kernel fills in the checksum of ICMPv6 only.
                let sum = (u32::from(kind) << 8) + u32::from(id);
                let sum = !((sum & 0xFFFF) + (sum >> 16)) as u16;
                let echo = [&[kind, 0][..], &sum.to_be_bytes(), &id.to_be_bytes(), &[0, 0]].concat();
                let icmp = self.icmp[family].as_raw_fd();
                let _ = sendto(icmp, &echo, &SockaddrStorage::from(to), MsgFlags::empty());
            }
        }
    }
}

/// What a record of the packet is known by.
fn ends(packet: &Packet) -> (u8, SocketAddr) {
    (packet.proto, SocketAddr::new(packet.remote, packet.port.unwrap_or_default()))
}

/// An address of one of `lists`, or another.
fn remote(random: &mut Random, lists: &[&[IpAddr]]) -> IpAddr {
    match lists.get(random.next(lists.len() as u64 + 1) as usize) {
        Some(list) => random.of(list),
        None => random.address(),
    }
}

fn is_random(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[0] == 11,
        IpAddr::V6(ip) => ip.segments()[0] == 0x2001,
    }
}

fn addresses(entries: &[Entry]) -> Vec<IpAddr> {
    entries.iter().map(|entry| entry.net.addr()).filter(is_random).collect()
}

fn verdict(flow: &Flow) -> Verdict {
    Verdict { action: flow.action, rule: flow.rule, reason: flow.reason }
}

#[test]
fn table_and_kernel_agree_about_egress() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut lab = Lab::new();
    lab.peer.ip("route add blackhole 0.0.0.0/0");
    lab.peer.ip("-6 route add blackhole ::/0");
    let table = policy(&mut random, 10_000).compile();
    let names = (0..200).map(|n| {
        let ports = Some(PortRange { lo: 80, hi: 8080 });
        let web = Match { ports, ..line(Proto::Tcp, None, 20_000 + n % 3) };
        (random.address(), vec![web, line(Proto::Icmp, None, 20_009)])
    });
    let pins: HashMap<IpAddr, Vec<Match>> = names.collect();
    let pinned =
        pins.iter().map(|(&address, matches)| Pin { address, matches: matches.clone(), until_ns: u64::MAX });
    lab.nftables.apply(&table, &[], 1).unwrap();
    lab.nftables.pin(&pinned.collect::<Vec<_>>()).unwrap();

    let known = [addresses(&table.egress), pins.keys().copied().collect()];
    let (mut expected, mut kinds) = (HashMap::new(), HashSet::new());
    let mut packets = Vec::new();
    for _ in 0..4000 {
        let remote = remote(&mut random, &[&known[0], &known[1]]);
        let icmp = if remote.is_ipv4() { 1 } else { 58 };
        let proto = random.of(&[6, 17, 6, 17, icmp]);
        let port = (proto != icmp).then(|| random.port().max(1));
        let packet = Packet { direction: Direction::Egress, proto, remote, port };
        let verdict = decide(&table, &pins, &packet);
        if expected.insert(ends(&packet), verdict).is_none() {
            kinds.insert((verdict.reason, proto));
            packets.push(packet);
        }
    }
    assert!(packets.len() > 3000 && kinds.len() == 12, "{} packets, {kinds:?}", packets.len());
    let mut told: HashMap<(u8, SocketAddr), Flow> = HashMap::new();
    for batch in packets.chunks(128) {
        lab.agent.run(|| {
            let sender = Sender::new();
            (1..).zip(batch).for_each(|(id, packet)| sender.send(packet, id));
        });
        lab.eventually(|lab| {
            lab.events.drain(&mut |flow| {
                told.insert((flow.proto, flow.dst), flow);
            });
            batch.iter().all(|packet| told.contains_key(&ends(packet)))
        });
    }
    assert_eq!(lab.nftables.lost(), 0);
    for (of, expected) in expected {
        assert_eq!(verdict(&told[&of]), expected, "{of:?}");
    }
}

#[test]
fn table_and_kernel_agree_about_ingress() {
    let mut random = Random(0xD1B5_4A32_D192_ED03);
    let mut lab = Lab::new();
    // The peer is whoever the agent's rules know.
    lab.peer.ip("route add local 11.0.0.0/8 dev lo");
    lab.peer.ip("-6 route add local 2001:db8::/32 dev lo");
    lab.peer.run(|| std::fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1").unwrap());
    let table = policy(&mut random, 4000).compile();
    lab.nftables.apply(&table, &[], 1).unwrap();
    let known = addresses(&table.ingress);
    // Neighbours find each other first: a link keeps only a few packets until then.
    for (from, to) in [(IpAddr::from(PEER4), IpAddr::from(AGENT4)), (PEER6.into(), AGENT6.into())] {
        lab.peer_binds(from, 0).send_to(b"?", (to, 9)).unwrap();
        lab.wait_for(|f| f.src.ip() == from);
    }
    let (mut expected, mut kinds) = (HashMap::new(), HashSet::new());
    for _ in 0..800 {
        let remote = remote(&mut random, &[&known]);
        let agent = if remote.is_ipv4() { IpAddr::from(AGENT4) } else { AGENT6.into() };
        let port = random.port().max(1);
        let packet = Packet { direction: Direction::Ingress, proto: 17, remote, port: Some(port) };
        let socket = lab.peer.run(|| UdpSocket::bind((remote, 0)).unwrap());
        let ends = (socket.local_addr().unwrap(), SocketAddr::new(agent, port));
        let verdict = table.lookup(&packet);
        kinds.insert(verdict.reason);
        expected.insert(ends, verdict);
        socket.send_to(b"?", ends.1).unwrap();
    }
    assert_eq!(kinds.len(), 3, "{kinds:?}");
    let mut told: HashMap<(SocketAddr, SocketAddr), Flow> = HashMap::new();
    lab.eventually(|lab| {
        lab.events.drain(&mut |flow| {
            told.insert((flow.src, flow.dst), flow);
        });
        expected.keys().all(|of| told.contains_key(of))
    });
    for (of, expected) in expected {
        assert_eq!(verdict(&told[&of]), expected, "{of:?}");
    }
}
