//! A day in which nobody says anything: two nodes of WireGuard with a TCP/IP stack each, as in pod mode, in virtual time. What wakes them is
//! counted, because it is what idleness costs.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use lattice_netstack::{Config, Error, Event, FlowId, Limits, Run, Stack};
use lattice_simulation::Random;
use lattice_wire::WgPrivateKey;
use lattice_wireguard::{Interface, Output, Path, PeerConfig, Single, Sources};

const DAY: Duration = Duration::from_secs(24 * 3600);
const DELAY: Duration = Duration::from_millis(20);
const MTU: u16 = 1420;
const PORT: u16 = 80;

struct Node {
    interface: Interface,
    stack: Stack,
    elapsed: Arc<AtomicU64>,
    /// How often time alone has woken it.
    wakes: u64,
}

/// What an interface puts out.
#[derive(Default)]
struct Out {
    datagrams: Vec<Vec<u8>>,
    packets: Vec<Vec<u8>>,
}

struct World {
    start: Instant,
    now: Instant,
    nodes: [Node; 2],
    under_way: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    sent: u64,
}

fn inner(end: usize) -> IpAddr {
    [10, 42, 0, end as u8 + 1].into()
}

fn outer(end: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, end as u8 + 1], 51820))
}

fn key(end: usize) -> WgPrivateKey {
    WgPrivateKey::from_random([end as u8 + 1; 32])
}

struct Seeded(Random);

impl lattice_wireguard::Random for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}

impl Output for Out {
    fn transmit(&mut self, _: Path, len: usize, write: impl FnOnce(&mut [u8])) {
        let mut bytes = vec![0; len];
        write(&mut bytes);
        self.datagrams.push(bytes);
    }

    fn deliver(&mut self, packet: &mut [u8]) {
        self.packets.push(packet.to_vec());
    }
}

/// Collects what a stack sends.
fn collect(packets: &mut Vec<Vec<u8>>) -> impl FnMut(&mut Run<'_>) {
    |run| {
        while let Some(len) = run.next_len() {
            let mut packet = vec![0; len];
            run.write(&mut packet);
            packets.push(packet);
        }
    }
}

impl Node {
    fn new(end: usize, keepalive: Option<u16>, now: Instant) -> Self {
        let elapsed = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&elapsed);
        let mut random = Random::new(end as u64 + 1);
        let sources = Sources {
            random: Box::new(Seeded(random.split())),
            wall_clock: Box::new(move || {
                SystemTime::UNIX_EPOCH + Duration::from_nanos(clock.load(Ordering::Relaxed))
            }),
        };
        let mut interface = Interface::with_sources(&key(end), MTU, now, sources);
        let peer = PeerConfig {
            public_key: key(1 - end).public(),
            allowed_ips: vec![inner(1 - end).into()],
            endpoints: vec![outer(1 - end)],
            keepalive,
        };
        interface.set_peers(&[peer], now, &mut Out::default());
        let random = Box::new(move |bytes: &mut [u8]| random.fill(bytes));
        let config = Config { addresses: vec![inner(end)], mtu: MTU, limits: Limits::default(), random };
        let mut stack = Stack::new(config, now).expect("the addresses are of hosts");
        stack.listen(PORT);
        Self { interface, stack, elapsed, wakes: 0 }
    }

    fn due(&self) -> Option<Instant> {
        self.interface.poll_timeout().into_iter().chain(self.stack.poll_at()).min()
    }

    /// One turn, with a datagram or for the sake of time; returns what it sends.
    fn turn(&mut self, end: usize, datagram: Option<Vec<u8>>, now: Instant) -> Vec<Vec<u8>> {
        let (mut out, mut packets) = (Out::default(), Vec::new());
        if let Some(mut datagram) = datagram {
            self.interface.handle_datagram(Path::to(outer(1 - end)), &mut datagram, now, &mut out);
        }
        self.interface.handle_timeout(now, &mut out);
        for mut packet in out.packets.drain(..) {
            self.stack.receive(now, &mut packet, &mut collect(&mut packets));
        }
        self.stack.poll(now, &mut collect(&mut packets));
        for packet in packets {
            self.interface.handle_packets(&mut Single::new(&packet), now, &mut out);
        }
        out.datagrams
    }
}

impl World {
    fn new(keepalive: Option<u16>) -> Self {
        let start = Instant::now();
        let nodes = [0, 1].map(|end| Node::new(end, keepalive, start));
        Self { start, now: start, nodes, under_way: BTreeMap::new(), sent: 0 }
    }

