//! Rules outside the overlay: the command's own TCP and UDP, by sockets of the host that it does not have.

use std::{
    fs,
    net::UdpSocket,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use lattice_tests::{Host, Process, process::command};
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use crate::place::{LIMIT, Place};

/// Addresses that are nobody's in the tests' namespaces but the world's.
const SERVER: &str = "23.20.0.1";
const SERVER_6: &str = "2600:1f00:51::1";
const AGENT: &str = include_str!("outside.py");
const WORLD: &str = include_str!("world.py");
const INTERNET: &str = include_str!("../names/internet.py");

struct World {
    place: Place,
    services: Process,
    _internet: Process,
    _host: Host,
}

impl World {
    fn new() -> Self {
        let mut place = Place::new();
        let world = place.lab.host();
        for (on, args) in [
            (&world, format!("addr add {SERVER}/32 dev lo")),
            (&world, format!("addr add {SERVER_6}/128 dev lo")),
            (&world, "addr add 2600:1f00:50::1/64 dev eth0 nodad".into()),
            (&place.host, "addr add 2600:1f00:50::2/64 dev eth0 nodad".into()),
            (&place.host, format!("route add default via {}", world.address)),
            (&place.host, "-6 route add default via 2600:1f00:50::1".into()),
            (&place.host, "route add unreachable 198.51.100.0/24".into()),
        ] {
            let words: Vec<&str> = args.split_whitespace().collect();
            let out = place.lab.on(on, "ip", &words);
            assert_eq!(out.code, 0, "ip {args}: {}", out.stderr);
        }
        let serve = |script: &str, args: &[&str]| {
            let mut python = command(&world.netns.path(), Path::new("python3"));
            python.args(["-c", script]).args(args);
            let mut process = Process::spawn(python, "world", place.lab.dir.path());
            process.wait_for("serves", LIMIT);
            process
        };
        let zone = json!({"api.example.com": [["A", SERVER]], "other.example.com": [["A", SERVER]]});
        let internet = serve(INTERNET, &[&zone.to_string(), "8080"]);
        let services = serve(WORLD, &[SERVER]);
        let conf = place.lab.dir.path().join("resolv.conf");
        fs::write(&conf, format!("nameserver {}\n", world.address)).expect("resolv.conf");
        let none = None::<&str>;
        mount(Some(&conf), "/etc/resolv.conf", none, MsFlags::MS_BIND, none).expect("a bind mount");
        Self { place, services, _internet: internet, _host: world }
    }

    fn records(&self, wanted: impl Fn(&Value) -> bool) -> usize {
        self.place.records().iter().filter(|record| wanted(record)).count()
    }
}

#[test]
fn a_rule_outside_the_overlay_is_reached_as_by_a_network_of_the_commands_own() {
    let world = World::new();
    let place = &world.place;
    let _service = place.lab.serve_http(&place.host, 7070);
    let datagrams = place.host.netns.run(|| UdpSocket::bind((place.host.address, 7071))).unwrap().unwrap();
    datagrams.set_nonblocking(true).unwrap();
    ping_sockets(place, "0 2147483647");
    let own = place.host.address.to_string();
    let rules = [
        "tcp:api.example.com:8080".to_owned(),
        format!("{SERVER}/32:7000-7099"),
        format!("[{SERVER_6}]:7003"),
        format!("icmp:{SERVER}/32"),
        format!("icmp:[{SERVER_6}]"),
        format!("icmp:{}/32", place.host.address),
        "198.51.100.0/24".into(),
        "192.168.50.0/24".into(),
        format!("tcp:{}/32:8080", place.tool),
        "tcp:10.42.99.99/32:7003".into(),
    ];
    let mut flags = vec!["--isolate", "netns"];
    flags.extend(rules.iter().flat_map(|rule| ["--egress-allow", rule]));
    let tool = place.tool.to_string();
    let out = place.finish(place.run(true, &flags, &["python3", "-c", AGENT, SERVER, SERVER_6, &own, &tool]));
    assert_eq!(out.code, 0, "{}{}", out.stdout, out.stderr);
    for line in [
        "by name: hello from 23.20.0.1",
        "by address: hello from outside",
        "by IPv6: hello from outside",
        "upload: True",
        "download: ok",
        "reset: ConnectionResetError 104",
        "datagram: True",
        "long answer: True",
        "many: 200",
        "many flows: 300",
        "nobody listens: ConnectionRefusedError 111",
        "denied port: ConnectionRefusedError 111",
        "denied datagram: OSError 113",
        "no route: OSError 113",
        "the host: ConnectionRefusedError 111",
        "the host by a datagram: OSError 113",
        "the overlay: hello from the tool",
        "the overlay, nobody: OSError 113",
        "ping: (0, b'\\x00\\x01hello')",
        "ping by IPv6: (129, b'\\x00\\x01hello')",
        "ping the host: OSError 113",
        "nobody takes it: ConnectionRefusedError 111",
        "nobody takes it by IPv6: ConnectionRefusedError 111",
        "refused upload: HTTP/1.1 413 Content Too Large",
    ] {
        assert!(out.stdout.lines().any(|found| found == line), "{line:?} in\n{}{}", out.stdout, out.stderr);
    }
    assert!(out.stdout.contains("other name: gaierror"), "{}", out.stdout);
    assert!(datagrams.recv(&mut [0; 8]).is_err(), "a datagram reached the host");

    let to = |address: &str, port: u16, action: &str| {
        let (address, action) = (address.to_owned(), action.to_owned());
        world.records(move |r| r["dstIP"] == address && r["dstPort"] == port && r["action"] == action)
    };
    assert_eq!(to(SERVER, 7001, "allow"), 1, "one verdict for a flow of many packets");
    assert_eq!(to(SERVER_6, 7003, "allow"), 2, "a connection, and a datagram that nobody takes");
    assert_eq!((to(SERVER, 9090, "deny") > 0, to(SERVER, 9090, "allow")), (true, 0));
    assert_eq!(world.records(|r| r["dstIP"] == own && r["action"] == "deny" && r["dstPort"] == 7070), 1);
    let pinged = |r: &Value, to: &str, action: &str| {
        r["proto"].as_str().is_some_and(|p| p.contains("icmp")) && r["dstIP"] == to && r["action"] == action
    };
    assert_eq!(world.records(|r| pinged(r, SERVER, "allow")), 1);
    assert_eq!(world.records(|r| pinged(r, &own, "deny")), 1);
    assert!(place.records().iter().all(|record| record["class"] == "netns"));
    place.assert_clean();
}

/// Which groups of the host may have them.
fn ping_sockets(place: &Place, groups: &str) {
    let set = format!("net.ipv4.ping_group_range={groups}");
    let out = place.lab.on(&place.host, "sysctl", &["-qw", &set]);
    assert_eq!(out.code, 0, "{}", out.stderr);
}

#[test]
fn a_ping_that_the_host_gives_no_socket_for_is_refused_and_on_record() {
    let world = World::new();
    let place = &world.place;
    ping_sockets(place, "1 0");
    let rule = format!("icmp:{SERVER}/32");
    let script = format!(
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)\ns.settimeout(30)\ns.connect(('{SERVER}', 0))\n\
         s.send(b'\\x08\\0\\0\\0\\0\\0\\0\\1')\ntry: print(s.recv(9))\nexcept OSError as e: print(e.errno)"
    );
    let flags = ["--isolate", "netns", "--egress-allow", &rule];
    let out = place.finish(place.run(true, &flags, &["python3", "-c", &script]));
    assert_eq!((out.code, out.stdout.as_str()), (0, "113\n"), "{}", out.stderr);
    let records = place.records();
    let denied = records.iter().find(|r| r["dstIP"] == SERVER && r["action"] == "deny");
    let denied = denied.unwrap_or_else(|| panic!("{records:#?}"));
    assert!(denied["rule"].as_str().is_some_and(|rule| rule.contains("ping_group_range")), "{denied}");
    place.assert_clean();
}

