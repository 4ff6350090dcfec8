//! An agent and its peer, each in an anonymous network namespace that the kernel destroys with its last descriptor.

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use lattice_ebpf::{AttachMode, Attached, EbpfError, Enforcer, Events, Flow, Options, bpffs};
use lattice_policy::{Action, Entry, Match, Overlay, PortRange, Proto, RuleId, Table};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    net::if_::if_nametoindex,
    poll::{PollFd, PollFlags, poll},
    sched::{CloneFlags, setns, unshare},
    sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket},
};

use crate::{packet_socket, tun};

pub(crate) const AGENT4: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 2);
pub(crate) const AGENT6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
pub(crate) const PEER4: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 1);
pub(crate) const PEER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
/// Routed to the link, and there is nobody.
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

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tun,
    Veth,
}

pub(crate) struct Lab {
    // Declared, and so dropped, from the user to the used.
    loaded: Option<(Enforcer, Events)>,
    told: Vec<Flow>,
    _wire: Option<tun::Wire>,
    agent: Netns,
    peer: Netns,
    pins: Pins,
    mode: AttachMode,
    kind: Kind,
    pub(crate) attached: Attached,
}

impl Lab {
    /// Everything set up as a sandbox does it: the policy program is attached before the link is up. No policy applied.
    pub(crate) fn new(kind: Kind, mode: AttachMode) -> Self {
        let (agent, peer, pins) = (Netns::new(), Netns::new(), Pins::mount());
        let wire = match kind {
            Kind::Tun => Some(tun::Wire::new(agent.run(|| tun::open("wg0")), peer.run(|| tun::open("wg0")))),
            Kind::Veth => {
                add_veth(&agent, &peer);
                None
            }
        };
        let attached = Attached::Tcx;
        let mut lab =
            Self { loaded: None, told: Vec::new(), _wire: wire, agent, peer, pins, mode, kind, attached };
        lab.load_and_attach();
        lab.configure();
        lab
    }

    pub(crate) fn configure(&self) {
        for (netns, v4, v6) in [(&self.peer, PEER4, PEER6), (&self.agent, AGENT4, AGENT6)] {
            netns.ip(&format!("addr add {v4}/24 dev wg0"));
            netns.ip(&format!("addr add {v6}/64 dev wg0 nodad"));
            netns.ip("link set lo up");
            netns.ip("link set wg0 up");
        }
        let (via4, via6) = match self.kind {
            Kind::Tun => (String::new(), String::new()),
            Kind::Veth => (format!("via {PEER4} "), format!("via {PEER6} ")),
        };
        self.agent.ip(&format!("route add default {via4}dev wg0"));
        self.agent.ip(&format!("-6 route add default {via6}dev wg0"));
        // The strictest: an answer must come from where its source is routed.
        self.agent.run(|| {
            for which in ["all", "wg0"] {
                fs::write(format!("/proc/sys/net/ipv4/conf/{which}/rp_filter"), "1").unwrap();
            }
        });
    }

    /// Another link under the same name, down and without addresses; for [`Kind::Veth`].
    pub(crate) fn recreate_link(&self) {
        self.agent.ip("link del wg0");
        add_veth(&self.agent, &self.peer);
    }

    pub(crate) fn load_and_attach(&mut self) {
        let own = vec![AGENT4.into(), AGENT6.into()];
        let options = Options { pin_dir: self.pins.dir.clone(), own, attach: self.mode };
        let mut enforcer = Enforcer::load(&options).unwrap();
        let events = enforcer.events().unwrap();
        self.loaded = Some((enforcer, events));
        self.attached = self.attach_in_agent("wg0").unwrap();
    }

    pub(crate) fn attach_in_agent(&mut self, link: &str) -> Result<Attached, EbpfError> {
        self.attach_with(link, &[])
    }

    /// With addresses that are the agent's on this link only.
    pub(crate) fn attach_with(&mut self, link: &str, own: &[IpAddr]) -> Result<Attached, EbpfError> {
        let (enforcer, _) = self.loaded.as_mut().unwrap();
        self.agent.run(|| enforcer.attach(link, own))
    }

    pub(crate) fn confine(&mut self, overlay: &Overlay, link: &str) {
        let (enforcer, _) = self.loaded.as_mut().unwrap();
        self.agent.run(|| enforcer.confine(overlay, link)).unwrap();
    }

