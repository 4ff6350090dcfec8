//! An agent's namespace, a host's namespace with a nameserver, and the resolver between them. All of it is gone with the lab.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd as _,
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query},
    rr::{Name, RData, RecordType},
};
use lattice_dns::{Admitted, Config, Gate, Names, Refusal, Resolver, Verdict};
use nix::sched::{CloneFlags, setns, unshare};
use tempfile::TempDir;

use crate::upstream::Upstream;

/// Where the agent asks.
pub(crate) const AGENT: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 53));

/// Only says when a test has failed; nothing is measured by it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Lab {
    // Declared, and so dropped, from the user to the used.
    pub(crate) resolver: Resolver,
    pub(crate) upstream: Upstream,
    pub(crate) gate: Arc<Policy>,
    pub(crate) names: Names,
    agent: Namespace,
    host: Namespace,
    folder: TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::with("nameserver 127.0.0.53\n")
    }

    /// A resolver that is asked from within alone.
    pub(crate) fn without_sockets() -> Self {
        let mut lab = Self::new();
        lab.resolver = start(None, &lab.host, &lab.folder, &lab.names, &lab.gate);
        lab
    }

    pub(crate) fn with(resolv_conf: &str) -> Self {
        let (agent, host) = (Namespace::new(), Namespace::new());
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("resolv.conf"), resolv_conf).unwrap();
        let names = Names::default();
        names.replace([("tool".into(), vec![IpAddr::from([10, 42, 0, 2])])], Some("acme"), vec![]);
        let gate = Arc::new(Policy::default());
        let upstream = host.run(Upstream::start);
        let resolver = start(Some(&agent), &host, &folder, &names, &gate);
        Self { resolver, upstream, gate, names, agent, host, folder }
    }

    /// Ends the resolver, and starts another on the same address.
    pub(crate) fn restart(self) -> Self {
        let Self { resolver, upstream, gate, names, agent, host, folder } = self;
        drop(resolver);
        let resolver = start(Some(&agent), &host, &folder, &names, &gate);
        Self { resolver, upstream, gate, names, agent, host, folder }
    }

    pub(crate) fn resolv_conf(&self, text: &str) {
        fs::write(self.folder.path().join("resolv.conf"), text).unwrap();
    }

    /// A socket of the agent.
    pub(crate) fn socket(&self) -> UdpSocket {
        let socket = self.agent.run(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    pub(crate) fn udp(&self, query: &Message) -> Message {
        let socket = self.socket();
        socket.send_to(&query.to_vec().unwrap(), AGENT).unwrap();
        receive(&socket)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = self.agent.run(|| TcpStream::connect(AGENT)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub(crate) fn tcp(&self, query: &Message) -> Message {
        let mut stream = self.connect();
        stream.write_all(&framed(query)).unwrap();
        read_framed(&mut stream)
    }

    /// What `getaddrinfo(3)` finds, sorted; none when there is no Python to call it with.
    pub(crate) fn getaddrinfo(&self, name: &str) -> Option<String> {
        let conf = self.folder.path().join("agent.conf");
        fs::write(&conf, "nameserver 127.0.0.1\noptions timeout:5 attempts:1\n").unwrap();
        let script = "import socket, sys\ntry: found = socket.getaddrinfo(sys.argv[1], 80, type=socket.SOCK_STREAM)\n\
                      except OSError: found = []\nprint(*sorted(entry[4][0] for entry in found))";
        let found = self.agent.run(|| {
            Command::new("unshare")
                .args(["--mount", "sh", "-c"])
                .arg("mount --bind \"$1\" /etc/resolv.conf && exec python3 -c \"$2\" \"$3\"")
                .args(["sh".as_ref(), conf.as_os_str(), script.as_ref(), name.as_ref()])
                .output()
        });
        let found = found.unwrap();
        if !found.status.success() {
            println!("SKIPPED: getaddrinfo: {}", String::from_utf8_lossy(&found.stderr).trim());
            return None;
        }
        Some(String::from_utf8(found.stdout).unwrap().trim().to_owned())
    }

    pub(crate) fn wait(&self, what: &str, mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < PATIENCE, "waited for: {what}; {:?}", self.resolver);
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn start(
    agent: Option<&Namespace>,
    host: &Namespace,
    folder: &TempDir,
    names: &Names,
    gate: &Arc<Policy>,
) -> Resolver {
    let bind = || (UdpSocket::bind(AGENT).unwrap(), TcpListener::bind(AGENT).unwrap());
    let (udp, tcp) = agent.map(|agent| agent.run(bind)).unzip();
    let config = Config {
        udp,
        tcp,
        resolv_conf: folder.path().join("resolv.conf"),
        names: names.clone(),
        gate: Arc::clone(gate) as _,
    };
    Resolver::start(config, &|work| host.enter(work)).unwrap()
}

/// A network namespace without a name.
struct Namespace(File);

impl Namespace {
    fn new() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("needs CAP_SYS_ADMIN: run the tests as root");
            let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
            assert!(up.success(), "ip link set lo up");
            Self(File::open("/proc/thread-self/ns/net").unwrap())
        };
        thread::scope(|scope| scope.spawn(make).join().unwrap())
    }

    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join().unwrap())
    }

    fn enter(&self, work: &mut (dyn FnMut() + Send)) -> io::Result<()> {
        self.run(work);
        Ok(())
    }
}

