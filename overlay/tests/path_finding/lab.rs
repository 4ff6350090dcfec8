//! Hosts behind NATs of the kernel's own, a relay and two STUN servers that all of them reach, and the signals between the hosts.
//!
//! ```text
//!   world 192.0.2.1 (relay, STUN) ── 198.51.100.(4n+1) ── 198.51.100.(4n+2) router ── 10.77.n.1 ── 10.77.n.2 host
//! ```

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use lattice_overlay::{
    Backend, BackendChoice, Device, DeviceConfig, Netns, PathFinder, PathStatus, PathsConfig, PeerConfig,
    Servers, create, link,
};
use lattice_relay::{Config, Identity, Metrics, Relay, stun::StunServer};
use lattice_wire::{
    RelayClaims, RelayServer, WgPrivateKey, WorkspaceId,
    relay_token::{TrustedKeys, issue},
};
use nix::sys::socket::{getsockopt, sockopt::TcpMaxSeg};
use nkeys::KeyPair;
use tokio::runtime::Runtime;

/// Far beyond what anything takes, also in an emulated machine: only a hang reaches it.
pub(crate) const HANGS: Duration = Duration::from_secs(120);
/// Bytes of a packet of the overlay.
const MTU: u32 = 1420;
/// By a relay.
const RELAYED: u32 = 1280;
const SERVERS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// What a NAT does to ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nat {
    /// The host keeps its own.
    Cone,
    /// Another one for each destination.
    Symmetric,
}

/// The servers, and what runs them.
pub(crate) struct World {
    netns: Netns,
    runtime: Runtime,
    issuer: KeyPair,
    server: RelayServer,
    stun: Vec<SocketAddr>,
    _relay: Relay,
    _stun: StunServer,
    _dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let netns = Netns::create().expect("needs root");
        ip(&netns, "link set lo up");
        ip(&netns, &format!("addr add {SERVERS}/32 dev lo"));
        forward(&netns);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (issuer, dir) = (KeyPair::new_account(), tempfile::tempdir().unwrap());
        let at = |port| SocketAddr::from((SERVERS, port));
        let trusted = TrustedKeys::new([issuer.public_key().as_str()]).unwrap();
        let config = Config { quic: Some(at(6267)), tcp: Some(at(6266)), ..Config::new(trusted) };
        let metrics = Arc::new(Metrics::default());
        let start = || {
            let _context = runtime.enter();
            let relay = Relay::start(config, Identity::load(dir.path()).unwrap(), Arc::clone(&metrics));
            (relay.unwrap(), StunServer::start(&[at(3478), at(3479)], &metrics).unwrap())
        };
        let (relay, stun) = netns.run(start).unwrap();
        let server = RelayServer {
            name: "here".into(),
            quic: Some(at(6267).to_string()),
            tcp: Some(at(6266).to_string()),
            fingerprint: Identity::load(dir.path()).unwrap().fingerprint().to_string(),
        };
        let addresses = stun.addresses().to_vec();
        Self { netns, runtime, issuer, server, stun: addresses, _relay: relay, _stun: stun, _dir: dir }
    }

    /// The servers, for the host with this key.
    fn servers(&self, key: &WgPrivateKey, nkey: &KeyPair) -> Servers {
        let claims = RelayClaims {
            workspace: WorkspaceId::from_random([1; 10]),
            wireguard: key.public(),
            nats: nkey.public_key(),
            not_after: SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 + 3600,
        };
        let token = Some(issue(&claims, &self.issuer).unwrap());
        Servers { stun: self.stun.clone(), relays: vec![self.server.clone()], token }
    }
}

/// A host behind its router.
pub(crate) struct Host {
    number: u8,
    key: WgPrivateKey,
    inside: Arc<Netns>,
    router: Netns,
    /// The router's.
    pub(crate) outer: Ipv4Addr,
    device: Box<dyn Device>,
}

