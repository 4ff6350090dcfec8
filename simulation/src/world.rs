//! Nodes, the network between them and the services around them, run in virtual time; and what must hold at every moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use lattice_wire::{PeerId, WgPrivateKey, WgPublicKey, signal::Signal};
use lattice_wireguard::Path;

use crate::{
    Control, Delivery, Device, Effect, HostId, Input, Ledger, Member, Network, PORT, Random, Relays,
    Signalling, control::Due, forbidden, relays, signalling::Letter, stun, trace::Trace,
};

/// After a peer is gone from a node's map, what was under way may still arrive for so long.
const UNDER_WAY: Duration = Duration::from_secs(3);
/// A device that asks for the same instant again this often will do so for ever.
const BUSY: u32 = 200;

/// Who a node is.
#[derive(Debug)]
pub struct Identity {
    /// Its number.
    pub node: usize,
    /// Its name.
    pub id: PeerId,
    /// Its private key.
    pub private_key: WgPrivateKey,
    /// Its address in the overlay.
    pub overlay: Ipv4Addr,
    /// The STUN servers.
    pub stun: Vec<SocketAddr>,
    /// Chance of its own.
    pub random: Random,
}

pub(crate) struct Node {
    pub(crate) host: HostId,
    device: Box<dyn Device>,
    member: Member,
    /// Nothing of it runs.
    suspended: bool,
    /// Says of itself what is not true.
    lies: bool,
    map: BTreeSet<usize>,
    left_map: BTreeMap<usize, Instant>,
    /// Where its peers said they are, by peer.
    claims: BTreeSet<(usize, SocketAddr)>,
    sent: u64,
    busy: (Option<Instant>, u32),
    traced: BTreeMap<usize, Option<Path>>,
}

/// Everything.
pub struct World {
    /// The time.
    pub now: Instant,
    /// The network.
    pub network: Network,
    /// The relays.
    pub relays: Relays,
    /// The signalling service.
    pub signalling: Signalling,
    /// The control plane.
    pub control: Control,
    /// What was sent in the overlay.
    pub ledger: Ledger,
    /// Chance.
    pub random: Random,
    pub(crate) nodes: Vec<Node>,
    stun: Vec<(HostId, SocketAddr)>,
    trace: Trace,
    violation: Option<String>,
}

// === impl World: building it ===

impl World {
    /// An empty one.
    pub fn new(seed: u64, traced: bool) -> Self {
        let (now, mut random) = (Instant::now(), Random::new(seed));
        Self {
            now,
            network: Network::new(random.split()),
            relays: Relays::new(random.split()),
            signalling: Signalling::new(random.split()),
            control: Control::new(random.split()),
            ledger: Ledger::default(),
            nodes: Vec::new(),
            stun: Vec::new(),
            trace: Trace::new(now, traced),
            violation: None,
            random,
        }
    }

    /// A STUN server on the internet, with an address of each version.
    pub fn add_stun(&mut self, addresses: [IpAddr; 2]) {
        let host = self.network.add_host(addresses.map(|address| (0, address)).into());
        self.stun.extend(addresses.map(|address| (host, SocketAddr::new(address, stun::PORT))));
    }