/// A policy for what [`Upstream`] knows.
#[derive(Default)]
pub(crate) struct Policy {
    pinned: Mutex<Vec<(String, Vec<IpAddr>)>>,
    refused: Mutex<Vec<Refusal>>,
}

impl Policy {
    pub(crate) fn pinned(&self) -> Vec<(String, Vec<IpAddr>)> {
        self.pinned.lock().unwrap().clone()
    }

    pub(crate) fn refused(&self) -> Vec<Refusal> {
        self.refused.lock().unwrap().clone()
    }
}

impl Gate for Policy {
    fn query(&self, name: &str) -> Verdict {
        match name.strip_suffix(".example.com") {
            Some("denied") => Verdict::Denied { rule: 9 },
            Some(name) if name.ends_with(".wild") => Verdict::Allowed { rule: 2, wildcard: true },
            Some(name) if !name.contains('.') => Verdict::Allowed { rule: 1, wildcard: false },
            _ => Verdict::Unknown,
        }
    }

    fn answer(&self, name: &str, answers: &[IpAddr], ttl: Duration) -> Admitted {
        let public = |address: &IpAddr| match address {
            IpAddr::V4(address) => address.octets().starts_with(&[192, 0, 2]),
            IpAddr::V6(address) => address.segments().starts_with(&[0x2001, 0xdb8]),
        };
        let addresses: Vec<IpAddr> = answers.iter().copied().filter(public).collect();
        self.pinned.lock().unwrap().push((name.to_owned(), addresses.clone()));
        Admitted { addresses, ttl }
    }

    fn refused(&self, refusal: &Refusal) {
        self.refused.lock().unwrap().push(refusal.clone());
    }
}

pub(crate) fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

pub(crate) fn addresses(message: &Message) -> Vec<IpAddr> {
    let address = |data: &RData| match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    message.answers.iter().filter_map(|record| address(&record.data)).collect()
}

pub(crate) fn receive(socket: &UdpSocket) -> Message {
    let mut buffer = [0; 65536];
    let (length, from) = socket.recv_from(&mut buffer).expect("a reply");
    assert_eq!(from, AGENT);
    Message::from_vec(&buffer[..length]).unwrap()
}

pub(crate) fn framed(message: &Message) -> Vec<u8> {
    let message = message.to_vec().unwrap();
    [&u16::try_from(message.len()).unwrap().to_be_bytes(), message.as_slice()].concat()
}

pub(crate) fn read_framed(stream: &mut TcpStream) -> Message {
    try_read_framed(stream).expect("a reply")
}

pub(crate) fn try_read_framed(stream: &mut TcpStream) -> Option<Message> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).ok()?;
    Message::from_vec(&message).ok()
}
