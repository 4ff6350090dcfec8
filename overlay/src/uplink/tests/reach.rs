//! Who reaches whom by an uplink.

use super::*;

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
