//! The proxy on a real device, with the real policy, resolver and audit file, on a host of its own. There are no peers. Needs root.

use std::{
    fs,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use lattice_dns::{Names, Resolver};
use lattice_netstack::Limits;
use lattice_overlay::{
    Device, Netns, link,
    stack::{StackConfig, create_stack},
};
use lattice_policy::parse_rule;
use lattice_wire::WgPrivateKey;
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::{
    Steps,
    gate::PolicyGate,
    live::{
        tests::{map, overlay},
        wanted,
    },
    resolver,
    steps::Undo,
};

/// Far beyond what anything takes: only a hang reaches it.
const HANGS: Duration = Duration::from_secs(60);
const HOST: &str = "192.0.2.1";
const FAR: &str = "192.0.2.2";

struct Silent;
impl Progress for Silent {
    fn step(&mut self, _: &'static str, _: Duration, _: &str) {}
    fn warn(&mut self, _: &str) {}
}

/// Runs `test` on a host that reaches another one, which has a TCP and a UDP service on one port that send back what they get.
fn on_a_host(test: impl FnOnce(&Netns, u16) + Send) {
    let (host, far) = (Netns::create().unwrap(), Netns::create().unwrap());
    link::add_veth(&host, "eth0", &far, "far0").unwrap();
    for (netns, name, address) in [(&host, "eth0", HOST), (&far, "far0", FAR)] {
        link::add_address(netns, name, format!("{address}/24").parse().unwrap()).unwrap();
        for name in [name, "lo"] {
            link::set_up(netns, name).unwrap();
        }
    }
    let port = far.run(echo).unwrap();
    host.run(|| test(&far, port)).unwrap();
}

/// Its threads end with the test's process.
fn echo() -> u16 {
    let tcp = TcpListener::bind((FAR, 0)).unwrap();
    let port = tcp.local_addr().unwrap().port();
    let udp = UdpSocket::bind((FAR, port)).unwrap();
    thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            thread::spawn(move || io::copy(&mut &stream, &mut &stream));
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            let _lost = udp.send_to(&buffer[..length], from);
        }
    });
    port
}

/// A sandbox as far as its proxy, which may go anywhere at first.
struct Agent {
    steps: Steps<'static>,
    proxy: SocketAddr,
    policed: Policed,
    ended: tasks::Ended,
    tasks: tasks::Tasks,
    device: Option<Box<dyn Device>>,
    resolver: Option<Resolver>,
    end: Option<Undo>,
    dir: TempDir,
}

impl Agent {
    fn start() -> Self {
        let map = map(None);
        let own: [IpAddr; 2] = [map.address.addr().into(), "fd00::9".parse().unwrap()];
        let underlay = Arc::new(Netns::current().unwrap());
        let (tasks, ended, serve) = tasks::tasks();
        let config = StackConfig {
            name: "a".into(),
            private_key: WgPrivateKey::from_random([7; 32]),
            listen_port: 0,
            mtu: 1420,
            underlay: underlay.clone(),
            addresses: own.to_vec(),
            paths: None,
            limits: Limits::default(),
        };
        let device = create_stack(config, serve).unwrap();
        let flags = ["0.0.0.0/0", "::/0"].map(|rule| parse_rule(rule).unwrap());
        let local = Local::from(flags.to_vec());
        let dir = tempfile::tempdir().unwrap();
        let audit = dir.path().join("audit.jsonl");
        let first = Arc::new(wanted(1, &local, &map, 0).unwrap());
        let started = enforce::cooperative(device.filter().unwrap().clone()).unwrap();
        let closed = Closed { nets: vec![map.pool.into()], ..Closed::default() };
        let (policed, end, _) =
            policed::begin(started, local, first, closed, &audit, &"a".parse().unwrap()).unwrap();
        let names = Names::default();
        names.replace([("tool".into(), vec![[10, 42, 0, 5].into()])], [], vec![map.pool.into()]);
        let gate =
            PolicyGate { live: policed.live.clone(), teller: policed.teller.clone(), search: Vec::new() };
        let nobody = Some(PathBuf::from("/dev/null"));
        let resolver = resolver::start(None, &underlay, nobody, names, gate).unwrap();
        let (_never, stop) = Stop::new();
        let mut silent = Silent;
        let mut steps = Steps::new(&mut silent, stop);
        let any = lattice_proxy::Config::new("127.0.0.1:0".parse().unwrap(), None).unwrap();
        let behind = steps::Behind { names: resolver.asker(), policed: &policed, own, overlay: overlay() };
        let (proxy, _) = steps::proxy(&mut steps, &tasks, any, behind).unwrap();
        let (device, resolver, end) = (Some(device), Some(resolver), Some(end));
        Self { steps: steps.finish(), proxy, policed, ended, tasks, device, resolver, end, dir }
    }

