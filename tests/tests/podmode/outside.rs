//! What a rule names outside the overlay is reached with the host's own sockets; the host itself never is.

use std::{io::Read as _, io::Write as _, sync::atomic::Ordering};

use lattice_overlay::Netns;
use lattice_tests::lab::wait_until;

use crate::{
    client::get,
    reach::DENIED,
    services::{HELLO, SOURCE, Services, UDP_ECHO},
    world::{CLOSED_PAGE, LIMIT, PAGE, World},
};

const HUB: &str = "192.168.50.1";
const HUB_6: &str = "fd50::1";
/// On the hub, beside the control plane's 8080.
const HUB_PAGE: u16 = 8088;

fn ip(netns: &Netns, args: &str) {
    let mut ip = lattice_tests::process::command(&netns.path(), "ip".as_ref());
    assert!(ip.args(args.split(' ')).status().expect("iproute2").success(), "ip {args}");
}

#[test]
fn a_rule_opens_the_way_outside_for_as_long_as_the_policy_wants() {
    let world = World::new();
    ip(world.lab.hub(), &format!("addr add {HUB_6}/64 dev br0 nodad"));
    ip(&world.near.netns, "addr add fd50::2/64 dev eth0 nodad");
    let hub = Services::start(world.lab.hub(), &[HUB_PAGE, CLOSED_PAGE]);
    let user = world.user("agent");
    let rules =
        [format!("{HUB}/32:7000-7099"), format!("tcp:{HUB}/32:{HUB_PAGE}"), format!("[{HUB_6}]:{HUB_PAGE}")];
    let flags: Vec<&str> = rules.iter().flat_map(|rule| ["--egress-allow", rule]).collect();
    let pod = world.pod(&user, "agent", &flags);
    let client = world.client(&pod);
    for host in [HUB, HUB_6, "::ffff:192.168.50.1"] {
        assert_eq!(get(client.reach(host, HUB_PAGE), "/"), HELLO, "{host}");
    }
    let association = client.associate();
    assert_eq!(association.call(HUB, UDP_ECHO, b"hello").1, b"hello");
    let seen = hub.seen.connections.load(Ordering::Relaxed);
    for (host, port) in [(HUB, CLOSED_PAGE), (HUB_6, CLOSED_PAGE), (HUB, 4222), ("192.168.50.3", HUB_PAGE)] {
        assert_eq!(client.reply(host, port), DENIED, "{host}:{port}");
    }
    assert_eq!(client.reply(HUB, 7001), 5, "allowed, and nothing listens");
    assert_eq!(hub.seen.connections.load(Ordering::Relaxed), seen);
    for (host, action, port) in
        [(HUB, "allow", HUB_PAGE), (HUB_6, "allow", HUB_PAGE), (HUB, "deny", CLOSED_PAGE)]
    {
        let of = |r: &serde_json::Value| r["dstIP"] == host && r["dstPort"] == port && r["action"] == action;
        pod.record(&format!("{host} {port}"), of);
    }
    // A live one ends when the policy changes its mind.
    let mut download = client.reach(HUB, SOURCE);
    download.write_all(&u64::MAX.to_be_bytes()).unwrap();
    download.read_exact(&mut [0; 100_000]).unwrap();
    let deny =
        ["policy", "add", "freeze", "--workspace", "demo", "--selector", "name=agent", "--deny-egress"];
    world.lab.admin(&[&deny[..], &[&format!("tcp:{HUB}/32")]].concat());
    let mut buffer = vec![0; 64 << 10];
    let end = loop {
        match download.read(&mut buffer) {
            Ok(0) => panic!("a cut stream looks whole"),
            Ok(_) => {}
            Err(error) => break error.kind(),
        }
    };
    assert_eq!(end, std::io::ErrorKind::ConnectionReset);
    assert_eq!(client.reply(HUB, HUB_PAGE), DENIED);
    assert_eq!(association.call(HUB, UDP_ECHO, b"still").1, b"still", "UDP was not denied");
    pod.end();
}

#[test]
fn the_host_itself_is_out_of_reach_whatever_the_rules_say() {
    let world = World::new();
    let here = Services::start(&world.near.netns, &[PAGE]);
    let user = world.user("agent");
    let all = ["--egress-allow", "0.0.0.0/0", "--egress-allow", "::/0"];
    let exact =
        ["--egress-allow", "127.0.0.1/32", "--egress-allow", "::1/128", "--egress-allow", "192.168.50.2/32"];
    let pod = world.pod(&user, "agent", &[&all[..], &exact].concat());
    let client = world.client(&pod);
    let own = world.near.address.to_string();
    let mapped = [format!("::ffff:{own}"), format!("64:ff9b::{}", hex(world.near.address))];
    let hosts = [
        "127.0.0.1",
        "localhost",
        "0.0.0.0",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:0.0.0.0",
        "127.8.9.1",
        "::127.0.0.1",
        "127.1",
        "0x7f000001",
        "2130706433",
        "localhost.",
        "foo.localhost",
        "64:ff9b::7f00:1",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "192.168.50.255",
        "fe80::1",
        "169.254.169.254",
    ];
    for host in hosts.iter().copied().chain([own.as_str(), &mapped[0], &mapped[1]]) {
        assert_ne!(client.reply(host, PAGE), 0, "{host}");
        let authority =
            if host.contains(':') { format!("[{host}]:{PAGE}") } else { format!("{host}:{PAGE}") };
        let answer = client.http_connect(&authority);
        assert!(!answer.is_empty() && !answer.starts_with("HTTP/1.1 2"), "{host}: {answer}");
    }
    // Its own overlay address leads nowhere but to its forwards, of which there are none.
    assert_ne!(client.reply(pod.address, PAGE), 0);
    let association = client.associate();
    for host in ["127.0.0.1", &own, "localhost"] {
        association.send(host, UDP_ECHO, b"hello");
    }
    assert_eq!(association.receive(), None);
    assert_eq!(here.seen.connections.load(Ordering::Relaxed), 0);
    for host in ["127.0.0.1", &own] {
        pod.record(host, |r| r["dstIP"] == host && r["dstPort"] == PAGE && r["action"] == "deny");
    }
    // It is not that everything fails: the rule is as wide as it says. The other host's address outside the overlay:
    wait_until(LIMIT, "the rest of the world", || {
        client.connect(&world.far.address.to_string(), PAGE).is_ok()
    });
    // An address that the host gets while the sandbox runs is its own, too.
    ip(&world.near.netns, "addr add 192.168.50.77/24 dev eth0");
    assert_ne!(client.reply("192.168.50.77", PAGE), 0);
    assert_eq!(here.seen.connections.load(Ordering::Relaxed), 0);
    pod.end();
}

/// An IPv4 address as the last 32 bits of an IPv6 address.
fn hex(ip: std::net::Ipv4Addr) -> String {
    format!("{:x}:{:x}", ip.to_bits() >> 16, ip.to_bits() & 0xffff)
}
