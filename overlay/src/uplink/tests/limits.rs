//! How much: connections, and bytes of a packet.

use super::*;

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
