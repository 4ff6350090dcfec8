//! The second fence: what a process in a policed cgroup is told when it calls what it may not. The processes are real:
//! this test binary again, told by its environment what to call.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, DirBuilder},
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{fd::AsRawFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use lattice_ebpf::{AttachMode, EbpfError, Enforcer, Options, Pin, probe};
use lattice_policy::{Action, Direction, Proto, Reason, Table};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, socket};

use crate::lab::{AGENT4, Kind, Lab, Netns, PATIENCE, PEER4, Pins, entry, line};

const CALLS: &str = "LATTICE_TEST_CALLS";
const CGROUP: &str = "LATTICE_TEST_CGROUP";
const TOOL4: &str = "198.51.100.1";
const TOOL6: &str = "2001:db8::1";
const MAPPED: &str = "::ffff:198.51.100.1";

/// A directory in the version 2 hierarchy.
struct Cgroup(PathBuf);

impl Cgroup {
    /// None where there is no such hierarchy; the test is then skipped.
    fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !probe().unwrap().cgroup {
            println!("SKIPPED: the cgroup hooks: no cgroup v2 is mounted that takes programs");
            return None;
        }
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let root = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).unwrap();
        let name = format!("lattice-test-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = Path::new(root.split(' ').nth(1).unwrap()).join(name);
        DirBuilder::new().mode(0o700).create(&dir).unwrap();
        Some(Self(dir))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        // A process that was waited for may still be on its way out.
        while fs::remove_dir(&self.0).is_err_and(|e| e.kind() == ErrorKind::ResourceBusy)
            && Instant::now() < deadline
        {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

// === the process that calls ===

/// Not a test: what the tests below start in a cgroup.
#[test]
fn child() {
    let Ok(calls) = env::var(CALLS) else { return };
    if let Ok(cgroup) = env::var(CGROUP) {
        fs::write(Path::new(&cgroup).join("cgroup.procs"), "0").unwrap();
    }
    for call in calls.split(',') {
        let (how, to) = call.split_once(' ').unwrap();
        let to: SocketAddr = to.parse().unwrap();
        let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
        let done = match how {
            "tcp" => TcpStream::connect_timeout(&to, PATIENCE).map(drop),
            "udp" => UdpSocket::bind(any).and_then(|socket| socket.connect(to)),
            "send" => UdpSocket::bind(any).and_then(|socket| socket.send_to(b"x", to)).map(drop),
            "ping" => ping_socket(to),
            "answer" => answer(to),
            other => panic!("no call {other}"),
        };
        let number = done.err().map_or(0, |e| e.raw_os_error().unwrap_or(-1));
        println!("CALL {call}={number}");
    }
}

fn ping_socket(to: SocketAddr) -> io::Result<()> {
    let protocol = SockProtocol::Icmp;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
    Ok(connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?)
}

/// Answers the first datagram that comes to UDP 9000, and then writes to `to` from the same socket.
fn answer(to: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(("0.0.0.0", 9000))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    println!("CALL ready=0");
    let (_, from) = socket.recv_from(&mut [0; 9])?;
    socket.send_to(b"answer", from)?;
    socket.send_to(b"x", to).map(drop)
}

fn command(cgroup: Option<&Cgroup>, calls: &[String]) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "calls::child", "--nocapture"]).env(CALLS, calls.join(","));
    match cgroup {
        Some(cgroup) => command.env(CGROUP, &cgroup.0),
        None => command.env_remove(CGROUP),
    };
    command
}

/// What became of each call: 0 or an errno.
fn results(output: &[u8]) -> BTreeMap<String, i32> {
    let lines = String::from_utf8_lossy(output).into_owned();
    // libtest's own words may stand before ours on the first line.
    let calls = lines.lines().filter_map(|line| line.split_once("CALL ")?.1.rsplit_once('='));
    calls.map(|(call, number)| (call.to_owned(), number.parse().unwrap())).collect()
}

// === a namespace in which everybody answers ===

struct Site {
    netns: Netns,
    enforcer: Enforcer,
    cgroup: Cgroup,
    _pins: Pins,
    _listeners: Vec<TcpListener>,
}

impl Site {
    fn new() -> Option<Self> {
        let (cgroup, netns, pins) = (Cgroup::new()?, Netns::new(), Pins::mount());
        netns.ip("link set lo up");
        for address in [TOOL4, "198.51.100.2", "10.42.0.2"] {
            netns.ip(&format!("addr add {address}/32 dev lo"));
        }
        netns.ip(&format!("addr add {TOOL6}/128 dev lo nodad"));
        let listeners = netns.run(|| {
            fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
            [8080, 9090].map(|port| TcpListener::bind(("::", port)).unwrap()).into()
        });
        let options =
            Options { pin_dir: pins.dir.clone(), own: vec![AGENT4.into()], attach: AttachMode::Auto };
        let enforcer = Enforcer::load(&options).unwrap();
        Some(Self { netns, enforcer, cgroup, _pins: pins, _listeners: listeners })
    }