    /// A node at these addresses. Add STUN servers and relays first.
    pub fn add_node(
        &mut self,
        addresses: Vec<(usize, IpAddr)>,
        make: impl FnOnce(Identity, Instant) -> Box<dyn Device>,
    ) -> usize {
        let node = self.nodes.len();
        let private_key = WgPrivateKey::from_random(self.random.bytes());
        let id = PeerId::from_random(*self.random.bytes().first_chunk().expect("32 bytes hold ten"));
        let overlay = Ipv4Addr::new(10, 42, 0, node as u8 + 1);
        let member = Member { id: id.clone(), key: private_key.public(), overlay, endpoints: Vec::new() };
        let stun = self.stun.iter().map(|(_, address)| *address).collect();
        let identity = Identity { node, id, private_key, overlay, stun, random: self.random.split() };
        self.nodes.push(Node {
            host: self.network.add_host(Vec::new()),
            device: make(identity, self.now),
            member,
            suspended: false,
            lies: false,
            map: BTreeSet::new(),
            left_map: BTreeMap::new(),
            claims: BTreeSet::new(),
            sent: 0,
            busy: (None, 0),
            traced: BTreeMap::new(),
        });
        self.control.add_node();
        self.move_node(node, addresses);
        node
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// All pairs of nodes that are to be peers, each both ways.
    pub fn pairs(&self) -> Vec<(usize, usize)> {
        let all = (0..self.nodes()).flat_map(|from| (0..self.nodes()).map(move |to| (from, to)));
        all.filter(|(from, to)| self.control.are_peers(*from, *to)).collect()
    }

    /// A node's host.
    pub fn host(&self, node: usize) -> HostId {
        self.nodes[node].host
    }

    /// A node's device.
    pub fn device(&self, node: usize) -> &dyn Device {
        &*self.nodes[node].device
    }

    /// A node's public key.
    pub fn key(&self, node: usize) -> WgPublicKey {
        self.nodes[node].member.key
    }

    /// How many datagrams and frames a node has sent so far.
    pub fn sent(&self, node: usize) -> u64 {
        self.nodes[node].sent
    }
}

// === impl World: what happens to it ===

impl World {
    /// Notes what is about to be done, for who reads the trace.
    pub fn note<T: std::fmt::Display>(&mut self, what: impl FnOnce() -> T) {
        self.trace.note(self.now, what);
    }

    /// Moves a node to other addresses; to none, to take it off the network.
    pub fn move_node(&mut self, node: usize, addresses: Vec<(usize, IpAddr)>) {
        self.note(|| format!("node {node} has the addresses {addresses:?}"));
        let host = self.nodes[node].host;
        let ips: Vec<IpAddr> = addresses.iter().map(|(_, ip)| *ip).collect();
        self.network.move_host(host, addresses);
        let online = self.network.is_online(host);
        self.relays.update(host, online, true, self.now);
        self.control.moved(node, self.now);
        self.input(node, Input::Addresses(&ips));
    }

    /// Stops everything of a node, or lets it run on.
    pub fn suspend(&mut self, node: usize, suspended: bool) {
        self.note(|| format!("node {node} {}", if suspended { "is suspended" } else { "runs again" }));
        if std::mem::replace(&mut self.nodes[node].suspended, suspended) && !suspended {
            self.input(node, Input::Resumed);
        }
    }

    /// Whether it is suspended.
    pub fn is_suspended(&self, node: usize) -> bool {
        self.nodes[node].suspended
    }

    /// Has a node name, among its addresses, what is nobody's.
    pub fn let_lie(&mut self, node: usize) {
        self.note(|| format!("node {node} lies about its addresses"));
        self.nodes[node].lies = true;
        self.control.moved(node, self.now);
    }

    /// Has connections made and broken after links, relays or cuts were changed.
    pub fn update(&mut self) {
        for node in 0..self.nodes() {
            let host = self.nodes[node].host;
            let online = self.network.is_online(host);
            self.relays.update(host, online, false, self.now);
        }
    }

    /// Has a node send a packet of `len` bytes to another.
    pub fn send(&mut self, from: usize, to: usize, len: usize) {
        if self.nodes[from].suspended {
            return;
        }
        let addresses = (self.nodes[from].member.overlay, self.nodes[to].member.overlay);
        let packet = self.ledger.send((from, to), addresses, len, self.now);
        self.input(from, Input::Packet(&packet));
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// What must never happen and did, once it did.
    pub fn run_for(&mut self, time: Duration) -> Result<(), String> {
        let end = self.now + time;
        while let Some(at) = self.next_at().filter(|at| *at <= end && self.violation.is_none()) {
            self.now = self.now.max(at);
            self.step();
        }
        self.now = end;
        match &self.violation {
            None => Ok(()),
            Some(violation) => Err(violation.clone()),
        }
    }

    /// What happened, where it was traced, and the state of all devices.
    pub fn story(&self) -> String {
        let states = self.nodes.iter().enumerate();
        let states =
            states.map(|(node, Node { device, .. })| format!("node {node}: {}\n", device.describe()));
        self.trace.text() + &states.collect::<String>()
    }

    fn next_at(&self) -> Option<Instant> {
        let running = self.nodes.iter().filter(|node| !node.suspended);
        let timeouts = running.filter_map(|node| node.device.poll_timeout());
        let services = [
            self.network.next_at(),
            self.relays.next_at(),
            self.signalling.next_at(),
            self.control.next_at(),
        ];
        services.into_iter().flatten().chain(timeouts).min()
    }

    fn step(&mut self) {
        let now = self.now;
        while let Some(delivery) = self.network.poll(now) {
            self.deliver(delivery);
        }
        while let Some((host, relay, event)) = self.relays.poll(now) {
            let Some(node) = self.node_at(host) else { continue };
            match event {
                relays::Event::Frame { from, bytes } => {
                    let Some(sender) = self.node_at(from) else { continue };
                    let from = self.nodes[sender].member.key;
                    self.input(node, Input::Relayed { relay, from, bytes: &bytes });
                }
                relays::Event::Connected { round_trip } => {
                    self.note(|| format!("node {node} is connected with relay {relay}"));
                    self.input(node, Input::Relay { relay, round_trip: Some(round_trip) });
                }
                relays::Event::Lost => {
                    self.note(|| format!("node {node} has lost relay {relay}"));
                    self.input(node, Input::Relay { relay, round_trip: None });
                }
            }
        }
        while let Some(letter) = self.signalling.poll(now) {
            self.signal(letter);
        }
        while let Some(due) = self.control.poll(now) {
            self.control(due);
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].device.poll_timeout().is_some_and(|at| at <= now) {
                self.input(node, Input::Timeout);
                self.watch_business(node);
            }
        }
    }

