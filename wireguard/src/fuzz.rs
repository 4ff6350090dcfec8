//! What hostile packets and datagrams must not do to an interface. For the fuzzer alone.

use std::{cell::RefCell, net::SocketAddr, time::Instant};

use lattice_wire::WgPrivateKey;

use crate::{Interface, Output, Path, PeerConfig, Single, ip, message::Message, unreachable};

const MTU: u16 = 1420;
const AT_A: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 51820);
const AT_B: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)), 51820);
/// A stranger's address.
const ELSEWHERE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1)), 7);

thread_local! {
    /// Two with a session. Time stands still for them, so that it does not end.
    static PAIR: RefCell<Option<(Node, Node)>> = const { RefCell::new(None) };
}

/// A datagram from anybody to an interface that has one peer. Says whether it was answered.
pub fn datagram(bytes: &[u8]) -> bool {
    let mut b = Node::new(2);
    b.peer_with(1, "10.42.0.1/32", AT_A);
    b.sink = Sink::default();
    b.receive(AT_A, bytes);
    assert!(b.sink.delivered.is_empty(), "a stranger's datagram reached the agent");
    let answered: usize = b.sink.sent.iter().map(|(_, datagram)| datagram.len()).sum();
    assert!(answered <= bytes.len(), "{answered} bytes answer {}: an amplifier", bytes.len());
    assert!(b.sink.sent.iter().all(|(to, _)| *to == AT_A), "the answer goes to somebody else");
    answered > 0
}

/// A packet for a peer with which there is a session. Says whether it arrived.
pub fn packet(bytes: &[u8]) -> bool {
    let header = ip::parse(bytes);
    if let Some(header) = header {
        assert!(header.len <= bytes.len());
        refusal(&bytes[..header.len], header);
    }
    PAIR.with_borrow_mut(|pair| {
        let (a, b) = pair.get_or_insert_with(connected);
        (a.sink, b.sink) = (Sink::default(), Sink::default());
        a.interface.handle_packets(&mut Single::new(bytes), a.now, &mut a.sink);
        for (to, datagram) in std::mem::take(&mut a.sink.sent) {
            assert_eq!(to, AT_B);
            b.receive(AT_A, &datagram);
        }
        let Some(arrived) = b.sink.delivered.first() else { return false };
        let header = header.expect("what is no IP packet arrived");
        assert_eq!(b.sink.delivered.len(), 1);
        assert_eq!(arrived.as_slice(), &bytes[..header.len]);
        assert_eq!((header.source, header.destination), ([10, 42, 0, 1].into(), [10, 42, 0, 2].into()));
        true
    })
}

/// A datagram for a session or handshake that there is: the index in it is replaced. Says whether it has the form of a
/// message.
pub fn session(bytes: &[u8]) -> bool {
    PAIR.with_borrow_mut(|pair| {
        let (_, b) = pair.get_or_insert_with(connected);
        let mut datagram = bytes.to_vec();
        let at = match Message::parse(bytes) {
            None => None,
            Some(Message::Response(_)) => Some(8),
            Some(_) => Some(4),
        };
        b.sink = Sink::default();
        for index in b.interface.indices() {
            if let Some(at) = at {
                datagram[at..at + 4].copy_from_slice(&index.to_le_bytes());
            }
            let (before, indices) =
                (b.interface.peers().next().map(crate::Peer::path), b.interface.indices());
            b.receive(ELSEWHERE, &datagram);
            assert!(b.sink.delivered.is_empty(), "a stranger's datagram reached the agent");
            assert_eq!(
                b.interface.peers().next().map(crate::Peer::path),
                before,
                "a stranger moved the peer"
            );
            assert_eq!(b.interface.indices(), indices, "a stranger ended or began a session");
        }
        at.is_some()
    })
}

/// What an agent is told of a packet that nobody takes.
fn refusal(packet: &[u8], header: ip::Header) {
    let Some(reply) = unreachable::reply_to(packet) else { return };
    let answer = ip::parse(&reply).expect("the error is an IP packet");
    assert_eq!(
        (answer.source, answer.destination, answer.len),
        (header.destination, header.source, reply.len())
    );
    assert!(reply.len() <= packet.len() + 48);
    assert_eq!(unreachable::reply_to(&reply), None, "an error answers an error");
}

fn connected() -> (Node, Node) {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    b.peer_with(1, "10.42.0.1/32", AT_A);
    a.peer_with(2, "10.42.0.2/32", AT_B);
    let mut first = [0; 20];
    first[..4].copy_from_slice(&[0x45, 0, 0, 20]);
    first[12..].copy_from_slice(&[10, 42, 0, 1, 10, 42, 0, 2]);
    a.interface.handle_packets(&mut Single::new(&first), a.now, &mut a.sink);
    while !(a.sink.sent.is_empty() && b.sink.sent.is_empty()) {
        std::mem::take(&mut a.sink.sent).iter().for_each(|(_, datagram)| b.receive(AT_A, datagram));
        std::mem::take(&mut b.sink.sent).iter().for_each(|(_, datagram)| a.receive(AT_B, datagram));
    }
    assert_eq!(b.sink.delivered, [first], "there is no session");
    (a, b)
}

/// Keeps what an interface puts out.
#[derive(Default)]
struct Sink {
    sent: Vec<(SocketAddr, Vec<u8>)>,
    delivered: Vec<Vec<u8>>,
}

impl Output for Sink {
    fn transmit(&mut self, path: Path, len: usize, write: impl FnOnce(&mut [u8])) {
        let mut datagram = vec![0; len];
        write(&mut datagram);
        self.sent.extend(path.remote().map(|remote| (remote, datagram)));
    }
    fn deliver(&mut self, packet: &mut [u8]) {
        self.delivered.push(packet.to_vec());
    }
}

struct Node {
    interface: Interface,
    now: Instant,
    sink: Sink,
}

impl Node {
    fn new(number: u8) -> Self {
        let now = Instant::now();
        Self { interface: Interface::new(&key(number), MTU, now), now, sink: Sink::default() }
    }

    fn peer_with(&mut self, number: u8, allowed: &str, at: SocketAddr) {
        let peer = PeerConfig {
            public_key: key(number).public(),
            allowed_ips: vec![allowed.parse().expect("a network")],
            endpoints: vec![at],
            keepalive: None,
        };
        self.interface.set_peers(&[peer], self.now, &mut self.sink);
    }

    fn receive(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.interface.handle_datagram(Path::to(from), &mut datagram.to_vec(), self.now, &mut self.sink);
    }
}

fn key(number: u8) -> WgPrivateKey {
    WgPrivateKey::from_random([number; 32])
}