    fn call(&self, inside: bool, calls: &[(&str, &str, u16)]) -> Vec<i32> {
        let calls: Vec<String> = calls
            .iter()
            .map(|&(how, ip, port)| format!("{how} {}", SocketAddr::new(ip.parse().unwrap(), port)))
            .collect();
        let mut command = command(inside.then_some(&self.cgroup), &calls);
        let output = self.netns.run(|| command.output().unwrap());
        let results = results(&output.stdout);
        let told = String::from_utf8_lossy(&output.stdout);
        calls.iter().map(|call| *results.get(call).unwrap_or_else(|| panic!("{call}: {told}"))).collect()
    }
}

fn policy() -> Table {
    let open = [line(Proto::Tcp, Some(8080), 1), line(Proto::Udp, Some(53), 2)];
    Table {
        egress: vec![entry("198.51.100.1/32", &open), entry("2001:db8::1/128", &open)],
        ingress: Vec::new(),
    }
}

const ALLOWED: [(&str, &str, u16); 9] = [
    ("tcp", TOOL4, 8080),
    ("tcp", TOOL6, 8080),
    ("tcp", MAPPED, 8080),
    ("udp", TOOL4, 53),
    ("udp", MAPPED, 53),
    ("send", TOOL4, 53),
    ("send", TOOL6, 53),
    ("send", MAPPED, 53),
    ("udp", TOOL6, 53),
];
const DENIED: [(&str, &str, u16); 8] = [
    ("tcp", TOOL4, 9090),
    ("tcp", TOOL6, 9090),
    ("tcp", MAPPED, 9090),
    ("tcp", "198.51.100.2", 8080),
    ("tcp", "::ffff:198.51.100.2", 8080),
    ("send", TOOL4, 54),
    ("send", TOOL6, 54),
    ("send", MAPPED, 54),
];
/// The connect of a datagram socket sends nothing.
const SILENT: [(&str, &str, u16); 5] =
    [("udp", TOOL4, 54), ("udp", TOOL6, 54), ("udp", MAPPED, 54), ("ping", TOOL4, 0), ("udp", TOOL4, 8080)];
/// The last is an own address.
const LOCAL: [(&str, &str, u16); 9] = [
    ("tcp", "127.0.0.1", 9090),
    ("tcp", "::1", 9090),
    ("tcp", "::ffff:127.0.0.1", 9090),
    ("tcp", "0.0.0.0", 9090),
    ("tcp", "::", 9090),
    ("udp", "127.9.9.9", 54),
    ("send", "::1", 54),
    ("send", "127.0.0.1", 54),
    ("tcp", "10.42.0.2", 9090),
];

#[test]
fn denied_calls_fail_at_once_and_only_in_the_cgroup() {
    let Some(mut site) = Site::new() else { return };
    site.enforcer.attach_cgroup(&site.cgroup.0).unwrap();
    let (silent, sending): (Vec<_>, Vec<_>) = ALLOWED.into_iter().partition(|(how, ..)| *how == "udp");
    assert_eq!(site.call(true, &sending), vec![libc::EPERM; sending.len()], "no policy yet");
    assert_eq!(site.call(true, &silent), vec![0; silent.len()]);
    assert_eq!(site.call(true, &LOCAL), [0; LOCAL.len()]);
    site.enforcer.apply(&policy(), &[], 1).unwrap();
    assert_eq!(site.call(true, &ALLOWED), [0; ALLOWED.len()]);
    assert_eq!(site.call(true, &DENIED), [libc::EPERM; DENIED.len()]);
    assert_eq!(site.call(true, &SILENT), [0; SILENT.len()]);
    assert_eq!(site.call(true, &LOCAL), [0; LOCAL.len()]);
    assert_eq!(site.call(false, &DENIED), [0; DENIED.len()], "nobody else is concerned");
}

#[test]
fn calls_know_pins_and_new_policies() {
    let Some(mut site) = Site::new() else { return };
    site.enforcer.attach_cgroup(&site.cgroup.0).unwrap();
    let call = [("tcp", "::ffff:198.51.100.2", 8080)];
    let pin = Pin {
        address: "198.51.100.2".parse().unwrap(),
        matches: vec![line(Proto::Tcp, Some(8080), 5)],
        until_ns: u64::MAX,
    };
    site.enforcer.apply(&policy(), &[], 1).unwrap();
    assert_eq!(site.call(true, &call), [libc::EPERM]);
    site.enforcer.pin(&[pin]).unwrap();
    assert_eq!(site.call(true, &call), [0]);
    site.enforcer.apply(&policy(), &[], 2).unwrap();
    assert_eq!(site.call(true, &call), [libc::EPERM]);
}

