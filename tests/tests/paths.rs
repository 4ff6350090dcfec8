//! Two hosts find a path through the kernel's own NATs: a direct one where there can be one, else by the relay. With the kernel's
//! WireGuard where there is one, as in the virtual machines, which run some of these tests.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    time::Duration,
};

use lattice_overlay::kernel_has_wireguard;
use lattice_tests::{
    Host, Lab, Nat, Process, User,
    lab::{overlay_ip, wait_until},
    process::command,
    tools,
};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(60);

/// The path that `host` has to `peer`, as `lattice status` says: its kind and where it leads.
fn path(lab: &Lab, host: &Host, name: &str, peer: &str) -> (String, String) {
    let [kind, endpoint, _] = whole_path(lab, host, name, peer);
    (kind, endpoint)
}

/// The same, and by which relay.
fn whole_path(lab: &Lab, host: &Host, name: &str, peer: &str) -> [String; 3] {
    let out = lab.run(host, &["status", name, "-o", "json"]);
    assert_eq!(out.code, 0, "{}", out.stderr);
    let status: serde_json::Value = serde_json::from_str(&out.stdout).expect("JSON");
    let peers = status["peers"][0]["overlay"]["peers"].as_array().cloned().unwrap_or_default();
    let Some(found) = peers.into_iter().find(|found| found["name"] == peer) else {
        return Default::default();
    };
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    ["path", "endpoint", "relay"].map(text)
}

fn ping(lab: &Lab, host: &Host, peer: &str) -> lattice_tests::Output {
    // The second is for a path that was cut just before: a second of loss is what that may cost.
    lab.run(host, &["ping", peer, "--count", "3", "--timeout", "2"])
}

struct Pair {
    lab: Lab,
    a: Host,
    b: Host,
    up: [Process; 2],
}

/// Two hosts that have joined, each behind its NAT or none.
fn joined(lab: Lab, a: Host, b: Host) -> Pair {
    joined_with(lab, a, b, "auto")
}

/// The same, with that WireGuard at the second one.
fn joined_with(lab: Lab, a: Host, b: Host, wireguard: &str) -> Pair {
    let up = [(&a, "a", "auto"), (&b, "b", wireguard)].map(|(host, name, wireguard)| {
        let (up, _) = lab.up_with(host, name, &["--wireguard", wireguard]);
        let kernel = wireguard == "auto" && kernel_has_wireguard();
        let backend = if kernel { "kernel" } else { "userspace" };
        assert!(up.output().1.contains(&format!(" {backend} udp ")), "{}", up.output().1);
        up
    });
    wait_until(LIMIT, "both to know of each other", || {
        path(&lab, &a, "a", "b") != Default::default() && path(&lab, &b, "b", "a") != Default::default()
    });
    Pair { lab, a, b, up }
}

impl Pair {
    /// How both see it, for whoever looks at a failure.
    fn statuses(&self) -> String {
        let of = |host: &Host, name: &str| self.lab.run(host, &["status", name]).stdout;
        of(&self.a, "a") + &of(&self.b, "b")
    }

    fn assert_reach(&self, kind: &str, endpoint: &str) {
        for (host, name, peer) in [(&self.a, "a", "b"), (&self.b, "b", "a")] {
            let out = ping(&self.lab, host, peer);
            assert_eq!(out.code, 0, "{name} to {peer}: {}{}{}", out.stdout, out.stderr, self.statuses());
        }
        let mut seen = Default::default();
        wait_until(LIMIT, &format!("a {kind} path"), || {
            let _ = ping(&self.lab, &self.a, "b");
            seen = path(&self.lab, &self.a, "a", "b");
            seen.0 == kind && seen.1.starts_with(endpoint)
        });
    }
}

#[test]
fn two_nats_that_keep_ports_are_passed() {
    let mut lab = Lab::start();
    let _reach = lab.start_reach();
    let (a, _a) = lab.host_behind(Nat::Cone);
    let (b, router) = lab.host_behind(Nat::Cone);
    joined(lab, a, b).assert_reach("direct", &router.address.to_string());
}

#[test]
fn two_symmetric_nats_are_passed_by_the_relay() {
    let mut lab = Lab::start();
    let _reach = lab.start_reach();
    let (a, _a) = lab.host_behind(Nat::Symmetric);
    let (b, _b) = lab.host_behind(Nat::Symmetric);
    let pair = joined(lab, a, b);
    pair.assert_reach("relay", "");
    wait_until(LIMIT, "the reason why not directly", || {
        ping(&pair.lab, &pair.a, "b").stdout.contains("symmetric")
    });
}

#[test]
fn without_udp_there_is_the_relay_by_tcp() {
    let mut lab = Lab::start();
    let _reach = lab.start_reach();
    let (a, _a) = lab.host_behind(Nat::NoUdp);
    let b = lab.host();
    joined(lab, a, b).assert_reach("relay", "");
}

