use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use super::*;
use crate::{PeerConfig, Random, Single};
use ipnet::IpNet;

mod admission;
mod channel;
mod exchange;
mod hostile;
mod idle;
mod paths;
mod resume;
mod retransmit;
mod timers;

/// Randomness that can be repeated: BLAKE2s of a seed and a number.
struct Seeded {
    seed: Arc<AtomicU64>,
    count: u64,
}

impl Random for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        let seed = self.seed.load(Ordering::Relaxed).to_le_bytes();
        for chunk in bytes.chunks_mut(32) {
            self.count += 1;
            chunk.copy_from_slice(&crate::kdf::hash(&[&seed, &self.count.to_le_bytes()])[..chunk.len()]);
        }
    }
}

/// Keeps what an interface puts out.
#[derive(Default)]
struct Sink {
    sent: VecDeque<(SocketAddr, Vec<u8>)>,
    /// The address that the last one was to leave by.
    sent_from: Option<IpAddr>,
    delivered: Vec<Vec<u8>>,
}

impl Output for Sink {
    fn transmit(&mut self, path: Path, len: usize, write: impl FnOnce(&mut [u8])) {
        // As of a batch that was used before.
        let mut datagram = vec![0xa5; len];
        write(&mut datagram);
        let Path::Direct { remote, local } = path else { panic!("no relay") };
        self.sent.push_back((remote, datagram));
        self.sent_from = local;
    }
    fn deliver(&mut self, packet: &mut [u8]) {
        self.delivered.push(packet.to_vec());
    }
}

struct Node {
    interface: Interface,
    key: WgPrivateKey,
    at: SocketAddr,
    start: Instant,
    now: Instant,
    /// The time of day, as far as the interface is told: milliseconds since `start`.
    wall: Arc<AtomicU64>,
    seed: Arc<AtomicU64>,
    sink: Sink,
}

impl Node {
    fn new(number: u8) -> Self {
        Self::at(number, Instant::now())
    }

    fn at(number: u8, now: Instant) -> Self {
        let key = WgPrivateKey::from_random([number; 32]);
        let at = SocketAddr::from(([192, 0, 2, number], 51820));
        let (wall, seed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(number.into())));
        let clock = Arc::clone(&wall);
        let sources = Sources {
            random: Box::new(Seeded { seed: Arc::clone(&seed), count: 0 }),
            wall_clock: Box::new(move || {
                UNIX_EPOCH
                    + Duration::from_secs(1 << 30)
                    + Duration::from_millis(clock.load(Ordering::Relaxed))
            }),
        };
        let interface = Interface::with_sources(&key, 1420, now, sources);
        Self { interface, key, at, start: now, now, wall, seed, sink: Sink::default() }
    }

    fn tell_time(&self) {
        self.wall.store((self.now - self.start).as_millis() as u64, Ordering::Relaxed);
    }

    fn set_peers(&mut self, peers: &[PeerConfig]) {
        self.tell_time();
        self.interface.set_peers(peers, self.now, &mut self.sink);
    }

    fn send(&mut self, packet: &[u8]) {
        self.tell_time();
        self.interface.handle_packets(&mut Single::new(packet), self.now, &mut self.sink);
    }

    fn receive(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.tell_time();
        let path = Path::Direct { remote: from, local: Some(self.at.ip()) };
        self.interface.handle_datagram(path, &mut datagram.to_vec(), self.now, &mut self.sink);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.tell_time();
        self.interface.handle_timeout(self.now, &mut self.sink);
    }

    /// The kinds of what it sent.
    fn kinds(&mut self) -> Vec<u8> {
        self.sink.sent.drain(..).map(|(_, datagram)| datagram[0]).collect()
    }

    fn peer(&self) -> &Peer {
        self.interface.peers().next().expect("there is a peer")
    }

    fn config(&self, allowed: &str) -> PeerConfig {
        PeerConfig {
            public_key: self.key.public(),
            allowed_ips: vec![allowed.parse::<IpNet>().unwrap()],
            endpoints: vec![self.at],
            keepalive: None,
        }
    }
}

/// Carries datagrams between the two until neither has any left; those to other addresses are lost.
fn exchange(a: &mut Node, b: &mut Node) {
    loop {
        let (from, to, (at, datagram)) = match (a.sink.sent.pop_front(), b.sink.sent.pop_front()) {
            (None, None) => return,
            (Some(sent), later) => {
                b.sink.sent.extend(later);
                (a.at, &mut *b, sent)
            }
            (None, Some(sent)) => (b.at, &mut *a, sent),
        };
        if at == to.at {
            to.receive(from, &datagram);
        }
    }
}

fn pair() -> (Node, Node) {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    a.set_peers(&[b.config("10.42.0.2/32")]);
    b.set_peers(&[a.config("10.42.0.1/32")]);
    (a, b)
}

fn packet(from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + payload.len()).unwrap();
    let mut packet = vec![0x45, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(from);
    packet.extend(to);
    packet.extend(payload);
    packet
}

const A: [u8; 4] = [10, 42, 0, 1];
const B: [u8; 4] = [10, 42, 0, 2];