#[test]
fn denied_calls_are_told_and_counted() {
    let Some(mut site) = Site::new() else { return };
    site.enforcer.attach_cgroup(&site.cgroup.0).unwrap();
    site.enforcer.apply(&policy(), &[], 3).unwrap();
    let twice = [
        ("send", "224.0.0.251", 5353),
        ("tcp", MAPPED, 9090),
        ("send", TOOL6, 54),
        ("tcp", MAPPED, 9090),
        ("tcp", TOOL4, 8080),
    ];
    site.call(true, &twice);
    let mut told = Vec::new();
    site.enforcer.events().unwrap().drain(&mut |flow| told.push(flow));
    let of = |ip: &str, port| told.iter().find(|f| f.dst == SocketAddr::new(ip.parse().unwrap(), port));
    assert!(of(TOOL4, 8080).is_none(), "its packets tell of it");
    let tcp = of(TOOL4, 9090).unwrap();
    assert_eq!(
        (tcp.direction, tcp.action, tcp.reason),
        (Direction::Egress, Action::Deny, Reason::DefaultDeny)
    );
    assert_eq!((tcp.src, tcp.proto, tcp.generation), ("0.0.0.0:0".parse().unwrap(), 6, 3));
    assert_eq!((tcp.bytes, tcp.link, tcp.rule.0), (0, 0, 0));
    let group = of("224.0.0.251", 5353).unwrap();
    assert_eq!(group.reason, Reason::Multicast, "as the programs on links say");
    let udp = of(TOOL6, 54).unwrap();
    assert_eq!((udp.src, udp.proto), ("[::]:0".parse().unwrap(), 17));
    let counters = site.enforcer.counters().unwrap();
    let [(none, counter)] = counters[..] else { panic!("{counters:?}") };
    assert_eq!((none.0, counter.packets, counter.bytes), (0, 3, 0));
}

#[test]
fn the_fence_outlives_its_loader_and_gone_cgroups_leave_no_pins() {
    let Some(mut site) = Site::new() else { return };
    let pins = site._pins.dir.clone();
    let names = || {
        let dir = fs::read_dir(&pins).unwrap().next().unwrap().unwrap().path();
        let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        entries.filter(|name| name.starts_with("link-")).count()
    };
    site.enforcer.attach_cgroup(&site.cgroup.0).unwrap();
    site.enforcer.attach_cgroup(&site.cgroup.0).unwrap();
    assert_eq!(names(), 4);
    site.enforcer.apply(&policy(), &[], 1).unwrap();
    let Site { netns, enforcer, cgroup, _pins, _listeners } = site;
    drop(enforcer);
    let options = Options { pin_dir: _pins.dir.clone(), own: vec![AGENT4.into()], attach: AttachMode::Auto };
    let enforcer = Enforcer::load(&options).unwrap();
    let mut site = Site { netns, enforcer, cgroup, _pins, _listeners };
    assert_eq!(site.call(true, &DENIED[..3]), [libc::EPERM; 3]);
    site.enforcer.attach_cgroup(&site.cgroup.0).unwrap();
    assert_eq!(names(), 4);
    assert_eq!(site.call(true, &DENIED[..3]), [libc::EPERM; 3]);
    assert_eq!(site.call(true, &ALLOWED[..3]), [0; 3]);

    // A cgroup in which there was never a socket: those would hold it until they are closed on both ends.
    let other = Cgroup::new().unwrap();
    site.enforcer.attach_cgroup(&other.0).unwrap();
    assert_eq!(names(), 8);
    drop(other);
    // The kernel lets go of it in its own time.
    let deadline = Instant::now() + PATIENCE;
    loop {
        site.enforcer.attach_cgroup(&site.cgroup.0).unwrap();
        if names() == 4 {
            break;
        }
        assert!(Instant::now() < deadline, "pins of a cgroup that is gone: {}", names());
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(site.call(true, &DENIED[..3]), [libc::EPERM; 3]);
}

#[test]
fn answers_to_whom_ingress_let_in_are_no_denied_calls() {
    let Some(cgroup) = Cgroup::new() else { return };
    let mut lab = Lab::new(Kind::Tun, AttachMode::Auto);
    lab.enforcer().attach_cgroup(&cgroup.0).unwrap();
    let ingress = vec![entry("10.42.0.1/32", &[line(Proto::Udp, Some(9000), 6)])];
    lab.enforcer().apply(&Table { egress: Vec::new(), ingress }, &[], 1).unwrap();
    let peer = lab.peer_binds(PEER4.into(), 4000);
    let stranger = format!("answer {PEER4}:4001");
    let mut command = command(Some(&cgroup), std::slice::from_ref(&stranger));
    let output = thread::scope(|scope| {
        let child = scope.spawn(|| lab.in_agent(|| command.output().unwrap()));
        // It may not be bound yet.
        peer.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut got = [0; 9];
        loop {
            peer.send_to(b"ask", (IpAddr::from(AGENT4), 9000)).unwrap();
            if peer.recv(&mut got).is_ok_and(|n| got[..n] == *b"answer") {
                break;
            }
            assert!(Instant::now() < deadline && !child.is_finished(), "no answer");
        }
        child.join().unwrap()
    });
    assert_eq!(results(&output.stdout).get(&stranger), Some(&libc::EPERM), "and to nobody else");
}

#[test]
fn only_a_cgroup_is_taken_for_one() {
    let Some(mut site) = Site::new() else { return };
    let dir = site._pins.dir.clone();
    for path in [dir.as_path(), Path::new("/nonexistent")] {
        let refused = site.enforcer.attach_cgroup(path).unwrap_err();
        assert!(matches!(&refused, EbpfError::Cgroup { path: named, .. } if named == path), "{refused}");
    }
}