/// 300 connections to an address that nobody answers: those that there is no room for are counted, and everybody else goes on.
#[test]
fn what_the_way_outside_has_no_room_for_shows_in_the_status() {
    const SILENT: &str = "203.0.113.1";
    let world = World::new();
    let place = &world.place;
    let nobody = "10.254.254.254";
    for args in [
        format!("route add {nobody}/32 dev eth0"),
        format!("neigh add {nobody} lladdr 02:00:00:00:00:99 dev eth0 nud permanent"),
        format!("route add {SILENT}/32 via {nobody} onlink dev eth0"),
    ] {
        let out = place.lab.on(&place.host, "ip", &args.split_whitespace().collect::<Vec<_>>());
        assert_eq!(out.code, 0, "ip {args}: {}", out.stderr);
    }
    let script = format!(
        "import socket\nall = [socket.socket() for _ in range(300)]\n\
         for s in all:\n s.setblocking(False)\n s.connect_ex(('{SILENT}', 80))\n\
         print('asked', flush=True)\ninput()"
    );
    let rule = format!("tcp:{SILENT}/32");
    let run = place.run(
        true,
        &["--isolate", "netns", "--egress-allow", &rule],
        &["sh", "-c", "sleep 1000 | exec python3 -c \"$0\"", &script],
    );
    let mut run = Process::spawn(run, "run", place.lab.dir.path());
    run.wait_for("asked", LIMIT);
    let state = place.path("run").display().to_string();
    let begun = Instant::now();
    let lost = loop {
        let out = place.lab.run(&place.host, &["status", "agent", "-o", "json", "--state-dir", &state]);
        let status: Value = serde_json::from_str(&out.stdout).unwrap_or_else(|_| panic!("{}", out.stderr));
        let lost = status["peers"][0]["overlay"]["drops"]["way outside"].as_u64();
        if lost.is_some() || begun.elapsed() > LIMIT {
            break lost.unwrap_or(0);
        }
        thread::sleep(Duration::from_millis(100));
    };
    // Not answered, each of them is asked again.
    assert!(lost >= 44, "{lost}");
    let text = place.lab.run(&place.host, &["status", "agent", "--state-dir", &state]).stdout;
    assert!(text.contains("way outside "), "{text}");
    run.signal(nix::sys::signal::Signal::SIGTERM);
    run.finish(LIMIT);
    place.assert_clean();
}