#[test]
fn a_direct_path_that_is_cut_is_replaced_by_the_relay_and_comes_back() {
    let mut lab = Lab::start();
    let _reach = lab.start_reach();
    let (a, other) = lab.host_behind(Nat::Cone);
    let (b, router) = lab.host_behind(Nat::Cone);
    let pair = joined(lab, a, b);
    pair.assert_reach("direct", "");
    router.cut(other.address);
    pair.assert_reach("relay", "");
    router.heal();
    pair.assert_reach("direct", "");
}

#[test]
fn a_host_that_gets_another_address_is_found_again() {
    let mut lab = Lab::start();
    let _reach = lab.start_reach();
    let (a, _a) = lab.host_behind(Nat::Cone);
    let (b, mut router) = lab.host_behind(Nat::Cone);
    let mut pair = joined(lab, a, b);
    pair.assert_reach("direct", &router.address.to_string());
    router.renumber(&mut pair.lab);
    pair.assert_reach("direct", &router.address.to_string());
}

#[test]
fn without_a_relay_and_a_stun_server_a_host_behind_a_nat_reaches_one_in_the_open() {
    let mut lab = Lab::start();
    let (a, _a) = lab.host_behind(Nat::Symmetric);
    let b = lab.host();
    let address = b.address.to_string();
    joined(lab, a, b).assert_reach("direct", &address);
}

#[test]
fn a_relay_that_is_killed_and_comes_back_is_used_again() {
    let mut lab = Lab::start();
    let mut reach = lab.start_reach();
    let (a, _a) = lab.host_behind(Nat::Symmetric);
    let (b, _b) = lab.host_behind(Nat::Symmetric);
    let pair = joined(lab, a, b);
    pair.assert_reach("relay", "");
    drop(reach.relay);
    let out = ping(&pair.lab, &pair.a, "b");
    assert_ne!(out.code, 0, "nothing else leads there: {}", out.stdout);
    reach.relay = pair.lab.start_relay();
    wait_until(LIMIT, "the relay to be used again", || ping(&pair.lab, &pair.a, "b").code == 0);
}

/// One of them is in user space in any case.
#[test]
fn two_kinds_of_wireguard_find_each_other_through_nats() {
    let mut lab = Lab::start();
    let _reach = lab.start_reach();
    let (a, _a) = lab.host_behind(Nat::Cone);
    let (b, router) = lab.host_behind(Nat::Cone);
    joined_with(lab, a, b, "userspace").assert_reach("direct", &router.address.to_string());
}

#[test]
fn peers_without_traffic_cost_nothing_and_are_reached_at_once() {
    let mut lab = Lab::start();
    let _reach = lab.start_reach();
    let (a, _a) = lab.host_behind(Nat::Cone);
    let b = lab.host();
    let pair = joined(lab, a, b);
    // A keepalive would have begun a handshake at once.
    std::thread::sleep(Duration::from_secs(2));
    let status = pair.lab.run(&pair.a, &["status", "a", "-o", "json"]).stdout;
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    let peer = &status["peers"][0]["overlay"]["peers"][0];
    assert_eq!((&peer["txBytes"], &peer["rxBytes"]), (&0.into(), &0.into()), "{peer}");
    assert!(peer["handshakeAge"].is_null(), "{peer}");
    pair.assert_reach("direct", "");
}

/// coturn, as Debian packages it, where a STUN server is wanted.
#[test]
fn coturn_serves_as_stun_server() {
    if !["/usr/bin/turnserver", "/usr/sbin/turnserver"].iter().any(|path| Path::new(path).exists()) {
        println!("SKIPPED: coturn as STUN server: turnserver is not installed");
        return;
    }
    let mut lab = Lab::start();
    let mut coturn = command(&lab.hub().path(), Path::new("turnserver"));
    coturn.args(["-n", "--stun-only", "--no-auth", "--no-tls", "--no-dtls", "--no-cli"]);
    coturn.args(["--listening-ip", "192.168.50.1", "--log-file", "stdout"]);
    for (option, file) in [("--pidfile", "coturn.pid"), ("--userdb", "coturn.db")] {
        coturn.arg(option).arg(lab.dir.path().join(file));
    }
    let _coturn = Process::spawn(coturn, "coturn", lab.dir.path());
    lab.tell_of(&["--stun", "192.168.50.1:3478"]);
    let (a, _a) = lab.host_behind(Nat::Cone);
    let (b, router) = lab.host_behind(Nat::Cone);
    // Nothing but a STUN server's word leads through both.
    joined(lab, a, b).assert_reach("direct", &router.address.to_string());
}

