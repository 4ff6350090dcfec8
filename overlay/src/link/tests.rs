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

#[test]
fn every_broadcast_is_known() {
    let netns = Netns::create().unwrap();
    let add = |text: &str| {
        let mut ip = std::process::Command::new("ip");
        ip.args(["address", "add", "dev", "lo"]).args(text.split(' '));
        assert!(netns.run(|| ip.status().unwrap().success()).unwrap(), "{text}");
    };
    for text in
        ["192.0.2.9/24", "198.51.100.9/30 broadcast 198.51.100.99", "203.0.113.8/31", "2001:db8::1/64"]
    {
        add(text);
    }
    let mut found = broadcasts(&netns).unwrap();
    found.sort_unstable();
    assert_eq!(
        found,
        ["192.0.2.255", "198.51.100.11", "198.51.100.99"].map(|ip| ip.parse::<Ipv4Addr>().unwrap())
    );
}