#[test]
fn a_policy_that_changes_its_mind_cuts_what_goes_outside() {
    let mut world = World::new();
    let rules = [format!("tcp:{SERVER}/32:7000-7099")];
    let reader = format!(
        "import socket\ns = socket.create_connection(('{SERVER}', 7002))\ns.recv(1)\nprint('reading', flush=True)\n\
         try:\n while s.recv(1 << 16): s.send(b'x')\nexcept OSError as e: print('over', e.errno, flush=True)\n\
         try: socket.create_connection(('{SERVER}', 7003))\nexcept OSError as e: print('anew', e.errno, flush=True)"
    );
    let flags = ["--isolate", "netns", "--egress-allow", &rules[0]];
    let run = world.place.run(true, &flags, &["python3", "-c", &reader]);
    let mut run = Process::spawn(run, "run", world.place.lab.dir.path());
    run.wait_for("reading", LIMIT);
    let deny =
        ["policy", "add", "freeze", "--workspace", "demo", "--selector", "name=agent", "--deny-egress"];
    world.place.lab.admin(&[&deny[..], &[&format!("tcp:{SERVER}/32")]].concat());
    let begun = Instant::now();
    // The host's own connection ends, whatever the command does.
    world.services.wait_for("cut", LIMIT);
    let out = run.finish(LIMIT);
    assert!(begun.elapsed() < LIMIT);
    assert_eq!((out.code, out.stdout.as_str()), (0, "reading\nover 104\nanew 111\n"), "{}", out.stderr);
    let cut = |r: &Value| r["dstPort"] == 7002 && r["action"] == "deny";
    let records = world.place.records();
    let record = records.iter().find(|r| cut(r)).unwrap_or_else(|| panic!("{records:#?}"));
    assert!(record["rule"].as_str().is_some_and(|rule| rule.contains("freeze")), "{record}");
    world.place.assert_clean();
}
