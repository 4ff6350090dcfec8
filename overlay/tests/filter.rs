//! A device that judges its own packets, against one that does not, in anonymous network namespaces. Needs root.

#![allow(clippy::unwrap_used, reason = "clippy knows only functions marked #[test] as tests")]

#[allow(dead_code, reason = "the tests of devices without a filter use the rest")]
#[path = "devices/host.rs"]
mod host;

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use host::{Host, eventually, join};
use lattice_overlay::{
    Backend, BackendChoice, DeviceConfig, DeviceError, FilterConfig, FilterEvents, UserFilter, create,
};
use lattice_policy::{Action, Direction, Flow, Match, Pin, Policy, Proto, Reason, RuleId, Table, parse_rule};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

const OPEN: u16 = 7000;
const CLOSED: u16 = 7001;
const PATIENCE: Duration = Duration::from_secs(30);

/// The agent's host, whose device judges, and another; in rules 10.42.0.2 and fd42::2.
struct Lab {
    agent: Host,
    other: Host,
    events: FilterEvents,
    waiting: Vec<Flow>,
}

impl Lab {
    fn new() -> Self {
        let own = vec!["10.42.0.1".parse().unwrap(), "fd42::1".parse().unwrap()];
        let agent = Host::with_filter(1, "wg0", BackendChoice::Auto, Some(FilterConfig { own }));
        assert_eq!(agent.device().backend(), Backend::UserSpace);
        let (agent, other) = join(agent, Host::new(2));
        for (host, peer) in [(&agent, &other), (&other, &agent)] {
            host.set_peers(&[peer.config()]);
            host.bring_up();
        }
        let events = agent.device().filter().unwrap().events().unwrap();
        Self { agent, other, events, waiting: Vec::new() }
    }

    fn with(egress: &[&str], ingress: &[&str]) -> Self {
        let lab = Self::new();
        lab.filter().apply(&table(egress, ingress), &[], 1).unwrap();
        lab
    }

    fn filter(&self) -> &UserFilter {
        self.agent.device().filter().unwrap()
    }

    fn other(&self, port: u16) -> [SocketAddr; 2] {
        [self.other.inner_v4(), self.other.inner_v6()].map(|ip| SocketAddr::new(ip, port))
    }

    /// Waits for a verdict like this. The others wait on.
    fn told(&mut self, wanted: impl Fn(&Flow) -> bool) -> Flow {
        loop {
            self.events.drain(&mut |flow| self.waiting.push(flow));
            if let Some(at) = self.waiting.iter().position(&wanted) {
                return self.waiting.remove(at);
            }
            let mut fds = [PollFd::new(self.events.as_fd(), PollFlags::POLLIN)];
            let patience = PollTimeout::try_from(PATIENCE).unwrap();
            assert_eq!(poll(&mut fds, patience), Ok(1), "no such verdict came");
        }
    }
}

fn table(egress: &[&str], ingress: &[&str]) -> Table {
    let add = |policy: Policy, (rule, direction): (&str, Direction)| {
        let (action, text) = match rule.strip_prefix('!') {
            Some(text) => (Action::Deny, text),
            None => (Action::Allow, rule),
        };
        match direction {
            Direction::Egress => policy.egress(action, parse_rule(text).unwrap()),
            Direction::Ingress => policy.ingress(action, parse_rule(text).unwrap()),
        }
    };
    let out = egress.iter().map(|rule| (*rule, Direction::Egress));
    let inward = ingress.iter().map(|rule| (*rule, Direction::Ingress));
    out.chain(inward).fold(Policy::new(1), add).compile()
}

fn listen(host: &Host, at: SocketAddr) -> TcpListener {
    host.inside.run(|| TcpListener::bind(at).unwrap()).unwrap()
}

fn connect(host: &Host, to: SocketAddr) -> io::Result<TcpStream> {
    let stream = host.inside.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A datagram from `host`, and what its sender hears of it: the first error that the socket is told.
fn udp_error(host: &Host, to: SocketAddr) -> Option<Errno> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = host.inside.run(|| UdpSocket::bind(any).unwrap()).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(b"is anybody there").unwrap();
    socket.recv(&mut [0; 16]).unwrap_err().raw_os_error().map(Errno::from_raw)
}

