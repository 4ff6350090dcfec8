//! The network: hosts with [`Paths`], NATs before them, two STUN servers, relays that always work, signals that may not.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use lattice_wire::{WgPublicKey, signal::Signal};
use lattice_wireguard::Path;

use crate::{Config, Event, PathPeer, PathStatus, Paths, Transmit, mux, stun};

const FLIGHT: Duration = Duration::from_millis(20);
pub(super) const RELAY: u16 = 3;
pub(super) const STUN: [&str; 4] =
    ["198.51.100.1:3478", "198.51.100.2:3478", "[2001:db8:5::1]:3478", "[2001:db8:5::2]:3478"];

pub(super) fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// SplitMix64: not for secrets, but the same in each run.
#[derive(Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill_with(|| self.next() as u8);
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nat {
    /// A public address.
    None,
    /// One port for all destinations, open to all.
    FullCone,
    /// One port for all destinations, open to those that were sent to.
    PortRestricted,
    /// A port for each destination, open to it.
    Symmetric,
    /// No UDP.
    Blocked,
}

#[derive(Default)]
struct Mappings {
    ports: HashMap<(SocketAddr, Option<SocketAddr>), u16>,
    inside: HashMap<u16, SocketAddr>,
    allowed: HashSet<(u16, SocketAddr)>,
}

pub(super) struct Host {
    pub(super) paths: Paths,
    pub(super) key: WgPublicKey,
    pub(super) addresses: Vec<SocketAddr>,
    nat: Nat,
    /// Of its NAT.
    outside: IpAddr,
    lan: usize,
    mappings: Mappings,
    /// What was selected when, for which host.
    pub(super) selected: Vec<(Instant, usize, Option<Path>)>,
    /// Sessions that ended.
    pub(super) ended: usize,
    /// Requests it sent, to STUN servers too.
    pub(super) probed: Vec<(Instant, SocketAddr)>,
    pub(super) signals: usize,
    /// Messages received by number.
    pub(super) received: HashSet<u32>,
    pub(super) sent: u32,
}

enum Flight {
    Datagram { from: SocketAddr, to: SocketAddr, bytes: Vec<u8>, lan: Option<usize> },
    Relayed { from: usize, to: usize, bytes: Vec<u8> },
    Signal { from: usize, to: usize, signal: Signal },
}

pub(super) struct Network {
    pub(super) now: Instant,
    pub(super) hosts: Vec<Host>,
    queue: BTreeMap<(Instant, u64), Flight>,
    number: u64,
    random: Random,
    pub(super) loss: u64,
    pub(super) signal_loss: u64,
    /// Signals are repeated and arrive in any order.
    pub(super) signal_chaos: bool,
    pub(super) cut: bool,
    /// Who has packets for whom, all the time.
    pub(super) talk: Vec<(usize, usize)>,
    next_talk: Instant,
    /// Between two packets.
    pub(super) pause: Duration,
}

pub(super) fn key(number: usize) -> WgPublicKey {
    WgPublicKey([number as u8; 32])
}

impl Network {
    pub(super) fn new(seed: u64) -> Self {
        let start = Instant::now();
        Self {
            now: start,
            hosts: Vec::new(),
            queue: BTreeMap::new(),
            number: 0,
            random: Random(seed),
            loss: 0,
            signal_loss: 0,
            signal_chaos: false,
            cut: false,
            talk: Vec::new(),
            next_talk: start,
            pause: ms(50),
        }
    }

    /// Two hosts behind these NATs, connected to one relay, that talk to each other from now on.
    pub(super) fn pair(seed: u64, a: Nat, b: Nat) -> Self {
        let mut network = Self::new(seed);
        network.add(a, 1);
        network.add(b, 2);
        network.meet();
        network.talk = vec![(0, 1), (1, 0)];
        network
    }

    /// A host at `10.<lan>.0.<number>` behind a NAT at `203.0.113.<number>`; a public one is at `192.0.2.<number>`.
    pub(super) fn add(&mut self, nat: Nat, lan: usize) -> usize {
        let number = self.hosts.len() + 1;
        let address = match nat {
            Nat::None => format!("192.0.2.{number}:51820"),
            _ => format!("10.{lan}.0.{number}:51820"),
        };
        let mut random = Random(self.random.next());
        let config = Config { key: key(number), pool: vec!["10.200.0.0/16".parse().unwrap()] };
        let mut paths = Paths::new(config, move |bytes| random.fill(bytes));
        paths.set_local(&[at(&address)], self.now);
        paths.set_stun_servers(&STUN.map(at), self.now);
        self.hosts.push(Host {
            paths,
            key: key(number),
            addresses: vec![at(&address)],
            nat,
            outside: IpAddr::from([203, 0, 113, number as u8]),
            lan,
            mappings: Mappings::default(),
            selected: Vec::new(),
            ended: 0,
            probed: Vec::new(),
            signals: 0,
            received: HashSet::new(),
            sent: 0,
        });
        number - 1
    }

