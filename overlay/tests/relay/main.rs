//! Relay clients against a relay, in anonymous network namespaces. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy knows only functions marked #[test] as tests"
)]

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use lattice_overlay::{
    Netns,
    relay::{RelayClient, RelayClientConfig, RelayState, Transport, Why},
};
use lattice_relay::{Config, Identity, Metrics, Relay};
use lattice_wire::{
    RelayClaims, RelayServer, WgPublicKey, WorkspaceId,
    lrp::{self, Reason},
    relay_token::{TrustedKeys, issue},
};
use nkeys::KeyPair;
use tokio::runtime::Runtime;

mod loss;
mod uplink;

/// Far beyond what anything takes: only a hang reaches it.
const HANGS: Duration = Duration::from_secs(90);

/// A relay that can be restarted with the same key, in a namespace of its own thread or in this one.
struct TestRelay {
    runtime: Runtime,
    relay: Option<Relay>,
    dir: tempfile::TempDir,
    issuer: KeyPair,
    server: RelayServer,
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

impl TestRelay {
    /// On loopback, with both transports.
    fn start() -> Self {
        Self::in_netns(&Netns::current().unwrap(), Ipv4Addr::LOCALHOST)
    }

    fn in_netns(netns: &Netns, address: Ipv4Addr) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = RelayServer {
            name: "here".into(),
            quic: Some(SocketAddr::from((address, 0)).to_string()),
            tcp: Some(SocketAddr::from((address, 0)).to_string()),
            fingerprint: Identity::load(dir.path()).unwrap().fingerprint().to_string(),
        };
        let mut relay = Self { runtime: runtime(), relay: None, dir, issuer: KeyPair::new_account(), server };
        relay.run(netns);
        relay
    }