    fn deliver(&mut self, Delivery { host, local, remote, sender, addressed, payload, .. }: Delivery) {
        if self.stun.iter().any(|(server, _)| *server == host) {
            if let Some(answer) = stun::answer(&payload, remote).filter(|_| local.port() == stun::PORT) {
                let from = (Some(local.ip()), local.port());
                self.network.send(host, from, remote, &answer, self.now);
            }
            return;
        }
        let Some(node) = self.node_at(host).filter(|_| local.port() == PORT) else { return };
        if let Some(sender) = self.node_at(sender) {
            self.check_addressee(sender, node, addressed);
        }
        self.trace.note_datagram(self.now, || {
            format!("node {node} gets {} bytes from {remote} at {local}", payload.len())
        });
        self.input(node, Input::Datagram { local, remote, bytes: &payload });
    }

    fn check_addressee(&mut self, sender: usize, node: usize, addressed: SocketAddr) {
        let Node { map, left_map, claims, .. } = &self.nodes[sender];
        let is_current =
            map.contains(&node) || left_map.get(&node).is_some_and(|at| self.now < *at + UNDER_WAY);
        // Two homes may use the same address: it may have been meant for somebody else.
        let is_claimed = claims.iter().any(|(peer, claimed)| *claimed == addressed && map.contains(peer));
        if node != sender && !is_current && !is_claimed {
            self.violate(|| {
                format!("node {sender} sends to node {node}, at {addressed}, which is not its peer")
            });
        }
    }

    fn signal(&mut self, Letter { from, to, signal }: Letter) {
        let (Some(from), Some(to)) = (self.node_at(from), self.node_at(to)) else { return };
        if !self.network.is_online(self.nodes[to].host) {
            return;
        }
        self.note(|| {
            let Signal { epoch, seq, answers, candidates, relays, .. } = &signal;
            let at: Vec<_> = candidates.iter().map(|candidate| candidate.address).collect();
            format!("node {to} hears node {from}: {epoch:x}/{seq} answers {answers:x?}, {at:?}, {relays:?}")
        });
        let claims = signal.candidates.iter().map(|candidate| (from, candidate.address));
        self.nodes[to].claims.extend(claims);
        let from = self.nodes[from].member.key;
        self.input(to, Input::Signal { from, signal });
    }

    fn control(&mut self, due: Due) {
        let (Due::Push(node) | Due::Report(node)) = due;
        let host = self.nodes[node].host;
        if !self.control.up || !self.network.is_online(host) || self.nodes[node].suspended {
            return self.control.later(due, self.now);
        }
        if let Due::Report(_) = due {
            let addresses = self.network.addresses(host).iter();
            let honest = addresses.map(|(_, address)| SocketAddr::new(*address, PORT));
            let endpoints = honest.chain(self.lies(node)).collect();
            return self.control.report(node, endpoints, self.now);
        }
        let peers: BTreeSet<usize> =
            (0..self.nodes()).filter(|peer| self.control.are_peers(node, *peer)).collect();
        self.note(|| format!("node {node} gets a map with {peers:?}"));
        let members = peers.iter().map(|peer| {
            let endpoints = self.control.endpoints(*peer).to_vec();
            Member { endpoints, ..self.nodes[*peer].member.clone() }
        });
        let members: Vec<Member> = members.collect();
        let told = &mut self.nodes[node];
        for peer in told.map.difference(&peers) {
            told.left_map.insert(*peer, self.now);
        }
        let claims = peers.iter().zip(&members);
        let claims = claims.flat_map(|(peer, member)| member.endpoints.iter().map(|at| (*peer, *at)));
        told.claims.extend(claims);
        told.map = peers;
        self.input(node, Input::Map(&members));
    }

