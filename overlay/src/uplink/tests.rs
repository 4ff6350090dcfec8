//! Against the real kernel, in namespaces of their own: needs root and nft.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use super::{
    forwarding::{Ipv6, Version},
    *,
};

const LIMIT: Duration = Duration::from_secs(60);
/// How long it is waited for what must not come.
const SILENCE: Duration = Duration::from_millis(400);
const SERVER: [&str; 2] = ["192.0.2.7", "2001:db8::7"];
const HOST: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const BEHIND: &str = "198.51.100.2";

/// ```text
/// agents ── uplinks ── host 192.0.2.1 ── eth0 ── server 192.0.2.7
///                        └── dmz0 198.51.100.1 ── third 198.51.100.2
/// ```
struct World {
    host: Arc<Netns>,
    server: Netns,
    third: Netns,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let [host, server, third] = [(); 3].map(|()| Netns::create().expect("run as root"));
        for netns in [&host, &server, &third] {
            link::set_up(netns, "lo").unwrap();
            // Namespaces take after the machine's own settings.
            netns
                .run(|| {
                    for (name, value) in [("forwarding", "0"), ("rp_filter", "1")] {
                        for scope in ["all", "default"] {
                            std::fs::write(format!("/proc/sys/net/ipv4/conf/{scope}/{name}"), value).unwrap();
                        }
                    }
                })
                .unwrap();
        }
        for (other, name, ends) in [
            (&server, "eth0", ["192.0.2.1/24", "192.0.2.7/24", "2001:db8::1/64", "2001:db8::7/64"]),
            (&third, "dmz0", ["198.51.100.1/24", "198.51.100.2/24", "2001:db8:1::1/64", "2001:db8:1::2/64"]),
        ] {
            link::add_veth(&host, name, other, "eth0").unwrap();
            for (netns, link, addresses) in
                [(&host, name, [ends[0], ends[2]]), (other, "eth0", [ends[1], ends[3]])]
            {
                for address in addresses {
                    link::add_address(netns, link, address.parse().unwrap()).unwrap();
                }
                link::set_up(netns, link).unwrap();
            }
        }
        link::add_default_route(&third, "198.51.100.1".parse().unwrap(), "eth0", BEHIND.parse().unwrap())
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        Self { host: Arc::new(host), server, third, dir }
    }

    fn config(&self, id: u32, agent: &Arc<Netns>, targets: &[&str]) -> UplinkConfig {
        UplinkConfig {
            id: UplinkId::new(id),
            owner: "sandbox test".into(),
            underlay: self.host.clone(),
            inside: agent.clone(),
            targets: targets.iter().map(|text| text.parse().unwrap()).collect(),
            overlay: ["10.42.0.0/16", "fd12:3456:789a::/48"].map(|net| net.parse().unwrap()),
            lock: self.dir.path().join("lock"),
        }
    }

    /// An agent with an open uplink to everything that the server's link leads to.
    fn agent(&self, id: u32) -> (Arc<Netns>, Uplink) {
        let agent = Arc::new(Netns::create().unwrap());
        let targets = ["192.0.2.0/24", "2001:db8::/64"];
        let uplink = Uplink::create(self.config(id, &agent, &targets)).unwrap();
        assert!(link::links(&agent).unwrap().iter().all(|link| !link.up), "before it can be policed");
        uplink.open().unwrap();
        (agent, uplink)
    }

    fn forwards(&self, link: &str) -> bool {
        forwarding::is_on(&self.host, Version::V4, link).unwrap()
    }

    fn nft(&self, script: &str) -> String {
        let nft = Nft::find().unwrap();
        nft.apply(&self.host, script, "do this").unwrap();
        nft.ask(&self.host, &["list", "ruleset"], "say").unwrap()
    }

    fn assert_clean(&self) {
        assert_eq!(self.nft(""), "", "rules");
        let links = link::links(&self.host).unwrap();
        assert!(!links.iter().any(|link| link.name.starts_with(PREFIX)), "{links:?}");
        for name in ["eth0", "dmz0"] {
            assert!(!self.forwards(name), "{name} forwards");
            assert!(!forwarding::is_on(&self.host, Version::V6, name).unwrap(), "{name} forwards IPv6");
        }
    }
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// Says to each client who it is.
fn serve(netns: &Netns, ip: &str) -> u16 {
    let listener = netns.run(|| TcpListener::bind(at(ip, 0)).unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        while let Ok((mut client, from)) = listener.accept() {
            let _ = client.write_all(from.ip().to_string().as_bytes());
        }
    });
    port
}

