//! An agent and its peer, each in an anonymous network namespace that the kernel destroys with its last descriptor, joined
//! by a veth pair.

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use lattice_nftables::{Enter, Events, Nftables, Options};
use lattice_policy::{Action, Entry, Flow, Match, PortRange, Proto, RuleId, Table};
use nix::{
    errno::Errno,
    net::if_::if_nametoindex,
    poll::{PollFd, PollFlags, poll},
    sched::{CloneFlags, setns, unshare},
    sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket},
};

pub(crate) const AGENT4: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 2);
pub(crate) const AGENT6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
pub(crate) const PEER4: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 1);
pub(crate) const PEER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
/// Routed to the peer, which has not this address.
pub(crate) const NOWHERE4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(crate) const NOWHERE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// Only says when a test has failed; nothing is measured by it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The peer's TCP 8080 and UDP 53.
pub(crate) fn table() -> Table {
    let open = [line(Proto::Tcp, Some(8080), 1), line(Proto::Udp, Some(53), 2)];
    Table { egress: vec![entry("10.42.0.1/32", &open), entry("fd00::1/128", &open)], ingress: Vec::new() }
}

pub(crate) fn line(proto: Proto, port: Option<u16>, rule: u32) -> Match {
    let ports = port.map(|p| PortRange { lo: p, hi: p });
    Match { proto, ports, action: Action::Allow, rule: RuleId(rule) }
}

pub(crate) fn entry(net: &str, matches: &[Match]) -> Entry {
    Entry { net: net.parse().unwrap(), matches: matches.to_vec() }
}

pub(crate) struct Lab {
    pub(crate) nftables: Nftables,
    pub(crate) events: Events,
    told: Vec<Flow>,
    pub(crate) agent: Arc<Netns>,
    pub(crate) peer: Netns,
}

impl Lab {
    /// Everything set up as a sandbox does it: the table is there before the link is up. No policy applied.
    pub(crate) fn new() -> Self {
        let (agent, peer) = (Arc::new(Netns::new()), Netns::new());
        let other = format!("/proc/{}/fd/{}", std::process::id(), peer.0.as_raw_fd());
        agent.ip(&format!("link add wg0 type veth peer name wg0 netns {other}"));
        let mut nftables = Nftables::load(&options(&agent)).unwrap();
        let events = nftables.events().unwrap();
        let lab = Self { nftables, events, told: Vec::new(), agent, peer };
        lab.configure();
        lab
    }

    fn configure(&self) {
        for (netns, v4, v6) in [(&self.peer, PEER4, PEER6), (&*self.agent, AGENT4, AGENT6)] {
            netns.ip(&format!("addr add {v4}/24 dev wg0"));
            netns.ip(&format!("addr add {v6}/64 dev wg0 nodad"));
            netns.ip("link set lo up");
            netns.ip("link set wg0 up");
        }
        self.agent.ip(&format!("route add default via {PEER4} dev wg0"));
        self.agent.ip(&format!("-6 route add default via {PEER6} dev wg0"));
        // The strictest: an answer must come from where its source is routed.
        self.agent.run(|| {
            for which in ["all", "wg0"] {
                fs::write(format!("/proc/sys/net/ipv4/conf/{which}/rp_filter"), "1").unwrap();
            }
        });
    }

    // === what was told ===

    /// Everything told so far.
    pub(crate) fn told(&mut self) -> Vec<Flow> {
        while self.events.drain(&mut |flow| self.told.push(flow)) > 0 {}
        self.told.clone()
    }

    /// Waits for a flow that fits, and takes it and all before it off the list.
    pub(crate) fn wait_for(&mut self, fits: impl Fn(&Flow) -> bool) -> Flow {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told = self.told();
            if let Some(at) = told.iter().position(&fits) {
                self.told.drain(..=at);
                return told[at];
            }
            assert!(Instant::now() < deadline, "not told; only {told:?}");
            let _ = poll(&mut [PollFd::new(self.events.as_fd(), PollFlags::POLLIN)], 1000u16);
        }
    }

    pub(crate) fn eventually(&mut self, mut happens: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !happens(self) {
            assert!(Instant::now() < deadline, "it never happened");
            thread::sleep(Duration::from_millis(20));
        }
    }

    // === what the agent and its peer do ===

    pub(crate) fn connect(&self, ip: IpAddr, port: u16) -> io::Result<TcpStream> {
        patient(self.agent.run(|| TcpStream::connect_timeout(&(ip, port).into(), PATIENCE)))
    }

    pub(crate) fn connect_from_peer(&self, ip: IpAddr, port: u16) -> io::Result<TcpStream> {
        patient(self.peer.run(|| TcpStream::connect_timeout(&(ip, port).into(), PATIENCE)))
    }

    pub(crate) fn peer_listens(&self, ip: IpAddr, port: u16) -> TcpListener {
        self.peer.run(|| TcpListener::bind((ip, port)).unwrap())
    }

    pub(crate) fn agent_listens(&self, ip: IpAddr, port: u16) -> TcpListener {
        self.agent.run(|| TcpListener::bind((ip, port)).unwrap())
    }

    pub(crate) fn peer_binds(&self, ip: IpAddr, port: u16) -> UdpSocket {
        let socket = self.peer.run(|| UdpSocket::bind((ip, port)).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// Connected, so that it hears of ICMP errors.
    pub(crate) fn agent_udp(&self, ip: IpAddr, port: u16) -> UdpSocket {
        let from = if ip.is_ipv4() { IpAddr::from(AGENT4) } else { AGENT6.into() };
        let socket = self.agent.run(|| UdpSocket::bind((from, 0)).unwrap());
        socket.connect((ip, port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    pub(crate) fn link_index(&self) -> u32 {
        self.agent.run(|| if_nametoindex("wg0").unwrap())
    }
}

pub(crate) fn options(agent: &Arc<Netns>) -> Options {
    let netns = agent.clone();
    let enter: Enter = Arc::new(move |work| {
        netns.run(work);
        Ok(())
    });
    Options {
        enter,
        own: vec![AGENT4.into(), AGENT6.into()],
        tied: Vec::new(),
        confined: None,
        table: Options::TABLE.into(),
        log_group: Options::LOG_GROUP,
    }
}

/// Sends the first segment and does not wait for an answer.
pub(crate) fn start_connecting(from: &Netns, to: SocketAddr) -> OwnedFd {
    from.run(|| {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
        assert_eq!(connect(socket.as_raw_fd(), &SockaddrStorage::from(to)), Err(Errno::EINPROGRESS));
        socket
    })
}

fn patient(stream: io::Result<TcpStream>) -> io::Result<TcpStream> {
    let stream = stream?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

pub(crate) struct Netns(OwnedFd);

impl Netns {
    fn new() -> Self {
        let open = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("needs CAP_SYS_ADMIN: run the tests as root");
            File::open("/proc/thread-self/ns/net").unwrap().into()
        };
        Self(thread::spawn(open).join().unwrap())
    }

    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            inside.join().unwrap()
        })
    }

    pub(crate) fn ip(&self, arguments: &str) {
        self.command(&format!("ip {arguments}"));
    }

    /// What the command says. It must succeed.
    pub(crate) fn command(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().unwrap());
        let done = self.run(|| command.args(words).output().unwrap());
        assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }
}