    fn turn(&mut self, end: usize, datagram: Option<Vec<u8>>) {
        let node = &mut self.nodes[end];
        node.elapsed.store((self.now - self.start).as_nanos() as u64, Ordering::Relaxed);
        for datagram in node.turn(end, datagram, self.now) {
            self.sent += 1;
            self.under_way.insert((self.now + DELAY, self.sent), (1 - end, datagram));
        }
    }

    /// Lets time pass, from one thing that happens to the next.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        // What the nodes' owners have done before.
        for end in [0, 1] {
            self.turn(end, None);
        }
        loop {
            let arrival = self.under_way.first_key_value().map(|(key, _)| key.0);
            let next = self.nodes.iter().filter_map(Node::due).chain(arrival).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let (_, (to, datagram)) = self.under_way.pop_first().expect("one is under way");
                self.turn(to, Some(datagram));
            } else {
                let end = usize::from(self.nodes[0].due().is_none_or(|at| at > next));
                self.nodes[end].wakes += 1;
                self.turn(end, None);
            }
        }
        self.now = until;
    }

    /// A connection from the first to the second, over which both have said something.
    fn talk(&mut self) -> [FlowId; 2] {
        let a =
            self.nodes[0].stack.connect(self.now, SocketAddr::new(inner(1), PORT)).expect("there is room");
        self.pass(Duration::from_secs(1));
        let incoming =
            std::iter::from_fn(|| self.nodes[1].stack.poll_event()).find_map(|event| match event {
                Event::Incoming { id, .. } => Some(id),
                _ => None,
            });
        let (now, mut packets) = (self.now, Vec::new());
        let Node { stack, .. } = &mut self.nodes[1];
        let b = stack
            .accept(now, incoming.expect("somebody asks"), &mut collect(&mut packets))
            .expect("it waits");
        assert_eq!(packets, Vec::<Vec<u8>>::new());
        self.pass(Duration::from_secs(1));
        self.exchange([a, b]);
        [a, b]
    }

    fn exchange(&mut self, flows: [FlowId; 2]) {
        for (from, to) in [(0, 1), (1, 0)] {
            assert_eq!(self.nodes[from].stack.send(self.now, flows[from], b"hello"), Ok(5));
            self.pass(Duration::from_secs(1));
            let mut heard = [0; 8];
            assert_eq!(self.nodes[to].stack.recv(flows[to], &mut heard), Ok(5));
        }
    }

    /// How often each node wakes in a day, and how many datagrams both send.
    fn day(&mut self) -> ([u64; 2], u64) {
        let before = (self.nodes.each_ref().map(|node| node.wakes), self.sent);
        self.pass(DAY);
        let wakes = [0, 1].map(|end| self.nodes[end].wakes - before.0[end]);
        (wakes, self.sent - before.1)
    }
}

fn times(every: u64) -> u64 {
    DAY.as_secs().div_ceil(every)
}

#[test]
fn nodes_that_have_nothing_to_say_sleep_all_day() {
    let mut world = World::new(None);
    let [a, b] = world.talk();
    for (end, flow) in [(0, a), (1, b)] {
        world.nodes[end].stack.close(world.now, flow);
    }
    // Until the last secret is forgotten.
    world.pass(Duration::from_secs(1800));
    assert_eq!(world.nodes.each_ref().map(Node::due), [None; 2]);
    assert_eq!(world.day(), ([0; 2], 0));
}

/// A connection asks every five minutes whether its peer is there; each time that takes a new session, which is forgotten nine minutes later.
#[test]
fn an_idle_connection_wakes_nobody_but_for_its_own_keepalive_and_lives() {
    let mut world = World::new(None);
    let flows = world.talk();
    let (wakes, sent) = world.day();
    let asked = times(300);
    assert!(wakes.iter().all(|wakes| *wakes <= 4 * asked + 8), "{wakes:?} of {asked}");
    assert!(sent <= 10 * asked + 16, "{sent} of {asked}");
    world.exchange(flows);
    assert!(matches!(world.nodes[0].stack.recv(flows[0], &mut [0]), Err(Error::WouldBlock)));
}

#[test]
fn a_keepalive_wakes_as_often_as_it_is_sent() {
    const SECONDS: u16 = 25;
    let mut world = World::new(Some(SECONDS));
    let flows = world.talk();
    let (wakes, sent) = world.day();
    let asked = times(SECONDS.into());
    assert!(wakes.iter().all(|wakes| *wakes <= asked + asked / 2), "{wakes:?} of {asked}");
    assert!(sent >= asked && sent <= 2 * asked, "{sent} of {asked}");
    world.exchange(flows);
}