fn visit(netns: &Netns, ip: &str, port: u16, limit: Duration) -> Result<String, ErrorKind> {
    netns
        .run(|| {
            let mut stream = TcpStream::connect_timeout(&at(ip, port), limit).map_err(|e| e.kind())?;
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).map_err(|e| e.kind())?;
            Ok(text)
        })
        .unwrap()
}

/// The IP versions that this kernel forwards for single links.
fn versions(world: &World) -> &'static [usize] {
    if forwarding::ipv6(&world.host).unwrap() == Ipv6::No {
        println!("SKIPPED: IPv6 uplinks: this kernel has no force_forwarding (Linux 6.17)");
        return &[0];
    }
    &[0, 1]
}

#[test]
fn an_agent_gets_out_by_nat_and_everything_is_restored() {
    let world = World::new();
    let (agent, uplink) = world.agent(7);
    for &version in versions(&world) {
        let port = serve(&world.server, SERVER[version]);
        assert_eq!(visit(&agent, SERVER[version], port, LIMIT).as_deref(), Ok(HOST[version]));
    }
    assert!(world.forwards("eth0") && !world.forwards("dmz0"));
    assert_eq!(uplink.mtu(), 1500);
    uplink.close().unwrap();
    world.assert_clean();
    assert_eq!(link::links(&agent).unwrap().len(), 1, "its end is gone too");
}

#[test]
fn nothing_of_the_host_is_reached_and_it_is_refused_at_once() {
    let world = World::new();
    let (agent, _uplink) = world.agent(7);
    // By DNAT a packet to the host would become one that is forwarded.
    let port = serve(&world.server, SERVER[0]);
    world.nft(&format!(
        "add table ip published\nadd chain ip published pre {{ type nat hook prerouting priority dstnat; }}\n\
         add rule ip published pre ip daddr 192.0.2.1 tcp dport 81 dnat to 192.0.2.7:{port}\n\
         add rule ip published pre ip daddr 192.0.2.7 tcp dport 82 redirect to :{}\n",
        serve(&world.host, "0.0.0.0")
    ));
    assert_eq!(visit(&agent, SERVER[0], port, LIMIT).as_deref(), Ok(HOST[0]), "the twin");
    let mut refused = vec![(HOST[0], 81), (SERVER[0], 82), ("198.19.0.14", 22)];
    for &version in versions(&world) {
        refused.push((HOST[version], serve(&world.host, HOST[version])));
    }
    refused.push(("198.51.100.1", serve(&world.host, "0.0.0.0")));
    for (ip, port) in refused {
        assert_eq!(visit(&agent, ip, port, LIMIT), Err(ErrorKind::ConnectionRefused), "{ip} {port}");
    }
    let udp = agent.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.connect(at(HOST[0], 53)).unwrap();
        socket.send(b"?").unwrap();
        socket.recv(&mut [0; 9]).unwrap_err().kind()
    });
    assert_eq!(udp.unwrap(), ErrorKind::HostUnreachable);
}

#[test]
fn the_host_is_nobody_elses_router() {
    let world = World::new();
    let (_agent, uplink) = world.agent(7);
    let gateway = "192.0.2.1".parse::<IpAddr>().unwrap();
    link::add_default_route(&world.server, gateway, "eth0", SERVER[0].parse().unwrap()).unwrap();
    assert!(world.forwards("eth0"));
    forwarding::set(&world.host, Version::V4, "dmz0", true).unwrap();
    let port = serve(&world.third, BEHIND);
    assert_eq!(visit(&world.server, BEHIND, port, SILENCE), Err(ErrorKind::TimedOut));
    // An agent's address is nowhere to be reached from outside, either.
    let inside = uplink.addresses()[0].to_string();
    assert_eq!(visit(&world.server, &inside, 80, SILENCE), Err(ErrorKind::TimedOut));
    world.nft(&format!("delete table inet {}", UplinkId::new(7).table()));
    assert_eq!(visit(&world.server, BEHIND, port, LIMIT).as_deref(), Ok(SERVER[0]), "the twin");
}

