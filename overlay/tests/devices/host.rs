//! A host of two namespaces, and what its programs do.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use lattice_overlay::{BackendChoice, Device, DeviceConfig, FilterConfig, Netns, PeerConfig, create, link};
use lattice_wire::WgPrivateKey;

const PATIENCE: Duration = Duration::from_secs(30);

/// Number `n` is 192.0.2.n in the underlay, 10.42.0.n and fd42::n in the overlay.
pub(crate) struct Host {
    pub(crate) underlay: Arc<Netns>,
    pub(crate) inside: Arc<Netns>,
    pub(crate) key: WgPrivateKey,
    name: String,
    number: u8,
    device: Option<Box<dyn Device>>,
}

impl Host {
    pub(crate) fn new(number: u8) -> Self {
        Self::named(number, "wg0")
    }

    pub(crate) fn named(number: u8, name: &str) -> Self {
        Self::with_backend(number, name, BackendChoice::UserSpace)
    }

    pub(crate) fn with_backend(number: u8, name: &str, backend: BackendChoice) -> Self {
        Self::with_filter(number, name, backend, None)
    }

    pub(crate) fn with_filter(
        number: u8,
        name: &str,
        backend: BackendChoice,
        filter: Option<FilterConfig>,
    ) -> Self {
        let netns = || Arc::new(Netns::create().expect("needs root"));
        let mut host = Self::in_namespaces(number, name, netns(), netns());
        host.device = Some(create(DeviceConfig { filter, ..host.device_config() }, backend).unwrap());
        host
    }

    /// For a device that is not ours, which has its link and its socket in one namespace.
    pub(crate) fn without_device(number: u8) -> Self {
        let netns = Arc::new(Netns::create().expect("needs root"));
        Self::in_namespaces(number, "wg0", Arc::clone(&netns), netns)
    }

    fn in_namespaces(number: u8, name: &str, underlay: Arc<Netns>, inside: Arc<Netns>) -> Self {
        let key = WgPrivateKey::from_random([number; 32]);
        link::set_up(&inside, "lo").unwrap();
        Self { underlay, inside, key, name: name.into(), number, device: None }
    }

    pub(crate) fn device_config(&self) -> DeviceConfig {
        DeviceConfig {
            paths: None,
            name: self.name.clone(),
            private_key: self.key.clone(),
            listen_port: 0,
            mtu: 1420,
            underlay: Arc::clone(&self.underlay),
            inside: Arc::clone(&self.inside),
            filter: None,
        }
    }

    pub(crate) fn device(&self) -> &dyn Device {
        self.device.as_deref().unwrap()
    }

    pub(crate) fn drop_device(&mut self) {
        self.device = None;
    }

    pub(crate) fn inner_v4(&self) -> IpAddr {
        Ipv4Addr::new(10, 42, 0, self.number).into()
    }

    pub(crate) fn inner_v6(&self) -> IpAddr {
        Ipv6Addr::new(0xfd42, 0, 0, 0, 0, 0, 0, self.number.into()).into()
    }