fn got_nothing(listener: &TcpListener) -> bool {
    listener.set_nonblocking(true).unwrap();
    listener.accept().is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn what_a_rule_names_passes_and_the_rest_is_refused_at_once() {
    let mut lab = Lab::with(&["tcp:10.42.0.2:7000", "tcp:[fd42::2]:7000", "udp:10.42.0.2:1-65535"], &[]);
    for (open, closed) in lab.other(OPEN).into_iter().zip(lab.other(CLOSED)) {
        let (listener, canary) = (listen(&lab.other, open), listen(&lab.other, closed));
        let mut stream = connect(&lab.agent, open).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        stream.write_all(b"hello").unwrap();
        let mut heard = [0; 5];
        accepted.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");
        accepted.write_all(b"reply").unwrap();
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"reply");

        let refused = connect(&lab.agent, closed).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
        assert!(got_nothing(&canary));

        let told = lab.told(|flow| flow.dst == open);
        assert_eq!((told.action, told.reason, told.generation), (Action::Allow, Reason::RuleAllow, 1));
        assert_eq!((told.proto, told.src.ip()), (6, stream.local_addr().unwrap().ip()));
        let told = lab.told(|flow| flow.dst == closed);
        assert_eq!((told.action, told.reason), (Action::Deny, Reason::DefaultDeny));
    }
    assert!(lab.agent.udp_echo(&lab.other, lab.other.inner_v4(), &[7; 1300]));
    let [_, v6] = lab.other(CLOSED);
    assert_eq!(udp_error(&lab.agent, v6), Some(Errno::EACCES), "ICMPv6 1/1");
    lab.filter().apply(&table(&[], &[]), &[], 2).unwrap();
    let [v4, _] = lab.other(CLOSED);
    assert_eq!(udp_error(&lab.agent, v4), Some(Errno::EHOSTUNREACH), "ICMP 3/13");
    assert_eq!(
        lab.agent.tcp_connect("10.42.0.99".parse().unwrap()).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    assert_eq!(lab.filter().lost(), 0);
}

#[test]
fn an_allowed_address_that_no_peer_has_is_unreachable_at_once() {
    let lab = Lab::with(&["10.42.0.0/16", "fd42::/64"], &[]);
    for nobody in ["10.42.0.99", "fd42::99"] {
        let error = lab.agent.tcp_connect(nobody.parse().unwrap()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EHOSTUNREACH as i32), "{nobody}: {error}");
    }
}

#[test]
fn nothing_passes_before_a_policy() {
    let mut lab = Lab::new();
    let inbox = lab.agent.udp_inbox();
    for (open, own) in lab.other(OPEN).into_iter().zip([lab.agent.inner_v4(), lab.agent.inner_v6()]) {
        let canary = listen(&lab.other, open);
        assert_eq!(connect(&lab.agent, open).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert!(got_nothing(&canary));
        let told = lab.told(|flow| flow.dst == open);
        assert_eq!((told.reason, told.generation), (Reason::NoPolicy, 0));

        let to = SocketAddr::new(own, inbox.local_addr().unwrap().port());
        send(&lab.other, to, b"from outside");
        let told = lab.told(|flow| flow.dst == to);
        assert_eq!((told.direction, told.reason), (Direction::Ingress, Reason::NoPolicy));
    }
    inbox.set_nonblocking(true).unwrap();
    assert_eq!(inbox.recv(&mut [0; 16]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(lab.agent.device().filter().unwrap().counters().unwrap().is_empty());
}

fn send(host: &Host, to: SocketAddr, payload: &[u8]) {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    host.inside.run(|| UdpSocket::bind(any).unwrap().send_to(payload, to).unwrap()).unwrap();
}

/// Large packets are judged as one, and count as what leaves.
#[test]
fn a_stream_is_counted_by_what_crosses_the_overlay_and_cut_in_its_midst() {
    const BYTES: usize = 8 << 20;
    let lab = Lab::with(&["10.42.0.2", "[fd42::2]"], &[]);
    for (number, to) in [lab.other.inner_v4(), lab.other.inner_v6()].into_iter().enumerate() {
        assert_eq!(lab.agent.tcp_transfer(&lab.other, to, BYTES), BYTES);
        let counters = lab.filter().counters().unwrap();
        assert_eq!(counters.len(), number + 1, "{counters:?}");
        let (_, counter) = counters[number];
        let segments = (BYTES / 1380) as u64;
        assert!(counter.packets > segments && counter.bytes > BYTES as u64 + 40 * segments, "{counter:?}");
        assert!(counter.bytes < BYTES as u64 * 6 / 5, "{counter:?}");
    }

    let [open, _] = lab.other(OPEN);
    let listener = listen(&lab.other, open);
    let mut stream = connect(&lab.agent, open).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            loop {
                if let Err(error) = stream.write_all(&[7; 1 << 16]) {
                    return error;
                }
            }
        });
        accepted.read_exact(&mut vec![0; 1 << 20]).unwrap();
        lab.filter().apply(&table(&["tcp:10.42.0.2:7002"], &[]), &[], 2).unwrap();
        let cut = writer.join().unwrap();
        assert_eq!(cut.kind(), ErrorKind::ConnectionReset, "{cut}");
    });
}