#[test]
fn two_share_a_host_and_not_each_other() {
    let world = World::new();
    let ((a, first), (b, second)) = (world.agent(7), world.agent(7 + (1 << 15)));
    assert_ne!(first.addresses(), second.addresses(), "the same place was asked for");
    let port = serve(&world.server, SERVER[0]);
    for agent in [&a, &b] {
        assert_eq!(visit(agent, SERVER[0], port, LIMIT).as_deref(), Ok(HOST[0]));
    }
    for &version in versions(&world) {
        let other = second.addresses()[version].to_string();
        let port = serve(&b, &other);
        assert_eq!(visit(&a, &other, port, LIMIT), Err(ErrorKind::ConnectionRefused), "{other}");
    }
    first.close().unwrap();
    assert_eq!(visit(&b, SERVER[0], port, LIMIT).as_deref(), Ok(HOST[0]), "the other stays open");
    second.close().unwrap();
    world.assert_clean();
}

#[test]
fn only_its_own_address_leaves() {
    let world = World::new();
    let (agent, uplink) = world.agent(7);
    // The kernel's own filter would hide what this is about.
    for link in ["all", &uplink.outside()] {
        let file = format!("/proc/sys/net/ipv4/conf/{link}/rp_filter");
        world.host.run(|| std::fs::write(&file, "0")).unwrap().unwrap();
    }
    let sink = world.server.run(|| UdpSocket::bind(at(SERVER[0], 0)).unwrap()).unwrap();
    sink.set_read_timeout(Some(LIMIT)).unwrap();
    let port = sink.local_addr().unwrap().port();
    link::add_address(&agent, INSIDE, "192.0.2.99/32".parse().unwrap()).unwrap();
    agent
        .run(|| {
            for (from, text) in [("192.0.2.99", "spoofed"), ("0.0.0.0", "honest")] {
                let socket = UdpSocket::bind(at(from, 0)).unwrap();
                socket.send_to(text.as_bytes(), at(SERVER[0], port)).unwrap();
            }
        })
        .unwrap();
    let mut buffer = [0; 16];
    let (length, from) = sink.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from.ip().to_string().as_str()), (&b"honest"[..], HOST[0]));
}

#[test]
fn connections_are_bounded() {
    let world = World::new();
    let (agent, _uplink) = world.agent(7);
    let port = serve(&world.server, SERVER[0]);
    assert_eq!(visit(&agent, SERVER[0], port, LIMIT).as_deref(), Ok(HOST[0]));
    agent
        .run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for port in 10_000..10_000 + 2 * ruleset::MAX_CONNECTIONS as u16 {
                // What comes back of an earlier one is told here.
                let _ = socket.send_to(b"x", at(SERVER[0], port));
            }
        })
        .unwrap();
    assert_eq!(visit(&agent, SERVER[0], port, LIMIT), Err(ErrorKind::ConnectionRefused));
}

#[test]
fn the_mtu_is_that_of_the_hosts_link() {
    let world = World::new();
    link::set_mtu(&world.host, "eth0", 1400).unwrap();
    let (agent, uplink) = world.agent(7);
    for (netns, name) in [(&agent, INSIDE), (&world.host, uplink.outside().as_str())] {
        let links = link::links(netns).unwrap();
        assert_eq!(links.iter().find(|link| link.name == name).unwrap().mtu, 1400, "{name}");
    }
}