    /// Asks for a connection by HTTP: the connection, and what was answered.
    fn connect(&self, target: &str) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(self.proxy).unwrap();
        stream.set_read_timeout(Some(HANGS)).unwrap();
        write!(stream, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
            answer.push(byte[0]);
        }
        if !answer.starts_with(b"HTTP/1.1 200") {
            stream.read_to_end(&mut answer).unwrap();
        }
        (stream, String::from_utf8(answer).unwrap())
    }

    fn answer(&self, target: &str) -> String {
        self.connect(target).1
    }

    /// Has the control plane allow nothing but `egress`.
    fn narrow(&self, egress: &[&str]) {
        let mut live = self.policed.live.lock().unwrap();
        let change = live.change(&map(Some(egress)), 0).unwrap();
        live.put(change).unwrap();
    }

    /// Waits for a record like this.
    fn record(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + HANGS;
        loop {
            let text = fs::read_to_string(self.dir.path().join("audit.jsonl")).unwrap();
            let records = text.lines().filter_map(|line| serde_json::from_str(line).ok());
            if let Some(found) = records.into_iter().find(&wanted) {
                return found;
            }
            assert!(Instant::now() < deadline, "no such record: {text}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        assert!(self.steps.undo().is_empty());
        drop(self.resolver.take());
        self.end.take().map(|end| end());
    }
}

fn echoes(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"there")?;
    let mut back = [0; 5];
    stream.read_exact(&mut back)?;
    assert_eq!(&back, b"there");
    Ok(())
}