#[test]
fn a_narrower_policy_cuts_an_open_connection() {
    let mut lab = Lab::with(&["tcp:10.42.0.2:7000"], &[]);
    let [open, _] = lab.other(OPEN);
    let listener = listen(&lab.other, open);
    let mut stream = connect(&lab.agent, open).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    lab.filter().apply(&table(&["tcp:10.42.0.0/16:7000"], &[]), &[], 2).unwrap();
    stream.write_all(b"still").unwrap();
    let mut heard = [0; 5];
    accepted.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"still", "the new policy allows it as well");

    lab.filter().apply(&table(&["tcp:10.42.0.2:7002"], &[]), &[], 3).unwrap();
    stream.write_all(b"over").unwrap();
    let cut = stream.read(&mut heard).unwrap_err();
    assert_eq!(cut.kind(), ErrorKind::ConnectionReset, "{cut}");
    let told = lab.told(|flow| flow.dst == open && flow.action == Action::Deny);
    assert_eq!((told.reason, told.generation), (Reason::DefaultDeny, 3));
    accepted.set_nonblocking(true).unwrap();
    assert_eq!(accepted.read(&mut heard).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn others_reach_what_ingress_rules_open() {
    let mut lab = Lab::with(&[], &["udp:10.42.0.2:7000", "tcp:10.42.0.2:7000"]);
    let inbox = lab.agent.inside.run(|| UdpSocket::bind(("10.42.0.1", OPEN)).unwrap()).unwrap();
    let shut = lab.agent.inside.run(|| UdpSocket::bind(("10.42.0.1", CLOSED)).unwrap()).unwrap();
    inbox.set_read_timeout(Some(PATIENCE)).unwrap();
    let (open, closed) = (inbox.local_addr().unwrap(), shut.local_addr().unwrap());
    send(&lab.other, closed, b"denied");
    send(&lab.other, open, b"allowed");
    let mut heard = [0; 16];
    let len = inbox.recv(&mut heard).unwrap();
    assert_eq!(&heard[..len], b"allowed");
    shut.set_nonblocking(true).unwrap();
    assert_eq!(shut.recv(&mut heard).unwrap_err().kind(), ErrorKind::WouldBlock);
    let told = lab.told(|flow| flow.dst == closed);
    assert_eq!((told.direction, told.action), (Direction::Ingress, Action::Deny));

    let listener = listen(&lab.agent, open);
    let mut stream = connect(&lab.other, open).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.write_all(b"welcome").unwrap();
    let mut welcome = [0; 7];
    stream.read_exact(&mut welcome).unwrap();
    assert_eq!(&welcome, b"welcome", "replies go out though no egress rule names them");
}

#[test]
fn a_pin_opens_an_address_and_rules_are_counted() {
    let lab = Lab::with(&["!10.42.0.2:7001"], &[]);
    let ([open, _], [closed, _]) = (lab.other(OPEN), lab.other(CLOSED));
    let (listener, canary) = (listen(&lab.other, open), listen(&lab.other, closed));
    assert_eq!(connect(&lab.agent, open).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let any = Match { proto: Proto::Tcp, ports: None, action: Action::Allow, rule: RuleId(9) };
    let pin = Pin { address: open.ip(), matches: vec![any], until_ns: u64::MAX };
    lab.filter().pin(std::slice::from_ref(&pin)).unwrap();
    let stream = connect(&lab.agent, open).unwrap();
    drop((stream, listener.accept().unwrap()));
    assert_eq!(
        connect(&lab.agent, closed).unwrap_err().kind(),
        ErrorKind::ConnectionRefused,
        "a rule denies"
    );
    assert!(got_nothing(&canary));

    let counters = lab.filter().counters().unwrap();
    let packets = |rule| counters.iter().find(|(id, _)| *id == RuleId(rule)).map_or(0, |(_, n)| n.packets);
    assert_eq!((packets(0), packets(1)), (1, 1), "{counters:?}");
    assert!(packets(9) >= 3, "{counters:?}");
    let over = Pin { until_ns: 1, ..pin };
    lab.filter().apply(&table(&[], &[]), &[over], 2).unwrap();
    assert_eq!(connect(&lab.agent, open).unwrap_err().kind(), ErrorKind::ConnectionRefused, "long over");
}

#[test]
fn no_packet_slips_through_between_two_policies_that_deny_it() {
    let lab = Lab::with(&["udp:10.42.0.2:7000"], &[]);
    let inbox = lab.other.inside.run(|| UdpSocket::bind(("10.42.0.2", OPEN)).unwrap()).unwrap();
    let canary = lab.other.inside.run(|| UdpSocket::bind(("10.42.0.2", CLOSED)).unwrap()).unwrap();
    inbox.set_read_timeout(Some(PATIENCE)).unwrap();
    let (open, closed) = (inbox.local_addr().unwrap(), canary.local_addr().unwrap());
    let stop = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let socket = lab.agent.inside.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                sent += u64::from(socket.send_to(b"flood", closed).is_ok());
            }
            sent
        });
        let tables =
            [table(&["udp:10.42.0.2:7000", "10.42.0.3"], &[]), table(&["udp:10.42.0.0/16:7000"], &[])];
        for generation in 2..200 {
            let table = &tables[generation as usize % 2];
            lab.filter().apply(table, &[], generation).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        flood.join().unwrap()
    });
    assert!(sent > 0);
    // What was sent before this has been judged before it.
    send(&lab.agent, open, b"last");
    let mut heard = [0; 8];
    let len = inbox.recv(&mut heard).unwrap();
    assert_eq!(&heard[..len], b"last");
    canary.set_nonblocking(true).unwrap();
    assert_eq!(canary.recv(&mut heard).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn events_can_be_drained_when_the_device_is_gone() {
    let Lab { mut agent, other, mut events, .. } = Lab::with(&[], &[]);
    let filter = agent.device().filter().unwrap().clone();
    assert!(matches!(filter.events(), Err(DeviceError::EventsTaken(ref name)) if name == "wg0"));
    let to = SocketAddr::new(other.inner_v4(), CLOSED);
    assert_eq!(connect(&agent, to).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    agent.drop_device();
    let mut told = Vec::new();
    events.drain(&mut |flow| told.push(flow.dst));
    assert!(told.contains(&to), "{told:?}");
    let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::ZERO), Ok(0), "there is no more to wake for");
    let gone = filter.apply(&Table::default(), &[], 2).unwrap_err();
    assert!(matches!(gone, DeviceError::Stopped(_)), "{gone}");
}

#[test]
fn verdicts_that_nobody_drains_are_counted() {
    let mut lab = Lab::with(&[], &[]);
    let socket = lab.agent.inside.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    let to = |port: u16| SocketAddr::new(IpAddr::from([10, 42, 0, 2]), port);
    let mut port = 0;
    eventually("verdicts to be lost", || {
        for _ in 0..500 {
            port += 1;
            // An answer to an earlier one is an error of this one.
            let _ = socket.send_to(b"scan", to(port));
        }
        lab.filter().lost() > 0
    });
    let mut told = 0;
    while lab.events.drain(&mut |_| told += 1) == FilterEvents::BATCH {}
    assert!(told >= 4096, "{told}");
}

#[test]
fn the_kernel_backend_and_a_device_without_a_filter_have_none() {
    let host = Host::new(1);
    assert!(host.device().filter().is_none());
    let filter = Some(FilterConfig { own: vec![host.inner_v4()] });
    let config = DeviceConfig { name: "wg1".into(), filter, ..host.device_config() };
    let refused = create(config, BackendChoice::Kernel).unwrap_err();
    assert!(matches!(refused, DeviceError::KernelFilter), "{refused}");
}