    pub(crate) fn outer(&self) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, self.number).into()
    }

    pub(crate) fn endpoint(&self) -> SocketAddr {
        SocketAddr::new(self.outer(), self.device().listen_port())
    }

    /// This host as others configure it.
    pub(crate) fn config(&self) -> PeerConfig {
        PeerConfig {
            public_key: self.key.public(),
            allowed_ips: vec![self.inner_v4().into(), self.inner_v6().into()],
            endpoints: self.device.iter().map(|_| self.endpoint()).collect(),
            keepalive: None,
        }
    }

    pub(crate) fn set_peers(&self, peers: &[PeerConfig]) {
        self.device().set_peers(peers).unwrap();
    }

    pub(crate) fn has_handshake(&self) -> bool {
        self.device().peers().unwrap().iter().any(|peer| peer.last_handshake.is_some())
    }

    /// Addresses, routes, up.
    pub(crate) fn bring_up(&self) {
        link::add_address(&self.inside, &self.name, self.inner_v4().into()).unwrap();
        link::add_address(&self.inside, &self.name, self.inner_v6().into()).unwrap();
        link::set_up(&self.inside, &self.name).unwrap();
        for net in ["10.42.0.0/16", "fd42::/64"] {
            link::add_route(&self.inside, net.parse().unwrap(), &self.name, None).unwrap();
        }
    }

    pub(crate) fn underlay_ip(&self, arguments: &[&str]) {
        // A child is born in the namespace of the thread that spawns it.
        let status = self.underlay.run(|| Command::new("ip").args(arguments).status()).unwrap();
        assert!(status.unwrap().success(), "ip {arguments:?}");
    }

    /// Sends `bytes` to `other` and returns how many it says it got.
    pub(crate) fn tcp_transfer(&self, other: &Self, to: IpAddr, bytes: usize) -> usize {
        let listener = other.inside.run(|| TcpListener::bind((to, 0)).unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        // Connected before the thread starts, which would wait for ever for a connection that does not come.
        let mut stream = self.inside.run(|| connect(address)).unwrap().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut content = Vec::new();
                stream.read_to_end(&mut content).unwrap();
                let intact = content.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8);
                let got = if intact { content.len() as u64 } else { 0 };
                stream.write_all(&got.to_be_bytes()).unwrap();
            });
            let content: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
            stream.write_all(&content).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut got = [0; 8];
            stream.read_exact(&mut got).unwrap();
            u64::from_be_bytes(got) as usize
        })
    }

    pub(crate) fn tcp_connect(&self, to: IpAddr) -> io::Result<TcpStream> {
        self.inside.run(|| connect(SocketAddr::new(to, 7))).unwrap()
    }

    /// Packets that left by the device's link, as large as the kernel handed them over.
    pub(crate) fn sent_packets(&self) -> u64 {
        self.link_counter(9)
    }

    /// What `/proc/net/dev` says of the device's link in a column (`proc(5)`).
    pub(crate) fn link_counter(&self, column: usize) -> u64 {
        let table =
            self.inside.run(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap()).unwrap();
        let line =
            table.lines().find_map(|line| line.trim().strip_prefix(&format!("{}:", self.name))).unwrap();
        line.split_whitespace().nth(column).unwrap().parse().unwrap()
    }

    pub(crate) fn udp_inbox(&self) -> UdpSocket {
        let socket = self.inside.run(|| UdpSocket::bind("[::]:0").unwrap()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    pub(crate) fn udp_send(&self, to: IpAddr, payload: &[u8]) {
        let to = SocketAddr::new(to, 9);
        self.inside.run(|| UdpSocket::bind(any(to)).unwrap().send_to(payload, to).unwrap()).unwrap();
    }

    pub(crate) fn udp_echo(&self, other: &Self, to: IpAddr, payload: &[u8]) -> bool {
        let inbox = other.udp_inbox();
        let to = SocketAddr::new(to, inbox.local_addr().unwrap().port());
        let socket = self.inside.run(|| UdpSocket::bind(any(to)).unwrap()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(payload, to).unwrap();
        let mut buffer = [0; 2048];
        let (len, from) = inbox.recv_from(&mut buffer).unwrap();
        inbox.send_to(&buffer[..len], from).unwrap();
        let len = socket.recv(&mut buffer).unwrap();
        &buffer[..len] == payload
    }
}

/// Two hosts on one underlay link, with devices that do not know each other yet.
pub(crate) fn join(a: Host, b: Host) -> (Host, Host) {
    link::add_veth(&a.underlay, "eth0", &b.underlay, "eth0").unwrap();
    for host in [&a, &b] {
        link::add_address(&host.underlay, "eth0", ipnet::IpNet::new(host.outer(), 24).unwrap()).unwrap();
        // Without IPv6 no link-local address appears, in its own time, in what the tests look at.
        link::set_up(&host.underlay, "eth0").unwrap();
    }
    (a, b)
}

/// Two hosts that know each other, ready for traffic.
pub(crate) fn pair() -> (Host, Host) {
    let (a, b) = join(Host::new(1), Host::new(2));
    for (host, other) in [(&a, &b), (&b, &a)] {
        host.set_peers(&[other.config()]);
        host.bring_up();
    }
    (a, b)
}

/// Waits for what is bound to come.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&to, PATIENCE)
}

fn any(to: SocketAddr) -> &'static str {
    if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }
}