    /// All know all, without endpoints, and the relay.
    pub(super) fn meet(&mut self) {
        let all: Vec<_> =
            self.hosts.iter().map(|host| PathPeer { key: host.key, endpoints: vec![] }).collect();
        for i in 0..self.hosts.len() {
            self.hosts[i].paths.set_peers(&all, self.now);
            self.hosts[i].paths.set_relay(RELAY, "east", Some(ms(30)), self.now);
            self.drain(i);
        }
    }

    pub(super) fn set_local(&mut self, host: usize, addresses: &[SocketAddr]) {
        self.hosts[host].addresses = addresses.to_vec();
        self.hosts[host].paths.set_local(addresses, self.now);
        self.drain(host);
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let timeouts = self.hosts.iter().filter_map(|host| host.paths.poll_timeout());
            let flight = self.queue.first_key_value().map(|((at, _), _)| *at);
            let talk = (!self.talk.is_empty()).then_some(self.next_talk);
            let next = timeouts.chain(flight).chain(talk).min().filter(|next| *next <= end);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            if flight == Some(next) {
                let (_, flight) = self.queue.pop_first().unwrap();
                self.land(flight);
            } else if talk == Some(next) {
                self.next_talk = self.now + self.pause;
                for (from, to) in self.talk.clone() {
                    self.send_message(from, to);
                }
            } else {
                for i in 0..self.hosts.len() {
                    self.hosts[i].paths.handle_timeout(self.now);
                    self.drain(i);
                }
            }
        }
        self.now = end;
    }

    /// A message as WireGuard would send it, by the selected path.
    fn send_message(&mut self, from: usize, to: usize) {
        let key = self.hosts[to].key;
        self.hosts[from].paths.wants(&key, self.now);
        self.drain(from);
        let Some(path) = self.path(from, to) else { return };
        let mut bytes = vec![0; 32];
        bytes[0] = 4;
        bytes[8] = from as u8;
        bytes[12..16].copy_from_slice(&self.hosts[from].sent.to_le_bytes());
        self.hosts[from].sent += 1;
        match path {
            Path::Direct { remote, local } => {
                let local = self.hosts[from].addresses.iter().find(|at| Some(at.ip()) == local);
                let Some(&local) = local else { return };
                self.send(from, Transmit { local, remote, payload: bytes });
            }
            Path::Relay { relay, .. } => {
                assert_eq!(relay, RELAY);
                self.schedule(2 * FLIGHT, Flight::Relayed { from, to, bytes });
            }
        }
    }

    fn schedule(&mut self, after: Duration, flight: Flight) {
        self.number += 1;
        self.queue.insert((self.now + after, self.number), flight);
    }

    fn drain(&mut self, i: usize) {
        while let Some(transmit) = self.hosts[i].paths.poll_transmit() {
            assert_eq!(mux::classify(&transmit.payload), mux::Kind::Stun);
            assert!(self.hosts[i].addresses.contains(&transmit.local), "sent from {}", transmit.local);
            if transmit.payload[0] == 0 {
                self.hosts[i].probed.push((self.now, transmit.remote));
            }
            self.send(i, transmit);
        }
        while let Some((peer, signal)) = self.hosts[i].paths.poll_signal() {
            self.hosts[i].signals += 1;
            let Some(to) = self.hosts.iter().position(|host| host.key == peer) else { continue };
            let copies = if self.signal_chaos { 1 + self.random.next() % 3 } else { 1 };
            for _ in 0..copies {
                let late = if self.signal_chaos { self.random.next() % 3000 } else { 0 };
                if !self.random.percent(self.signal_loss) {
                    self.schedule(FLIGHT + ms(late), Flight::Signal { from: i, to, signal: signal.clone() });
                }
            }
        }
        while let Some(event) = self.hosts[i].paths.poll_event() {
            let Event::Select { peer, path } = event else {
                self.hosts[i].ended += 1;
                continue;
            };
            let Some(to) = self.hosts.iter().position(|host| host.key == peer) else { continue };
            self.hosts[i].selected.push((self.now, to, path));
        }
    }

    fn send(&mut self, i: usize, Transmit { local, remote, payload: bytes }: Transmit) {
        let host = &mut self.hosts[i];
        if self.cut || host.nat == Nat::Blocked || self.random.percent(self.loss) {
            return;
        }
        let lan = host.lan;
        if self.hosts.iter().any(|other| other.lan == lan && other.addresses.contains(&remote)) {
            return self.schedule(ms(1), Flight::Datagram { from: local, to: remote, bytes, lan: Some(lan) });
        }
        let host = &mut self.hosts[i];
        let from = if remote.is_ipv6() || host.nat == Nat::None { local } else { host.map(local, remote) };
        if let Some(server) = STUN.map(at).into_iter().find(|server| *server == remote) {
            let Some(question) = stun::Message::parse(&bytes) else { return };
            let bytes = stun::answer(question.transaction, from, None);
            return self.schedule(2 * FLIGHT, Flight::Datagram { from: server, to: from, bytes, lan: None });
        }
        self.schedule(FLIGHT, Flight::Datagram { from, to: remote, bytes, lan: None });
    }

    fn land(&mut self, flight: Flight) {
        let (i, path_from, bytes) = match flight {
            Flight::Signal { from, to, signal } => {
                let key = self.hosts[from].key;
                self.hosts[to].paths.handle_signal(&key, signal, self.now);
                return self.drain(to);
            }
            Flight::Relayed { from, to, bytes } => {
                (to, Path::Relay { relay: RELAY, peer: self.hosts[from].key }, bytes)
            }
            Flight::Datagram { from, to, bytes, lan } => {
                let Some((i, local)) = self.host_at(from, to, lan) else { return };
                if mux::classify(&bytes) == mux::Kind::Stun {
                    self.hosts[i].paths.handle_stun(local, from, &bytes, self.now);
                    return self.drain(i);
                }
                (i, Path::Direct { remote: from, local: Some(local.ip()) }, bytes)
            }
        };
        let key = self.hosts[usize::from(bytes[8])].key;
        self.hosts[i].received.insert(u32::from_le_bytes(bytes[12..16].try_into().unwrap()));
        self.hosts[i].paths.saw_traffic(&key, path_from, self.now);
        self.drain(i);
    }

    /// Which host has `to`, and at which of its addresses it gets what comes from `from`.
    fn host_at(&self, from: SocketAddr, to: SocketAddr, lan: Option<usize>) -> Option<(usize, SocketAddr)> {
        self.hosts.iter().enumerate().find_map(|(i, host)| {
            let is_here = host.addresses.contains(&to)
                && (lan == Some(host.lan) || host.nat == Nat::None || to.is_ipv6());
            if is_here && host.nat != Nat::Blocked {
                return Some((i, to));
            }
            let inside = *host.mappings.inside.get(&to.port()).filter(|_| to.ip() == host.outside)?;
            let open = host.nat == Nat::FullCone || host.mappings.allowed.contains(&(to.port(), from));
            (open && host.addresses.contains(&inside)).then_some((i, inside))
        })
    }

    /// What host `from` selected for `to`.
    pub(super) fn path(&self, from: usize, to: usize) -> Option<Path> {
        self.hosts[from].selected.iter().rev().find(|(_, peer, _)| *peer == to).and_then(|(.., path)| *path)
    }

    pub(super) fn is_direct(&self, from: usize, to: usize) -> bool {
        self.path(from, to).is_some_and(|path| path.remote().is_some())
    }

    pub(super) fn is_relayed(&self, from: usize, to: usize) -> bool {
        self.path(from, to).is_some_and(|path| path.remote().is_none())
    }

    pub(super) fn both_direct(&self) -> bool {
        self.is_direct(0, 1) && self.is_direct(1, 0)
    }

    pub(super) fn status(&self, from: usize, to: usize) -> PathStatus {
        self.hosts[from].paths.status(&self.hosts[to].key).unwrap()
    }
}

impl Host {
    fn map(&mut self, local: SocketAddr, remote: SocketAddr) -> SocketAddr {
        let destination = (self.nat == Nat::Symmetric).then_some(remote);
        let next = 20_000 + 7 * self.mappings.ports.len() as u16;
        let port = *self.mappings.ports.entry((local, destination)).or_insert(next);
        self.mappings.inside.insert(port, local);
        self.mappings.allowed.insert((port, remote));
        SocketAddr::new(self.outside, port)
    }
}