impl Host {
    pub(crate) fn behind(world: &World, number: u8, nat: Nat, backend: BackendChoice) -> Self {
        let netns = || Netns::create().expect("needs root");
        let (underlay, inside, router) = (Arc::new(netns()), Arc::new(netns()), netns());
        let (near, outer) =
            (Ipv4Addr::new(198, 51, 100, 4 * number + 1), Ipv4Addr::new(198, 51, 100, 4 * number + 2));
        let (gateway, own) = (Ipv4Addr::new(10, 77, number, 1), Ipv4Addr::new(10, 77, number, 2));
        let name = format!("to{number}");
        link::add_veth(&world.netns, &name, &router, "outer").unwrap();
        link::add_veth(&router, "inner", &underlay, "eth0").unwrap();
        for (netns, link, address) in [
            (&world.netns, name.as_str(), format!("{near}/30")),
            (&router, "outer", format!("{outer}/30")),
            (&router, "inner", format!("{gateway}/24")),
            (&*underlay, "eth0", format!("{own}/24")),
        ] {
            ip(netns, &format!("addr add {address} dev {link}"));
            ip(netns, &format!("link set {link} up"));
        }
        ip(&router, &format!("route add default via {near}"));
        ip(&underlay, &format!("route add default via {gateway}"));
        ip(&underlay, "link set lo up");
        forward(&router);
        let masquerade = if nat == Nat::Symmetric { "masquerade fully-random" } else { "masquerade" };
        nft(
            &router,
            &format!(
                "table ip nat {{
                chain out {{ type nat hook postrouting priority srcnat; oifname \"outer\" {masquerade}; }}
                chain forward {{ type filter hook forward priority 0; policy drop;
                    ct state established,related accept
                    iifname \"inner\" accept
                }}
                chain input {{ type filter hook input priority 0; policy drop; ct state established,related accept; }}
            }}"
            ),
        );
        let (key, nkey) = (WgPrivateKey::from_random([number; 32]), Arc::new(KeyPair::new_user()));
        let paths = PathsConfig {
            pool: vec!["10.42.0.0/16".parse().unwrap()],
            relay_key: Arc::clone(&nkey),
            runtime: world.runtime.handle().clone(),
        };
        let config = DeviceConfig {
            name: "wg0".into(),
            private_key: key.clone(),
            listen_port: 0,
            mtu: MTU as u16,
            underlay: Arc::clone(&underlay),
            inside: Arc::clone(&inside),
            filter: None,
            paths: Some(paths),
        };
        let device = create(config, backend).unwrap();
        let host = Self { number, key, inside, router, outer, device };
        link::set_up(&host.inside, "lo").unwrap();
        link::add_address(&host.inside, "wg0", host.address().into()).unwrap();
        link::set_up(&host.inside, "wg0").unwrap();
        link::add_route(&host.inside, "10.42.0.0/16".parse().unwrap(), "wg0", None).unwrap();
        host.paths().set_local(vec![SocketAddr::from((own, host.device.listen_port()))]).unwrap();
        host.paths().set_servers(world.servers(&host.key, &nkey)).unwrap();
        host
    }

    fn paths(&self) -> &PathFinder {
        self.device.paths().unwrap()
    }

    fn address(&self) -> std::net::IpAddr {
        Ipv4Addr::new(10, 42, 0, self.number).into()
    }

    /// The path to the only peer, and the endpoint that WireGuard has.
    pub(crate) fn path(&self) -> (PathStatus, Option<SocketAddr>) {
        let peer = self.device.peers().unwrap().remove(0);
        (peer.path.unwrap(), peer.endpoint)
    }