    /// Listens again, where it did before.
    fn run(&mut self, netns: &Netns) {
        let trusted = TrustedKeys::new([self.issuer.public_key().as_str()]).unwrap();
        let address = |text: &Option<String>| text.as_ref().map(|text| text.parse().unwrap());
        let config = Config {
            quic: address(&self.server.quic),
            tcp: address(&self.server.tcp),
            ..Config::new(trusted)
        };
        let start = || {
            let _context = self.runtime.enter();
            let identity = Identity::load(self.dir.path()).unwrap();
            Relay::start(config.clone(), identity, Arc::new(Metrics::default()))
        };
        let begun = Instant::now();
        let relay = loop {
            match netns.run(start).unwrap() {
                Ok(relay) => break relay,
                // The socket of the one before is closed soon after its last connection.
                Err(error) => assert!(begun.elapsed() < HANGS, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        self.server.quic =
            self.server.quic.take().and(relay.quic_address()).map(|address| address.to_string());
        self.server.tcp = self.server.tcp.take().and(relay.tcp_address()).map(|address| address.to_string());
        self.relay = Some(relay);
    }

    fn stop(&mut self) {
        self.runtime.block_on(self.relay.take().unwrap().drain(HANGS));
    }
}

struct Peer {
    client: RelayClient,
    address: WgPublicKey,
    _runtime: Runtime,
}

impl Peer {
    fn start(relay: &TestRelay, address: u8) -> Self {
        Self::with(relay, address, &Arc::new(Netns::current().unwrap()), |_| {})
    }

    fn with(
        relay: &TestRelay,
        address: u8,
        underlay: &Arc<Netns>,
        change: impl FnOnce(&mut RelayClientConfig),
    ) -> Self {
        let (key, runtime) = (KeyPair::new_user(), runtime());
        let address = WgPublicKey([address; 32]);
        let claims = RelayClaims {
            workspace: WorkspaceId::from_random([1; 10]),
            wireguard: address,
            nats: key.public_key(),
            not_after: SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 + 3600,
        };
        let mut config = RelayClientConfig {
            server: relay.server.clone(),
            number: 0,
            key: Arc::new(key),
            token: Some(issue(&claims, &relay.issuer).unwrap()),
            underlay: Arc::clone(underlay),
        };
        change(&mut config);
        let client = RelayClient::start(config, runtime.handle()).unwrap();
        Self { client, address, _runtime: runtime }
    }

    fn until(&self, holds: impl Fn(&RelayState) -> bool) -> RelayState {
        let begun = Instant::now();
        loop {
            let state = self.client.state();
            if holds(&state) {
                return state;
            }
            assert!(begun.elapsed() < HANGS, "{state:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn up(self) -> Self {
        self.until(|state| matches!(state, RelayState::Up { .. }));
        self
    }

    fn transport(&self) -> Option<Transport> {
        match self.client.state() {
            RelayState::Up { transport, .. } => Some(transport),
            _ => None,
        }
    }

    /// What comes, by the bell.
    fn receive(&self, patience: Duration) -> Option<(WgPublicKey, Vec<u8>)> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let mut buffer = [0; 2048];
        let until = Instant::now() + patience;
        loop {
            if let Some((peer, length)) = self.client.receive(&mut buffer) {
                return Some((peer, buffer[..length].to_vec()));
            }
            let left = until.checked_duration_since(Instant::now())?;
            let mut bell = [PollFd::new(self.client.bell(), PollFlags::POLLIN)];
            poll(&mut bell, PollTimeout::try_from(left).unwrap()).unwrap();
        }
    }

    /// Sends until it arrives, as WireGuard would.
    fn reaches(&self, other: &Peer, datagram: &[u8]) {
        let begun = Instant::now();
        loop {
            self.client.send(&other.address, datagram.len(), |body| body.copy_from_slice(datagram));
            match other.receive(Duration::from_millis(200)) {
                Some((from, body)) if body == datagram => {
                    assert_eq!(from, self.address);
                    return;
                }
                _ => assert!(begun.elapsed() < HANGS, "{:?} {:?}", self.client, other.client),
            }
        }
    }
}

const FULL: [u8; lrp::FULL_SIZE] = [0x5a; lrp::FULL_SIZE];

#[test]
fn two_clients_reach_each_other_by_every_pair_of_transports() {
    for (a_quic, b_quic) in [(true, true), (true, false), (false, true), (false, false)] {
        let relay = TestRelay::start();
        let start = |address, quic| {
            let underlay = Arc::new(Netns::current().unwrap());
            let change = |config: &mut RelayClientConfig| match quic {
                true => config.server.tcp = None,
                false => config.server.quic = None,
            };
            Peer::with(&relay, address, &underlay, change).up()
        };
        let (a, b) = (start(1, a_quic), start(2, b_quic));
        let transport = |quic| Some(if quic { Transport::Quic } else { Transport::Tcp });
        assert_eq!((a.transport(), b.transport()), (transport(a_quic), transport(b_quic)));
        // The very first datagram arrives: it waits for its route.
        assert!(a.client.send(&b.address, FULL.len(), |body| body.copy_from_slice(&FULL)));
        assert_eq!(b.receive(HANGS), Some((a.address, FULL.to_vec())));
        b.reaches(&a, b"back");
        let drops = (a.client.drops(), b.client.drops());
        assert_eq!((drops.0.sent, drops.0.unknown, drops.1.sent, drops.1.unknown), (0, 0, 0, 0), "{drops:?}");
        for peer in [&a, &b] {
            peer.until(|state| matches!(state, RelayState::Up { rtt, .. } if !rtt.is_zero()));
        }
    }
}

#[test]
fn quic_is_preferred_and_tcp_taken_where_udp_goes_nowhere() {
    let relay = TestRelay::start();
    assert_eq!(Peer::start(&relay, 1).up().transport(), Some(Transport::Quic));
    let silent = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let blocked = Peer::with(&relay, 2, &Arc::new(Netns::current().unwrap()), |config| {
        config.server.quic = Some(silent.local_addr().unwrap().to_string());
    });
    assert_eq!(blocked.up().transport(), Some(Transport::Tcp));
}

#[test]
fn clients_come_back_to_a_relay_that_was_restarted() {
    // Nobody else takes its ports meanwhile.
    let alone = Arc::new(Netns::create().unwrap());
    alone.run(|| ip("link set lo up")).unwrap();
    let mut relay = TestRelay::in_netns(&alone, Ipv4Addr::LOCALHOST);
    let start = |address| Peer::with(&relay, address, &alone, |_| {}).up();
    let (a, b) = (start(1), start(2));
    a.reaches(&b, b"before");
    relay.stop();
    a.until(|state| !matches!(state, RelayState::Up { .. }));
    let dropped = a.client.drops().sent;
    assert!(!a.client.send(&b.address, 1, |_| {}), "it is not connected");
    assert_eq!(a.client.drops().sent, dropped + 1);
    relay.run(&alone);
    // Both ask for nothing by themselves: the routes of before are asked for again.
    a.reaches(&b, b"after");
    b.reaches(&a, b"and back");
}

#[test]
fn what_is_larger_than_a_quic_path_goes_by_tcp() {
    let relay = TestRelay::start();
    let (a, b) = (Peer::start(&relay, 1).up(), Peer::start(&relay, 2).up());
    assert_eq!(a.transport(), Some(Transport::Quic));
    a.reaches(&b, &[1; lrp::MAX_DATAGRAM]);
    assert_eq!((a.transport(), b.transport()), (Some(Transport::Tcp), Some(Transport::Tcp)));
}

#[test]
fn who_answers_with_another_key_is_not_talked_to() {
    let relay = TestRelay::start();
    let peer = Peer::with(&relay, 1, &Arc::new(Netns::current().unwrap()), |config| {
        config.server.fingerprint = Identity::generate().unwrap().fingerprint().to_string();
    });
    peer.until(|state| *state == RelayState::Down(Why::Fingerprint));
}

#[test]
fn a_token_that_comes_later_is_used_at_once() {
    let relay = TestRelay::start();
    let mut later = None;
    let peer =
        Peer::with(&relay, 1, &Arc::new(Netns::current().unwrap()), |config| later = config.token.take());
    peer.until(|state| *state == RelayState::Down(Why::NoToken));
    peer.client.set_token("lr-none.at-all".into());
    peer.until(|state| *state == RelayState::Down(Why::Refused(Reason::Token)));
    peer.client.set_token(later.unwrap());
    peer.up();
}

#[test]
fn a_sender_that_is_faster_than_the_relay_is_bounded_and_counted() {
    let relay = TestRelay::start();
    let (a, b) = (Peer::start(&relay, 1).up(), Peer::start(&relay, 2).up());
    a.reaches(&b, b"first");
    let begun = Instant::now();
    while a.client.drops().sent == 0 {
        assert!(begun.elapsed() < HANGS, "the queue has no bound");
        for _ in 0..1000 {
            a.client.send(&b.address, FULL.len(), |body| body.copy_from_slice(&FULL));
        }
    }
    while b.receive(Duration::from_millis(300)).is_some() {}
    a.reaches(&b, b"and on");
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// Two namespaces and a link between them that carries packets of `mtu` bytes. The link goes with them.
fn narrow(mtu: u16) -> (Arc<Netns>, Arc<Netns>) {
    let (here, there) = (Netns::create().unwrap(), Netns::create().unwrap());
    let there_path = there.path();
    here.run(|| {
        ip("link add v0 type veth peer name v1");
        let moved = Command::new("ip")
            .args(["link", "set", "v1", "netns", there_path.to_str().unwrap()])
            .status()
            .unwrap();
        assert!(moved.success());
    })
    .unwrap();
    for (netns, link, address) in [(&here, "v0", "192.0.2.1/24"), (&there, "v1", "192.0.2.2/24")] {
        netns
            .run(|| {
                ip("link set lo up");
                ip(&format!("addr add {address} dev {link}"));
                ip(&format!("link set {link} mtu {mtu} up"));
            })
            .unwrap();
    }
    (Arc::new(here), Arc::new(there))
}

#[test]
fn full_size_datagrams_pass_a_narrow_path_by_tcp() {
    for mtu in [1280, 1300] {
        let (of_relay, of_peers) = narrow(mtu);
        let relay = TestRelay::in_netns(&of_relay, Ipv4Addr::new(192, 0, 2, 1));
        let a = Peer::with(&relay, 1, &of_peers, |_| {}).up();
        let b = Peer::with(&relay, 2, &of_peers, |_| {}).up();
        assert_eq!((a.transport(), b.transport()), (Some(Transport::Tcp), Some(Transport::Tcp)), "MTU {mtu}");
        a.reaches(&b, &FULL);
        b.reaches(&a, &FULL);
    }
}

/// Sooner than QUIC's own idle timeout, and than TCP gives up, by far.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn a_relay_that_falls_silent_is_given_up_soon_after_the_next_datagram() {
    for quic in [true, false] {
        let (of_relay, of_peers) = narrow(1500);
        let relay = TestRelay::in_netns(&of_relay, Ipv4Addr::new(192, 0, 2, 1));
        let start = |address| {
            let change = |config: &mut RelayClientConfig| match quic {
                true => config.server.tcp = None,
                false => config.server.quic = None,
            };
            Peer::with(&relay, address, &of_peers, change).up()
        };
        let (a, b) = (start(1), start(2));
        a.reaches(&b, b"before");
        of_relay.run(|| ip("link set v0 down")).unwrap();
        let begun = Instant::now();
        while a.transport().is_some() {
            a.client.send(&b.address, 4, |body| body.fill(7));
            assert!(begun.elapsed() < SOON, "QUIC: {quic}");
            std::thread::sleep(Duration::from_millis(20));
        }
        of_relay.run(|| ip("link set v0 up")).unwrap();
        a.reaches(&b, b"after");
    }
}