/// A binding request (RFC 8489 section 5) without attributes, and what the answer says of who sent it.
fn mapped(host: &Host, from: SocketAddr, server: SocketAddr) -> Option<SocketAddr> {
    let socket = host.netns.run(|| UdpSocket::bind(from)).expect("the namespace").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    let mut request = [0; 20];
    request[..8].copy_from_slice(&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42]);
    request[8..].fill(7);
    let mut answer = [0; 256];
    socket.send_to(&request, server).ok()?;
    let length = socket.recv(&mut answer).ok()?;
    assert_eq!((&answer[..2], &answer[4..20]), (&[1, 1][..], &request[4..]));
    // XOR-MAPPED-ADDRESS, wherever it is among the attributes.
    let (mut rest, xor) = (&answer[20..length], &request[4..]);
    loop {
        let [kind @ .., b1, b2] = rest.first_chunk::<4>()?;
        let size = usize::from(u16::from_be_bytes([*b1, *b2]));
        let value = rest.get(4..4 + size)?;
        if *kind == [0x00, 0x20] {
            let port = u16::from_be_bytes([value[2] ^ xor[0], value[3] ^ xor[1]]);
            let plain: Vec<u8> = value[4..].iter().zip(xor).map(|(byte, mask)| byte ^ mask).collect();
            let ip = match <[u8; 4]>::try_from(plain.as_slice()) {
                Ok(v4) => IpAddr::from(v4),
                Err(_) => IpAddr::from(<[u8; 16]>::try_from(plain.as_slice()).ok()?),
            };
            return Some((ip, port).into());
        }
        rest = rest.get(4 + size.next_multiple_of(4)..)?;
    }
}

#[test]
fn the_stun_server_answers_by_both_ip_versions_from_one_socket() {
    let mut lab = Lab::bare();
    let host = lab.host();
    lab.ip("addr add fd50::1/64 dev br0 nodad");
    host.ip("addr add fd50::2/64 dev eth0 nodad");
    let mut turn = command(&lab.hub().path(), &tools::built("lattice"));
    turn.args(["start", "turn"]);
    let mut turn = Process::spawn(turn, "turn", lab.dir.path());
    turn.wait_for("ready", LIMIT);
    for (from, server) in [("[fd50::2]:7000", "[fd50::1]:3478"), ("0.0.0.0:7000", "192.168.50.1:3478")] {
        let (from, server): (SocketAddr, SocketAddr) = (from.parse().unwrap(), server.parse().unwrap());
        let expected = match from {
            SocketAddr::V4(_) => (host.address, 7000).into(),
            from => from,
        };
        let mut seen = None;
        wait_until(LIMIT, "an answer", || {
            seen = mapped(&host, from, server);
            seen.is_some()
        });
        assert_eq!(seen, Some(expected));
    }
}

/// Full-size segments are cut for as long as a relay carries them.
#[test]
fn bulk_by_a_relay_stays_on_quic() {
    let mut lab = Lab::start();
    let _reach = lab.start_reach();
    let (a, _a) = lab.host_behind(Nat::Symmetric);
    let (b, _b) = lab.host_behind(Nat::Symmetric);
    let pair = joined(lab, a, b);
    pair.assert_reach("relay", "");
    let service = pair.lab.serve_http(&pair.b, 8000);
    std::fs::write(pair.b.dir.join("www/bulk"), vec![7; 1 << 20]).expect("a file");
    let address: Ipv4Addr = overlay_ip(&pair.up[1].output().1);
    let url = format!("http://{address}:8000/bulk");
    let out =
        pair.lab.on(&pair.a, "curl", &["-sf", "-m", "55", "-o", "/dev/null", "-w", "%{size_download}", &url]);
    assert_eq!((out.code, out.stdout.as_str()), (0, "1048576"), "{}", out.stderr);
    drop(service);
    for (host, name) in [(&pair.a, "a"), (&pair.b, "b")] {
        let status = pair.lab.run(host, &["status", name, "-o", "json"]).stdout;
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        let relay = &status["peers"][0]["overlay"]["relays"][0];
        assert_eq!(relay["state"], "quic", "{name}: {relay}");
    }
}

/// Takes what is uploaded to it, and says how many bytes that were.
const SINK: &str = r#"
from http.server import BaseHTTPRequestHandler, HTTPServer
class Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_PUT(self):
        size = str(len(self.rfile.read(int(self.headers["Content-Length"])))).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(size)))
        self.end_headers()
        self.wfile.write(size)
HTTPServer(("", 9000), Sink).serve_forever()
"#;