#[test]
fn what_a_killed_one_left_is_found_by_the_next_whoever_it_is() {
    let world = World::new();
    let (agent, uplink) = world.agent(7);
    let lock = uplink.config.lock.clone();
    let kept = uplink.config.id;
    let config = uplink.config.clone();
    std::mem::forget(uplink);
    remove(&world.host, UplinkId::new(8), &lock).unwrap();
    assert!(world.forwards("eth0"), "it lives as long as its link");
    // What is leaked above holds the agent's namespace open: its end is deleted by hand.
    link::delete(&agent, INSIDE).unwrap();
    assert!(world.nft("").contains(&kept.table()) && world.forwards("eth0"));
    remove(&world.host, UplinkId::new(8), &lock).unwrap();
    world.assert_clean();
    // And one of the same name, with its link, by its name.
    let again = Uplink::create(config).unwrap();
    again.open().unwrap();
    std::mem::forget(again);
    remove(&world.host, kept, &lock).unwrap();
    world.assert_clean();
}

/// A service of the Internet, on both sides of the host.
const FAR: [&str; 2] = ["203.0.113.7", "2001:db8:7::7"];

#[test]
fn it_follows_the_host_to_another_network() {
    let world = World::new();
    let versions = versions(&world);
    let ports = [&world.server, &world.third].map(|netns| {
        for (ip, length) in FAR.iter().zip([32, 128]) {
            link::add_address(netns, "lo", format!("{ip}/{length}").parse().unwrap()).unwrap();
        }
        let route = ["ip route replace default via", "ip -6 route replace default via"];
        let gateways =
            if std::ptr::eq(netns, &world.server) { HOST } else { ["198.51.100.1", "2001:db8:1::1"] };
        for (route, gateway) in route.iter().zip(gateways) {
            shell(netns, &format!("{route} {gateway} dev eth0"));
        }
        FAR.map(|ip| serve(netns, ip))
    });
    let agent = Arc::new(Netns::create().unwrap());
    let targets = ["203.0.113.0/24", "2001:db8:7::/48"];
    let uplink = Uplink::create(world.config(7, &agent, &targets)).unwrap();
    uplink.open().unwrap();
    let unrouted = || uplink.unrouted().iter().map(IpNet::to_string).collect::<Vec<_>>();
    assert_eq!(unrouted(), targets, "there is no way yet");
    let begun = Instant::now();
    visit(&agent, FAR[0], ports[0][0], LIMIT).unwrap_err();
    assert!(begun.elapsed() < LIMIT / 2, "the kernel says so at once");

    let (left, right) = (["192.0.2.7", "2001:db8::7"], [BEHIND, "2001:db8:1::2"]);
    let behind = ["198.51.100.1", "2001:db8:1::1"];
    link::set_mtu(&world.host, "dmz0", 1400).unwrap();
    for (gateways, link, other, ports, own, mtu) in [
        (left, "eth0", "dmz0", ports[0], HOST, 1500),
        (right, "dmz0", "eth0", ports[1], behind, 1400),
        (left, "eth0", "dmz0", ports[0], HOST, 1500),
    ] {
        for (gateway, version) in gateways.iter().zip(["-4", "-6"]) {
            shell(&world.host, &format!("ip {version} route replace default via {gateway} dev {link}"));
        }
        uplink.follow().unwrap();
        for &version in versions {
            let seen = visit(&agent, FAR[version], ports[version], LIMIT);
            assert_eq!(seen.as_deref(), Ok(own[version]), "by {link}");
        }
        assert!(world.forwards(link) && !world.forwards(other), "{link}, not {other}");
        assert_eq!(unrouted(), &targets[versions.len()..]);
        for (netns, name) in [(&agent, INSIDE), (&world.host, uplink.outside().as_str())] {
            let links = link::links(netns).unwrap();
            assert_eq!(links.iter().find(|link| link.name == name).unwrap().mtu, mtu, "{name}");
        }
        // As that of a link that was unplugged, and is there again.
        forwarding::set(&world.host, Version::V4, link, false).unwrap();
        uplink.follow().unwrap();
        assert!(world.forwards(link), "{link}");
    }

    for version in ["-4", "-6"] {
        shell(&world.host, &format!("ip {version} route del default"));
    }
    uplink.follow().unwrap();
    assert_eq!(unrouted(), targets);
    uplink.close().unwrap();
    world.assert_clean();
    uplink.follow().unwrap();
    world.assert_clean();
}