    pub(crate) fn enforcer(&mut self) -> &mut Enforcer {
        &mut self.loaded.as_mut().unwrap().0
    }

    pub(crate) fn drop_enforcer(&mut self) {
        self.loaded = None;
    }

    pub(crate) fn pin_dir(&self) -> &Path {
        &self.pins.dir
    }

    pub(crate) fn unmount(&self) {
        bpffs::unmount(&self.pins.dir).unwrap();
        assert!(!self.pins.dir.exists());
    }

    // === what was told ===

    /// Everything told so far.
    pub(crate) fn told(&mut self) -> Vec<Flow> {
        let (_, events) = self.loaded.as_mut().unwrap();
        while events.drain(&mut |flow| self.told.push(flow)) > 0 {}
        self.told.clone()
    }

    /// Everything told so far, off the list.
    pub(crate) fn take_told(&mut self) -> Vec<Flow> {
        self.told();
        std::mem::take(&mut self.told)
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
            let (_, events) = self.loaded.as_ref().unwrap();
            let _ = poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLIN)], 1000u16);
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

    /// Sends the first segment and does not wait for an answer.
    pub(crate) fn start_connecting_from_peer(&self, to: SocketAddr) -> OwnedFd {
        self.peer.run(|| {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
            assert_eq!(connect(socket.as_raw_fd(), &SockaddrStorage::from(to)), Err(Errno::EINPROGRESS));
            socket
        })
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
        self.agent_udp_from(if ip.is_ipv4() { AGENT4.into() } else { AGENT6.into() }, ip, port)
    }

    pub(crate) fn agent_udp_from(&self, from: IpAddr, ip: IpAddr, port: u16) -> UdpSocket {
        let socket = self.agent.run(|| UdpSocket::bind((from, 0)).unwrap());
        socket.connect((ip, port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    pub(crate) fn link_index(&self) -> u32 {
        self.agent.run(|| if_nametoindex("wg0").unwrap())
    }

    /// Sends an IP packet past the stack. A refusal of the send itself is as good as silence.
    pub(crate) fn agent_sends_raw(&self, claimed: i32, packet: &[u8]) {
        let link = self.link_index();
        let frame = match self.kind {
            Kind::Tun => packet.to_vec(),
            Kind::Veth => [&self.peer.mac()[..], &self.agent.mac(), &[8, 0], packet].concat(),
        };
        let _ = self.agent.run(|| packet_socket::send(link, claimed, &frame));
    }

    pub(crate) fn in_agent<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.agent.run(work)
    }

    pub(crate) fn agent_runs(&self, command: &str) {
        self.agent.command(command);
    }
}

fn add_veth(agent: &Netns, peer: &Netns) {
    let other = format!("/proc/{}/fd/{}", std::process::id(), peer.0.as_raw_fd());
    agent.ip(&format!("link add wg0 type veth peer name wg0 netns {other}"));
}

fn patient(stream: io::Result<TcpStream>) -> io::Result<TcpStream> {
    let stream = stream?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

pub(crate) struct Netns(OwnedFd);

impl Netns {
    pub(crate) fn new() -> Self {
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

    fn command(&self, line: &str) {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().unwrap());
        let done = self.run(|| command.args(words).output().unwrap());
        assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn mac(&self) -> [u8; 6] {
        let shown = self.run(|| Command::new("ip").args(["-o", "link", "show", "wg0"]).output().unwrap());
        let shown = String::from_utf8(shown.stdout).unwrap();
        let mac = shown.split_whitespace().skip_while(|&w| w != "link/ether").nth(1).unwrap();
        let bytes: Vec<u8> = mac.split(':').map(|b| u8::from_str_radix(b, 16).unwrap()).collect();
        bytes.try_into().unwrap()
    }
}

pub(crate) struct Pins {
    pub(crate) dir: PathBuf,
    _parent: tempfile::TempDir,
}

impl Pins {
    pub(crate) fn mount() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("pins");
        // In a mount namespace of this thread: the kernel unmounts it even if the test is killed.
        unshare(CloneFlags::CLONE_NEWNS).expect("needs CAP_SYS_ADMIN: run the tests as root");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        bpffs::mount(&dir).unwrap();
        Self { dir, _parent: parent }
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = bpffs::unmount(&self.dir);
    }
}