/// The same of a sandbox whose network is our own stack. Were its segments not cut, the relay would have the receiver leave QUIC as well.
#[test]
fn bulk_of_pod_mode_by_a_relay_stays_on_quic() {
    let mut lab = Lab::start();
    let _reach = lab.start_reach();
    let (a, _a) = lab.host_behind(Nat::Symmetric);
    let (b, _b) = lab.host_behind(Nat::Symmetric);
    let (_up, address) = lab.up(&b, "b");
    let mut sink = command(&b.netns.path(), Path::new("/usr/bin/python3"));
    sink.args(["-c", SINK]);
    let sink = Process::spawn(sink, "sink", lab.dir.path());
    let user = User::new(&lab, &a, 12_345, "agent");
    let pod = user.pod(
        &lab,
        &a,
        "a",
        &["--proxy-addr", "127.0.0.1:0", "--egress-allow", &format!("{address}/32:9000")],
    );
    let file = a.dir.join("bulk");
    std::fs::write(&file, vec![7; 1 << 20]).expect("a file");
    let (proxy, url) = (format!("socks5h://{}", pod.proxy()), format!("http://{address}:9000/"));
    let put = [
        "-sS",
        "-m",
        "55",
        "--retry",
        "9",
        "--retry-all-errors",
        "-x",
        &proxy,
        "-T",
        &file.display().to_string(),
        &url,
    ];
    let out = lab.on(&a, "curl", &put);
    assert_eq!((out.code, out.stdout.as_str()), (0, "1048576"), "{}", out.stderr);
    let status = lab.run(&b, &["status", "b", "-o", "json"]).stdout;
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    let overlay = &status["peers"][0]["overlay"];
    let [path, state] = [&overlay["peers"][0]["path"], &overlay["relays"][0]["state"]];
    assert_eq!((path.as_str(), state.as_str()), (Some("relay"), Some("quic")), "{status}");
    pod.end();
    drop(sink);
}

/// The longest row of packets that were lost, as their numbers tell.
fn longest_loss(ping: &Process, every: Duration) -> Duration {
    let seen = ping.output().0;
    let numbers: Vec<u32> = seen.lines().filter_map(number).collect();
    every * numbers.windows(2).map(|pair| pair[1].saturating_sub(pair[0] + 1)).max().unwrap_or(0)
}

fn number(line: &str) -> Option<u32> {
    line.split("icmp_seq=").nth(1)?.split(' ').next()?.parse().ok()
}

/// Two relays, of which one goes `by` a signal while packets pass by it.
fn a_relay_goes(by: Signal) {
    const EVERY: Duration = Duration::from_millis(50);
    // Three quarters of a second where nothing else runs; a relay whose end only its transport sees would cost half a minute.
    const MOST: Duration = Duration::from_secs(10);
    let mut lab = Lab::start();
    let reach = lab.start_reach_and_spare();
    let (a, _a) = lab.host_behind(Nat::Symmetric);
    let (b, _b) = lab.host_behind(Nat::Symmetric);
    let pair = joined(lab, a, b);
    pair.assert_reach("relay", "");
    for (host, name) in [(&pair.a, "a"), (&pair.b, "b")] {
        wait_until(LIMIT, "both relays", || {
            let status = pair.lab.run(host, &["status", name, "-o", "json"]).stdout;
            let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
            let relays = status["peers"][0]["overlay"]["relays"].as_array().cloned().unwrap_or_default();
            let is_up = |relay: &&serde_json::Value| relay["state"] == "quic" || relay["state"] == "tcp";
            relays.iter().filter(is_up).count() == 2
        });
    }
    let target: Ipv4Addr = overlay_ip(&pair.up[1].output().1);
    let mut ping = command(&pair.a.netns.path(), Path::new("ping"));
    ping.args(["-n", "-i", &EVERY.as_secs_f32().to_string(), &target.to_string()]);
    let ping = Process::spawn(ping, "ping", pair.lab.dir.path());
    let replies = || ping.output().0.lines().filter_map(number).count();
    wait_until(LIMIT, "replies", || replies() > 40);
    let [.., used] = whole_path(&pair.lab, &pair.a, "a", "b");
    let dying = if used == "spare" { reach.spare.as_ref().expect("a spare") } else { &reach.relay };
    dying.signal(by);
    let before = replies();
    wait_until(LIMIT, "replies by the other one", || replies() > before + 60);
    let [kind, _, now] = whole_path(&pair.lab, &pair.a, "a", "b");
    assert!(kind == "relay" && now != used, "{kind} {now}, before {used}");
    let lost = longest_loss(&ping, EVERY);
    println!("lost when the relay went by {by}: {lost:?}");
    assert!(lost <= MOST, "nothing for {lost:?}");
    dying.signal(Signal::SIGKILL);
}

#[test]
fn when_the_relay_in_use_is_killed_the_other_one_takes_over() {
    a_relay_goes(Signal::SIGKILL);
}

#[test]
fn when_the_relay_in_use_hangs_the_other_one_takes_over() {
    a_relay_goes(Signal::SIGSTOP);
}
