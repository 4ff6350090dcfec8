//! A host that moves to another network.

use super::*;

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
