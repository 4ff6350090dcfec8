//! A peer's IPv6 address is as good as its IPv4 address: reached by the same rules, refused by the same rules, and nobody else's.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};

use lattice_tests::lab::wait_until;

use crate::{
    forwards::answers,
    services::{HELLO, Services, UDP_ECHO},
    world::{CLOSED_PAGE, LIMIT, PAGE, World},
};

const HERE: u16 = 8081;
/// Exit code of curl.
const TIMED_OUT: i32 = 28;

/// The IPv6 address of the far host's node.
fn far6(world: &World) -> Ipv6Addr {
    let out = world.lab.run(&world.far, &["status", "far", "-o", "json"]);
    let status: serde_json::Value = serde_json::from_str(&out.stdout).expect("JSON");
    let address = status["peers"][0]["status"]["address6"].as_str().expect("an IPv6 address");
    address.parse().expect("an IPv6 address")
}

#[test]
fn what_is_allowed_by_ipv4_is_reached_by_ipv6_and_nothing_else() {
    let world = World::new();
    let user = world.user("agent");
    let pod = world.pod(&user, "agent", &[]);
    let (far6, proxy) = (far6(&world), pod.proxy());
    for scheme in ["socks5h", "http"] {
        let out = world.curl(&user, &format!("{scheme}://{proxy}"), &format!("http://[{far6}]:{PAGE}/"));
        assert_eq!((out.code, out.stdout.as_str()), (0, HELLO), "{scheme}: {}", out.stderr);
    }
    let client = world.client(&pod);
    let (from, said) = client.associate().call(far6, UDP_ECHO, b"by IPv6");
    assert_eq!((from, said.as_slice()), (SocketAddr::from((far6, UDP_ECHO)), &b"by IPv6"[..]));

    let denied = client.http_connect(&format!("[{far6}]:{CLOSED_PAGE}"));
    assert!(denied.contains("destination_ip_prohibited"), "{denied}");
    // Of another workspace, or of nobody.
    let stranger = "fdff:ffff:ffff::a2a:2";
    let denied_too = client.http_connect(&format!("[{stranger}]:{PAGE}"));
    assert!(denied_too.starts_with("HTTP/1.1 403"), "{denied_too}");
    let rule = format!("{}/32:{PAGE}", world.far_ip);
    let allowed = pod.record("the page", |r| r["dstIP"] == far6.to_string() && r["dstPort"] == PAGE);
    assert_eq!((&allowed["action"], &allowed["rule"]), (&"allow".into(), &rule.into()), "{allowed}");
    assert_eq!(allowed["srcIP"], pod.ready["address6"], "{allowed}");
    for (to, port) in [(far6.to_string().as_str(), CLOSED_PAGE), (stranger, PAGE)] {
        let record = pod.record(to, |r| r["dstIP"] == to && r["dstPort"] == port);
        assert_eq!(record["action"], "deny", "{record}");
    }
}

#[test]
fn a_forward_is_reached_by_ipv6_by_peers_only_and_ping_is_answered() {
    let world = World::new();
    let user = world.user("agent");
    let _here = Services::start(&world.near.netns, &[HERE]);
    let (tcp, udp) = (format!("8080:127.0.0.1:{HERE}"), format!("udp:5353:127.0.0.1:{UDP_ECHO}"));
    let pod = world.pod(&user, "agent", &["--forward", &tcp, "--forward", &udp]);
    let address = pod.ready["address6"].as_str().expect("an IPv6 address");
    let fetch = |more: &[&str]| {
        let url = format!("http://[{address}]:8080/");
        world.lab.on(&world.far, "curl", &[&["-sS", "-m", "5"], more, &[url.as_str()]].concat())
    };
    let out = fetch(&[]);
    assert_eq!((out.code, out.stdout.as_str()), (0, HELLO), "{}", out.stderr);
    let at = SocketAddr::new(address.parse().expect("an address"), 5353);
    let socket = world.far.netns.run(|| UdpSocket::bind("[::]:0")).expect("the namespace").expect("a socket");
    wait_until(LIMIT, "an answer by UDP", || answers(&socket, at));
    let ping = world.lab.run(&world.far, &["ping", "-6", "--count", "1", "--timeout", "20", "agent"]);
    assert_eq!(ping.code, 0, "{}{}", ping.stdout, ping.stderr);
    assert!(ping.stdout.contains(address), "{}", ping.stdout);
    let again = world.lab.run(&world.far, &["ping", "--count", "1", "--timeout", "20", address]);
    assert_eq!(again.code, 0, "{}{}", again.stdout, again.stderr);

    // Another peer's address, or what the map gives nobody, is no source that this peer may have.
    let IpAddr::V6(own) = at.ip() else { panic!("{at}") };
    let spoofed = Ipv6Addr::from_bits(own.to_bits() + 0x77).to_string();
    let add = world.lab.on(&world.far, "ip", &["-6", "address", "add", &spoofed, "dev", "wf0", "nodad"]);
    assert_eq!(add.code, 0, "{}", add.stderr);
    let out = fetch(&["--interface", &spoofed]);
    assert_eq!(out.code, TIMED_OUT, "a spoofed source: {}{}", out.stdout, out.stderr);
    assert!(pod.records().iter().all(|record| record["srcIP"] != spoofed.as_str()));
    let out = fetch(&[]);
    assert_eq!(out.code, 0, "the peer itself still is: {}", out.stderr);
}