#[test]
fn the_widest_rule_opens_the_world_but_not_the_host_and_not_the_pool() {
    on_a_host(|_, port| {
        let agent = Agent::start();
        let (mut stream, answer) = agent.connect(&format!("{FAR}:{port}"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        echoes(&mut stream).unwrap();
        let allowed = agent.record(|record| record["dstIP"] == FAR);
        assert_eq!((&allowed["action"], &allowed["class"]), (&"allow".into(), &"cooperative".into()));

        let service = TcpListener::bind("0.0.0.0:0").unwrap();
        let own = service.local_addr().unwrap().port();
        for host in
            ["localhost", "127.0.0.1", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", HOST, "[::ffff:192.0.2.1]"]
        {
            let answer = agent.answer(&format!("{host}:{own}"));
            assert!(
                answer.starts_with("HTTP/1.1 403") && answer.contains("is never dialled"),
                "{host}: {answer}"
            );
        }
        service.set_nonblocking(true).unwrap();
        assert_eq!(service.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        let denied = agent.record(|record| record["dstIP"] == HOST);
        assert_eq!(denied["rule"], "proxy: an address of this host is never dialled");
        assert_eq!((&denied["action"], &denied["srcIP"]), (&"deny".into(), &"10.42.0.9".into()));
        agent.record(|record| record["name"] == "localhost" && record["dstIP"] == "127.0.0.1");

        for (target, error) in [
            (format!("{FAR}:1"), "connection_refused"),
            ("198.51.100.1:80".into(), "destination_ip_unroutable"),
            ("10.42.0.77:80".into(), "destination_ip_unroutable"),
            ("[fd12:3456:789a::a2a:4d]:80".into(), "destination_ip_unroutable"),
            ("tool:80".into(), "destination_ip_unroutable"),
            ("nobody.lattice:80".into(), "dns_error"),
            ("api.example.com:443".into(), "http_request_denied"),
            ("169.254.169.254:80".into(), "built-in: cloud metadata"),
        ] {
            let answer = agent.answer(&target);
            assert!(answer.contains(error), "{target}: {answer}");
        }
    });
}

#[test]
fn a_narrower_policy_resets_what_goes_by_the_hosts_sockets() {
    on_a_host(|_, port| {
        let agent = Agent::start();
        let target = format!("{FAR}:{port}");
        let (mut stream, _) = agent.connect(&target);
        echoes(&mut stream).unwrap();
        agent.narrow(&["198.51.100.0/24"]);
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        let answer = agent.answer(&target);
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("default-deny"), "{answer}");
    });
}

#[test]
fn datagrams_go_out_as_far_as_the_policy_permits_and_come_back_from_nobody_else() {
    on_a_host(|far, port| {
        let agent = Agent::start();
        let mut control = TcpStream::connect(agent.proxy).unwrap();
        control.set_read_timeout(Some(HANGS)).unwrap();
        control.write_all(&[5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
        let mut reply = [0; 12];
        control.read_exact(&mut reply).unwrap();
        assert_eq!(reply[..6], [5, 0, 5, 0, 0, 1]);
        let relay = SocketAddr::from(([127, 0, 0, 1], u16::from_be_bytes([reply[10], reply[11]])));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(HANGS)).unwrap();
        let send = |host: &str, port: u16, payload: &[u8]| {
            let IpAddr::V4(host) = host.parse().unwrap() else { panic!() };
            let header = [&[0, 0, 0, 1][..], &host.octets(), &port.to_be_bytes()].concat();
            socket.send_to(&[&header, payload].concat(), relay).unwrap();
        };
        let mut buffer = [0; 2048];
        send(FAR, port, b"one");
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!((&buffer[4..8], &buffer[10..length]), (&[192, 0, 2, 2][..], &b"one"[..]));

        // Every port of the host, among them the association's, hears from somebody whom the agent did not write to.
        far.run(|| {
            let stranger = UdpSocket::bind((FAR, 0)).unwrap();
            for port in 1024..=u16::MAX {
                let _closed = stranger.send_to(b"unasked", (HOST, port));
            }
        })
        .unwrap();
        // The host's own service, by UDP, too.
        let service = UdpSocket::bind((HOST, 0)).unwrap();
        send(HOST, service.local_addr().unwrap().port(), b"never");
        agent.record(|record| {
            record["dstIP"] == HOST && record["proto"] == "udp" && record["action"] == "deny"
        });
        send(FAR, port, b"two");
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[10..length], b"two", "not what nobody asked for");

        agent.narrow(&["198.51.100.0/24"]);
        send(FAR, port, b"three");
        agent.record(|record| record["dstIP"] == FAR && record["action"] == "deny");
        socket.set_nonblocking(true).unwrap();
        service.set_nonblocking(true).unwrap();
        for silent in [&socket, &service] {
            assert_eq!(silent.recv(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
        }
    });
}

#[test]
fn an_address_that_is_taken_is_named_with_the_remedy_and_a_device_that_ends_is_told() {
    on_a_host(|_, _| {
        let mut agent = Agent::start();
        let (_never, stop) = Stop::new();
        let mut silent = Silent;
        let mut steps = Steps::new(&mut silent, stop);
        let resolver = agent.resolver.as_ref().unwrap();
        let behind = steps::Behind {
            names: resolver.asker(),
            policed: &agent.policed,
            own: ["10.42.0.9".parse().unwrap(), "fd00::9".parse().unwrap()],
            overlay: overlay(),
        };
        let same = lattice_proxy::Config::new(agent.proxy, None).unwrap();
        let failure = steps::proxy(&mut steps, &agent.tasks, same, behind).map(drop).unwrap_err();
        assert_eq!(failure.kind, Kind::Taken);
        let expected = format!("proxy: the proxy cannot listen on {}", agent.proxy);
        assert!(failure.message.starts_with(&expected), "{failure}");
        assert!(failure.message.ends_with("give another address"), "{failure}");
        drop(steps);

        drop(agent.device.take());
        // The proxy ends with it, so either may be told.
        assert!(agent.ended.borrow().is_some());
        assert_eq!(TcpStream::connect(agent.proxy).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}
