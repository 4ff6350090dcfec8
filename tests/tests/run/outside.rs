//! Rules outside the overlay: the command's own TCP and UDP, by sockets of the host that it does not have.

use std::{fs, net::UdpSocket, path::Path, time::Instant};

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
    let own = place.host.address.to_string();
    let rules = [
        "tcp:api.example.com:8080".to_owned(),
        format!("{SERVER}/32:7000-7099"),
        format!("[{SERVER_6}]:7003"),
        format!("icmp:{SERVER}/32"),
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
        "the host by a datagram: TimeoutError None",
        "the overlay: hello from the tool",
        "the overlay, nobody: OSError 113",
        "ping: OSError 113",
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
    assert_eq!(to(SERVER_6, 7003, "allow"), 1);
    assert_eq!((to(SERVER, 9090, "deny") > 0, to(SERVER, 9090, "allow")), (true, 0));
    assert_eq!(world.records(|r| r["dstIP"] == own && r["action"] == "deny" && r["dstPort"] == 7070), 1);
    assert!(place.records().iter().all(|record| record["class"] == "netns"));
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