#[test]
fn what_another_uplink_needs_goes_on_forwarding() {
    let world = World::new();
    let (_agent, other) = world.agent(8);
    let agent = Arc::new(Netns::create().unwrap());
    let uplink = Uplink::create(world.config(7, &agent, &["203.0.113.0/24"])).unwrap();
    uplink.open().unwrap();
    for (route, dmz0) in [("via 192.0.2.7 dev eth0", false), ("via 198.51.100.2 dev dmz0", true)] {
        shell(&world.host, &format!("ip route replace default {route}"));
        uplink.follow().unwrap();
        assert!(world.forwards("eth0"), "{route}");
        assert_eq!(world.forwards("dmz0"), dmz0, "{route}");
    }
    other.close().unwrap();
    assert!(!world.forwards("eth0") && world.forwards("dmz0"));
    uplink.close().unwrap();
    world.assert_clean();
}

fn shell(netns: &Netns, command: &str) {
    let run = || Command::new("sh").args(["-c", command]).output().expect("sh(1)");
    let out = netns.run(run).unwrap();
    assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn a_link_that_forwarded_before_goes_on() {
    let world = World::new();
    forwarding::set(&world.host, Version::V4, "eth0", true).unwrap();
    let (_agent, uplink) = world.agent(7);
    uplink.close().unwrap();
    assert!(world.forwards("eth0"));
}

#[test]
fn a_start_that_fails_leaves_nothing() {
    let world = World::new();
    let agent = Arc::new(Netns::create().unwrap());
    let other = Netns::create().unwrap();
    link::add_veth(&agent, INSIDE, &other, "eth0").unwrap();
    let taken = Uplink::create(world.config(7, &agent, &["192.0.2.7/32"])).unwrap_err();
    assert!(matches!(taken, UplinkError::Link(_)), "{taken}");
    world.assert_clean();
    // Its rules are in place when its end turns out to be gone.
    let agent = Arc::new(Netns::create().unwrap());
    let uplink = Uplink::create(world.config(7, &agent, &["192.0.2.7/32"])).unwrap();
    link::delete(&agent, INSIDE).unwrap();
    uplink.open().unwrap_err();
    drop(uplink);
    world.assert_clean();
}

#[test]
fn starts_at_the_same_time_get_different_addresses() {
    let world = World::new();
    let begun = Instant::now();
    let all: Vec<(Arc<Netns>, Uplink)> = thread::scope(|scope| {
        let starts: Vec<_> = (0..6)
            .map(|n| {
                scope.spawn({
                    let world = &world;
                    move || world.agent(n << 15 | 7)
                })
            })
            .collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    println!("6 uplinks in {:?}", begun.elapsed());
    let mut addresses: Vec<IpAddr> = all.iter().flat_map(|(_, uplink)| uplink.addresses()).collect();
    let count = addresses.len();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), count);
    thread::scope(|scope| {
        for (_, uplink) in all {
            scope.spawn(move || uplink.close().unwrap());
        }
    });
    world.assert_clean();
}

#[test]
fn a_packet_that_does_not_fit_further_on_is_answered() {
    let world = World::new();
    link::set_mtu(&world.host, "dmz0", 1300).unwrap();
    let agent = Arc::new(Netns::create().unwrap());
    let uplink = Uplink::create(world.config(7, &agent, &["0.0.0.0/0"])).unwrap();
    uplink.open().unwrap();
    let args = ["-M", "do", "-s", "1400", "-c", "3", "-i", "0.2", "-w", "10", BEHIND];
    let out = agent.run(|| Command::new("ping").args(args).output().expect("ping(8)")).unwrap();
    let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    assert!(text.contains("mtu=1300") || text.contains("mtu = 1300"), "no \"fragmentation needed\": {text}");
    drop(uplink);
    world.assert_clean();
}