    /// What a node says that is not true.
    fn lies(&self, node: usize) -> impl Iterator<Item = SocketAddr> {
        let lies = if self.nodes[node].lies { forbidden::LIES.as_slice() } else { &[] };
        lies.iter().filter_map(|lie| lie.parse().ok())
    }

    fn input(&mut self, node: usize, input: Input<'_>) {
        if self.nodes[node].suspended {
            return;
        }
        let mut effects = Vec::new();
        self.nodes[node].device.handle(input, self.now, &mut effects);
        effects.into_iter().for_each(|effect| self.effect(node, effect));
        if self.trace.is_on() {
            self.note_paths(node);
        }
    }

    fn note_paths(&mut self, node: usize) {
        for peer in 0..self.nodes.len() {
            let path = self.nodes[node].device.path(&self.nodes[peer].member.key);
            if self.nodes[node].traced.insert(peer, path) != Some(path) {
                let path = match path {
                    Some(Path::Direct { remote, local }) => format!("at {remote} from {local:?}"),
                    Some(Path::Relay { relay, .. }) => format!("by relay {relay}"),
                    None => "nowhere".to_owned(),
                };
                self.note(|| format!("node {node} sends to node {peer} {path}"));
            }
        }
    }

    fn effect(&mut self, node: usize, effect: Effect) {
        let host = self.nodes[node].host;
        match effect {
            Effect::Datagram { local, remote, bytes } => {
                self.nodes[node].sent += 1;
                if let Some(why) = forbidden::why(remote) {
                    self.violate(|| format!("node {node} sends to {remote}: {why}"));
                }
                self.network.send(host, (local, PORT), remote, &bytes, self.now);
            }
            Effect::Relayed { relay, to, bytes } => {
                self.nodes[node].sent += 1;
                let peer = self.nodes.iter().position(|peer| peer.member.key == to);
                let Some(peer) = peer.filter(|peer| self.nodes[node].map.contains(peer)) else {
                    return self.violate(|| format!("node {node} sends by a relay to what is not its peer"));
                };
                self.relays.forward(relay, host, self.nodes[peer].host, bytes, self.now);
            }
            Effect::Signal { to, mut signal } => {
                let peer = self.nodes.iter().position(|peer| peer.member.key == to);
                let Some(peer) = peer.filter(|peer| self.nodes[node].map.contains(peer)) else {
                    return self.violate(|| format!("node {node} signals to what is not its peer"));
                };
                let kind = lattice_wire::signal::CandidateKind::Host;
                let lies = self.lies(node).map(|address| lattice_wire::signal::Candidate { kind, address });
                signal.candidates = lies.chain(signal.candidates).collect();
                if self.network.is_online(host) {
                    let letter = Letter { from: host, to: self.nodes[peer].host, signal };
                    self.signalling.send(letter, self.now);
                }
            }
            Effect::Packet(packet) => {
                if let Err(violation) = self.ledger.deliver(node, &packet, self.now) {
                    self.violate(|| violation);
                }
            }
        }
    }

    fn watch_business(&mut self, node: usize) {
        let (at, count) = &mut self.nodes[node].busy;
        *count = if *at == Some(self.now) { *count + 1 } else { 0 };
        *at = Some(self.now);
        if *count > BUSY {
            self.violate(|| format!("node {node} asks for the same moment again and again"));
        }
    }

    fn node_at(&self, host: HostId) -> Option<usize> {
        self.nodes.iter().position(|node| node.host == host)
    }

    fn violate(&mut self, what: impl FnOnce() -> String) {
        let what = what();
        self.note(|| format!("VIOLATION: {what}"));
        self.violation.get_or_insert(what);
    }
}