    pub(crate) fn socket(&self) -> UdpSocket {
        let socket = self.inside.run(|| UdpSocket::bind((self.address(), 7)).unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket
    }

    /// A TCP connection, and its end at `other`.
    pub(crate) fn connect(&self, other: &Self) -> [TcpStream; 2] {
        let listener = other.inside.run(|| TcpListener::bind((other.address(), 0)).unwrap()).unwrap();
        let to = listener.local_addr().unwrap();
        let stream = self.inside.run(|| TcpStream::connect(to).unwrap()).unwrap();
        let accepted = listener.accept().unwrap().0;
        accepted.set_read_timeout(Some(HANGS)).unwrap();
        [stream, accepted]
    }

    /// Checks that packets of a connection from here are as long as its path carries. In user space they are cut after the kernel.
    pub(crate) fn fills(&self, [stream, other]: &mut [TcpStream; 2], is_relayed: bool) {
        // What is sent first shows the connection its route.
        for _ in 0..2 {
            stream.write_all(b"x").unwrap();
            other.read_exact(&mut [0]).unwrap();
        }
        let is_cut = is_relayed && self.device.backend() == Backend::Kernel;
        // The headers of IPv4 and TCP, and the option for timestamps.
        let packet = getsockopt(stream, TcpMaxSeg).unwrap() + 40 + 12;
        assert_eq!(packet, if is_cut { RELAYED } else { MTU });
    }

    /// From now on nothing passes between this router and `other`'s.
    pub(crate) fn cut(&self, other: &Self) {
        let other = other.outer;
        nft(
            &self.router,
            &format!(
                "table ip cut {{
                chain forward {{ type filter hook forward priority -10; ip saddr {other} drop; ip daddr {other} drop; }}
            }}"
            ),
        );
    }

    /// Ends it.
    pub(crate) fn heal(&self) {
        nft(&self.router, "delete table ip cut");
    }

    /// Gives the router another address, as after a new lease: its mappings are gone.
    pub(crate) fn renumber(&mut self, world: &World) {
        let next = Ipv4Addr::new(198, 51, 100, 128 + 4 * self.number + 2);
        let near = Ipv4Addr::from(u32::from(next) - 1);
        ip(&world.netns, &format!("addr add {near}/30 dev to{}", self.number));
        ip(&self.router, &format!("addr add {next}/30 dev outer"));
        ip(&self.router, &format!("addr del {}/30 dev outer", self.outer));
        ip(&self.router, &format!("route replace default via {near}"));
        self.outer = next;
    }

    fn config(&self) -> PeerConfig {
        PeerConfig {
            public_key: self.key.public(),
            allowed_ips: vec![self.address().into()],
            endpoints: vec![],
            keepalive: Some(25),
        }
    }
}

/// Has both know each other; their signals pass while they live.
pub(crate) fn acquaint(a: &Host, b: &Host) {
    for (host, other) in [(a, b), (b, a)] {
        host.device.set_peers(&[other.config()]).unwrap();
        let (mut signals, from, to) =
            (host.paths().signals().unwrap(), host.key.public(), other.paths().clone());
        thread::spawn(move || {
            while let Some((_, signal)) = signals.blocking_recv() {
                if to.handle_signal(from, signal).is_err() {
                    return;
                }
            }
        });
    }
}

/// What is sent over and over; one may be late.
const QUESTION: &[u8] = b"?";

/// The next datagram but for questions.
pub(crate) fn next(socket: &UdpSocket) -> Vec<u8> {
    let (begun, mut buffer) = (Instant::now(), [0; 64]);
    loop {
        match socket.recv(&mut buffer) {
            Ok(len) if buffer[..len] == *QUESTION => {}
            Ok(len) => return buffer[..len].to_vec(),
            Err(error) => assert!(begun.elapsed() < HANGS, "it was lost: {error}"),
        }
    }
}

/// Sends until it arrives, as programs do.
pub(crate) fn reaches(from: &UdpSocket, to: &UdpSocket) {
    let begun = Instant::now();
    loop {
        from.send_to(QUESTION, to.local_addr().unwrap()).unwrap();
        if let Ok((_, sender)) = to.recv_from(&mut [0; 64]) {
            assert_eq!(sender, from.local_addr().unwrap());
            return;
        }
        assert!(begun.elapsed() < HANGS, "nothing arrives");
    }
}

/// Waits, with traffic both ways, for what is bound to come.
pub(crate) fn eventually(what: &str, sockets: [&UdpSocket; 2], mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < HANGS, "waited in vain for {what}");
        for (from, to) in [(0, 1), (1, 0)] {
            // While a path is cut there may be no way at all.
            let _ = sockets[from].send_to(QUESTION, sockets[to].local_addr().unwrap());
        }
        thread::sleep(Duration::from_millis(20));
        // Or they would leave no room for what is asked next.
        for socket in sockets {
            socket.set_nonblocking(true).unwrap();
            while socket.recv(&mut [0; 64]).is_ok() {}
            socket.set_nonblocking(false).unwrap();
        }
    }
}

fn forward(netns: &Netns) {
    netns.run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1")).unwrap().unwrap();
}

fn run(netns: &Netns, mut command: Command) {
    let output = netns.run(|| command.stderr(Stdio::piped()).output()).unwrap().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn ip(netns: &Netns, arguments: &str) {
    let mut ip = Command::new("ip");
    ip.args(arguments.split(' '));
    run(netns, ip);
}

fn nft(netns: &Netns, rules: &str) {
    let mut nft = Command::new("nft");
    nft.arg(rules);
    run(netns, nft);
}
