use super::*;

fn pair() -> (Netns, Netns) {
    let (a, b) = (Netns::create().unwrap(), Netns::create().unwrap());
    add_veth(&a, "eth0", &b, "eth0").unwrap();
    (a, b)
}

fn find(netns: &Netns, name: &str) -> Option<Link> {
    links(netns).unwrap().into_iter().find(|link| link.name == name)
}

#[test]
fn a_veth_joins_two_namespaces_down() {
    let (a, b) = pair();
    for netns in [&a, &b] {
        let link = find(netns, "eth0").unwrap();
        assert!(!link.up && link.ethernet && !link.loopback && !link.tunnel);
        assert!(find(netns, "lo").unwrap().loopback);
    }
    let taken = add_veth(&a, "eth0", &b, "eth1").unwrap_err();
    assert_eq!(taken.raw_os_error(), Some(libc::EEXIST));
}

#[test]
fn addresses_and_routes_take_effect() {
    let (a, _b) = pair();
    set_mtu(&a, "eth0", 1300).unwrap();
    set_up(&a, "eth0").unwrap();
    assert!(find(&a, "eth0").unwrap().up);
    add_address(&a, "eth0", "192.0.2.1/32".parse().unwrap()).unwrap();
    add_address(&a, "eth0", "2001:db8::1/128".parse().unwrap()).unwrap();
    let addresses = addresses(&a).unwrap();
    assert!(addresses.contains(&("eth0".into(), "192.0.2.1".parse().unwrap())), "{addresses:?}");
    assert!(addresses.contains(&("eth0".into(), "2001:db8::1".parse().unwrap())), "{addresses:?}");

    let source = |to: &str| {
        a.run(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect(to).map(|()| socket.local_addr().unwrap().ip())
        })
        .unwrap()
    };
    assert!(source("10.42.7.7:1").is_err());
    let preferred = Some("192.0.2.1".parse().unwrap());
    add_route(&a, "10.42.0.0/16".parse().unwrap(), "eth0", preferred).unwrap();
    assert_eq!(source("10.42.7.7:1").unwrap().to_string(), "192.0.2.1");
    let again = add_route(&a, "10.42.0.0/16".parse().unwrap(), "eth0", preferred).unwrap_err();
    assert_eq!(again.raw_os_error(), Some(libc::EEXIST), "{again}");
    assert!(add_route(&a, "fd00::/8".parse().unwrap(), "eth0", preferred).is_err());
    add_route(&a, "fd00::/8".parse().unwrap(), "eth0", None).unwrap();
}

#[test]
fn a_route_can_name_a_new_ipv6_address_at_once() {
    let (a, b) = pair();
    set_up(&b, "eth0").unwrap();
    add_address(&a, "eth0", "2001:db8::1/128".parse().unwrap()).unwrap();
    set_up(&a, "eth0").unwrap();
    add_route(&a, "::/0".parse().unwrap(), "eth0", Some("2001:db8::1".parse().unwrap())).unwrap();
}

#[test]
fn a_link_moves_under_a_new_name_even_where_its_old_one_is_taken() {
    let (a, b) = pair();
    set_up(&a, "eth0").unwrap();
    move_to(&a, "eth0", &b, "uplink").unwrap();
    assert_eq!(find(&a, "eth0"), None);
    assert!(!find(&b, "uplink").unwrap().up);
    move_to(&b, "uplink", &b, "renamed").unwrap();
    move_to(&b, "renamed", &b, "uplink").unwrap();
    let (c, _d) = pair();
    let taken = move_to(&c, "eth0", &b, "uplink").unwrap_err();
    assert_eq!(taken.raw_os_error(), Some(libc::EEXIST));
    assert!(find(&c, "eth0").is_some());
}

#[test]
fn deletes_and_names_what_is_missing() {
    let (a, b) = pair();
    delete(&a, "eth0").unwrap();
    assert_eq!(find(&b, "eth0"), None);
    let missing = delete(&a, "eth0").unwrap_err();
    assert!(matches!(&missing, LinkError::NotFound(name) if name == "eth0"), "{missing}");
    assert!(matches!(set_up(&a, "wg7"), Err(LinkError::NotFound(_))));
}

/// Whether a command succeeded there.
fn runs(netns: &Netns, line: &str) -> bool {
    let mut words = line.split(' ');
    let mut command = std::process::Command::new(words.next().unwrap());
    command.args(words);
    netns.run(|| command.status().unwrap().success()).unwrap()
}

#[test]
fn where_a_namespace_takes_packets_itself_is_known() {
    let (netns, _peer) = pair();
    for line in [
        "sysctl -qw net.ipv6.conf.all.forwarding=1",
        "ip link set lo up",
        "ip link set eth0 up",
        "ip address add dev eth0 192.0.2.9/24",
        "ip address add dev eth0 198.51.100.9/30 broadcast 198.51.100.99",
        "ip address add dev eth0 203.0.113.8/31",
        "ip address add dev eth0 2001:db8::1/64 nodad",
        "ip route add local 10.1.0.0/16 dev lo",
        "ip route add unreachable 10.2.0.0/16",
        "ip route add 10.3.0.0/16 dev eth0",
        // A transparent proxy's.
        "ip route add local default dev lo table 100",
    ] {
        assert!(runs(&netns, line), "{line}");
    }
    let found = own_routes(&netns).unwrap();
    for (link, net) in [
        ("eth0", "192.0.2.9/32"),
        ("eth0", "192.0.2.255/32"),
        ("eth0", "198.51.100.11/32"),
        ("eth0", "198.51.100.99/32"),
        ("eth0", "203.0.113.8/32"),
        ("eth0", "2001:db8::1/128"),
        // The anycast address of all routers there.
        ("eth0", "2001:db8::/128"),
        ("lo", "10.1.0.0/16"),
    ] {
        assert!(found.contains(&(link.into(), net.parse().unwrap())), "{net}: {found:?}");
    }
    for other in ["203.0.113.9/32", "10.2.0.0/16", "10.3.0.0/16", "192.0.2.0/24", "0.0.0.0/0", "::/0"] {
        assert!(found.iter().all(|(_, net)| net.to_string() != other), "{other}: {found:?}");
    }
}

#[test]
fn what_the_links_of_a_vrf_have_is_known() {
    let (netns, _peer) = pair();
    if !runs(&netns, "ip link add red type vrf table 1001") {
        return println!("SKIPPED: routes of a VRF: this kernel has none (CONFIG_NET_VRF)");
    }
    for line in [
        "sysctl -qw net.ipv6.conf.all.forwarding=1",
        "ip link set red up",
        "ip link set eth0 master red",
        "ip link set eth0 up",
        "ip address add dev eth0 192.0.2.9/24",
        "ip address add dev eth0 2001:db8::1/64 nodad",
    ] {
        assert!(runs(&netns, line), "{line}");
    }
    let found = own_routes(&netns).unwrap();
    for net in ["192.0.2.9/32", "192.0.2.255/32", "2001:db8::1/128", "2001:db8::/128"] {
        assert!(found.contains(&("eth0".into(), net.parse().unwrap())), "{net}: {found:?}");
    }
}
