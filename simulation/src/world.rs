//! Nodes, the network between them and the services around them, run in virtual time; and what must hold at every moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use lattice_wire::{WgPrivateKey, WgPublicKey};
use lattice_wireguard::Path;

use crate::{
    Control, Device, HostId, Input, Ledger, Member, Network, Random, Relays, Signalling, stun, trace::Trace,
};

mod events;

/// After a peer is gone from a node's map, what was under way may still arrive for so long.
const UNDER_WAY: Duration = Duration::from_secs(3);
/// A device that asks for the same instant again this often will do so for ever.
const BUSY: u32 = 200;

/// Who a node is.
#[derive(Debug)]
pub struct Identity {
    /// Its number.
    pub node: usize,
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
        let overlay = Ipv4Addr::new(10, 42, 0, node as u8 + 1);
        let member = Member { key: private_key.public(), overlay, endpoints: Vec::new() };
        let stun = self.stun.iter().map(|(_, address)| *address).collect();
        let identity = Identity { node, private_key, overlay, stun, random: self.random.split() };
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
            // A client that runs again finds out what became of its connections meanwhile.
            for relay in 0..self.relays.count() {
                let round_trip = self.relays.round_trip(self.nodes[node].host, relay);
                self.input(node, Input::Relay { relay, round_trip });
            }
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
}
