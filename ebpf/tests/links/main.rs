//! The policy on real links: two anonymous network namespaces, the agent's and its peer's, joined by a TUN pair (no link
//! header) or a veth pair (Ethernet), with the program attached by TCX or by clsact. Needs root.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    thread,
};

use lab::{AGENT4, AGENT6, Kind, Lab, NOWHERE4, NOWHERE6, PEER4, PEER6, entry, line, table};
use lattice_ebpf::{AttachMode, Attached, EbpfError, Flow};
use lattice_policy::{Action, Direction, Overlay, Proto, Reason, Table};

mod calls;
mod lab;
mod packet_socket;
mod room;
mod switch;
mod tun;

macro_rules! on_every_link {
    ($($test:ident)*) => {
        mod tun_tcx { $(#[test] fn $test() { super::$test(super::Kind::Tun, super::AttachMode::Tcx) })* }
        mod tun_clsact { $(#[test] fn $test() { super::$test(super::Kind::Tun, super::AttachMode::Clsact) })* }
        mod veth_tcx { $(#[test] fn $test() { super::$test(super::Kind::Veth, super::AttachMode::Tcx) })* }
        mod veth_clsact { $(#[test] fn $test() { super::$test(super::Kind::Veth, super::AttachMode::Clsact) })* }
    };
}

on_every_link! {
    allowed_passes_and_denied_is_refused
    datagrams_pass_or_are_refused
    ingress_is_closed_until_a_rule_opens_it
    a_new_policy_cuts_a_live_connection
    raw_frames_are_policed_by_what_they_are
    the_policy_outlives_its_loader
}

fn peers() -> [IpAddr; 2] {
    [PEER4.into(), PEER6.into()]
}

/// What is so in the flows that were told about `port` of `ip`. A denied one is told again when its sender repeats itself
/// after a second, which a busy machine may give it time for.
fn about(flows: &[Flow], ip: IpAddr, port: u16) -> Vec<(Direction, Action, Reason, u32, u32)> {
    let told = flows.iter().filter(|f| f.dst == SocketAddr::new(ip, port));
    let mut told: Vec<_> = told.map(|f| (f.direction, f.action, f.reason, f.rule.0, f.generation)).collect();
    told.dedup();
    told
}

fn allowed_passes_and_denied_is_refused(kind: Kind, mode: AttachMode) {
    let mut lab = Lab::new(kind, mode);
    // Before a policy, an Ethernet link does not even resolve its neighbours.
    let unready = if kind == Kind::Tun { &peers()[..] } else { &[] };
    for &ip in unready {
        let before = lab.connect(ip, 8080).unwrap_err();
        assert_eq!(before.kind(), ErrorKind::ConnectionRefused, "no policy yet: {before}");
    }
    lab.enforcer().apply(&table(), &[], 7).unwrap();
    for ip in peers() {
        let open = lab.peer_listens(ip, 8080);
        let _closed = lab.peer_listens(ip, 9090);
        let mut agent = lab.connect(ip, 8080).unwrap();
        let (mut peer, _) = open.accept().unwrap();
        let sent: Vec<u8> = (0..1 << 20).map(|n: u32| n.to_le_bytes()[n as usize % 3]).collect();
        thread::scope(|scope| {
            scope.spawn(|| agent.write_all(&sent).unwrap());
            let mut got = vec![0; sent.len()];
            peer.read_exact(&mut got).unwrap();
            assert!(got == sent);
        });
        let refused = lab.connect(ip, 9090).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
    }
    for ip in [IpAddr::from(NOWHERE4), NOWHERE6.into()] {
        let refused = lab.connect(ip, 443).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
    }
    let flows = lab.told();
    for ip in peers() {
        let denied =
            unready.iter().take(1).map(|_| (Direction::Egress, Action::Deny, Reason::NoPolicy, 0, 0));
        let allowed = (Direction::Egress, Action::Allow, Reason::RuleAllow, 1, 7);
        assert_eq!(about(&flows, ip, 8080), denied.chain([allowed]).collect::<Vec<_>>());
        assert_eq!(about(&flows, ip, 9090), [(Direction::Egress, Action::Deny, Reason::DefaultDeny, 0, 7)]);
    }
    let flow = flows.iter().find(|f| f.dst == SocketAddr::new(PEER4.into(), 9090)).unwrap();
    assert_eq!((flow.proto, flow.src.ip(), flow.link), (6, AGENT4.into(), lab.link_index()));
    assert_eq!(lab.enforcer().lost().unwrap(), 0);
}

fn datagrams_pass_or_are_refused(kind: Kind, mode: AttachMode) {
    let mut lab = Lab::new(kind, mode);
    lab.enforcer().apply(&table(), &[], 1).unwrap();
    for ip in peers() {
        let server = lab.peer_binds(ip, 53);
        let client = lab.agent_udp(ip, 53);
        // The longer one goes in fragments, there and back.
        for length in [1, 4000] {
            let sent = vec![length as u8; length];
            client.send(&sent).unwrap();
            let mut buffer = [0; 5000];
            let (n, from) = server.recv_from(&mut buffer).unwrap();
            assert_eq!(buffer[..n], sent);
            server.send_to(&sent, from).unwrap();
            assert_eq!(client.recv(&mut buffer).unwrap(), length);
        }
        let _closed = lab.peer_binds(ip, 54);
        let client = lab.agent_udp(ip, 54);
        client.send(b"no").unwrap();
        let refused = client.recv(&mut [0; 9]).unwrap_err();
        let expected = if ip.is_ipv4() { libc::EHOSTUNREACH } else { libc::EACCES };
        assert_eq!(refused.raw_os_error(), Some(expected), "{refused}");
    }
}

fn ingress_is_closed_until_a_rule_opens_it(kind: Kind, mode: AttachMode) {
    let mut lab = Lab::new(kind, mode);
    lab.enforcer().apply(&table(), &[], 1).unwrap();
    let agent = IpAddr::from(AGENT4);
    let listener = lab.agent_listens(agent, 9000);
    listener.set_nonblocking(true).unwrap();
    let attempt = lab.peer.start_connecting(SocketAddr::new(agent, 9000));
    let denied = lab.wait_for(|f| f.dst == SocketAddr::new(agent, 9000));
    assert_eq!((denied.direction, denied.reason), (Direction::Ingress, Reason::DefaultDeny));
    assert_eq!(denied.src.ip(), IpAddr::from(PEER4));
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(attempt);

    let mut open = table();
    open.ingress = vec![entry("10.42.0.1/32", &[line(Proto::Tcp, Some(9000), 6)])];
    lab.enforcer().apply(&open, &[], 2).unwrap();
    listener.set_nonblocking(false).unwrap();
    let mut peer = lab.connect_from_peer(agent, 9000).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.write_all(b"hello").unwrap();
    let mut got = [0; 5];
    peer.read_exact(&mut got).unwrap();
    let opened = lab.wait_for(|f| f.dst == SocketAddr::new(agent, 9000) && f.action == Action::Allow);
    assert_eq!((opened.direction, opened.rule.0, opened.generation), (Direction::Ingress, 6, 2));
}

fn a_new_policy_cuts_a_live_connection(kind: Kind, mode: AttachMode) {
    let mut lab = Lab::new(kind, mode);
    lab.enforcer().apply(&table(), &[], 1).unwrap();
    for ip in peers() {
        let listener = lab.peer_listens(ip, 8080);
        let mut agent = lab.connect(ip, 8080).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"hello").unwrap();
        agent.read_exact(&mut [0; 5]).unwrap();
        lab.enforcer().apply(&table(), &[], 2).unwrap();
        peer.write_all(b"still").unwrap();
        agent.read_exact(&mut [0; 5]).unwrap();
        lab.enforcer().apply(&Table::default(), &[], 3).unwrap();
        // Long enough for segmentation offload: the answer replaces a packet of many pages.
        let written = agent.write_all(&[0; 1 << 20]);
        let reset = written.and_then(|()| agent.read_exact(&mut [0])).unwrap_err();
        assert_eq!(reset.kind(), ErrorKind::ConnectionReset, "{reset}");
        peer.set_nonblocking(true).unwrap();
        assert_eq!(peer.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "nothing got through");
        lab.enforcer().apply(&table(), &[], 1).unwrap();
    }
}

fn raw_frames_are_policed_by_what_they_are(kind: Kind, mode: AttachMode) {
    let mut lab = Lab::new(kind, mode);
    lab.enforcer().apply(&table(), &[], 1).unwrap();
    // A port each: a denied flow is told only once a second.
    let claims = [(54, libc::ETH_P_IP), (55, libc::ETH_P_ARP), (56, libc::ETH_P_IPV6)];
    let mut bound = Vec::from(claims.map(|(port, _)| lab.peer_binds(PEER4.into(), port)));
    let open = lab.peer_binds(PEER4.into(), 53);
    // Resolves the peer's address on Ethernet, so that the frames below are addressed right.
    lab.agent_udp(PEER4.into(), 53).send(b"first").unwrap();
    assert_eq!(open.recv(&mut [0; 9]).unwrap(), 5);
    let datagram = |src: std::net::Ipv4Addr, port| packet_socket::udp4(src, PEER4, 4000, port);
    for (port, claimed) in claims {
        lab.agent_sends_raw(claimed, &datagram(AGENT4, port));
        let denied = lab.wait_for(|f| f.dst.port() == port);
        assert_eq!(denied.reason, Reason::DefaultDeny, "claimed to be {claimed:#x}");
    }
    lab.agent_sends_raw(libc::ETH_P_IP, &datagram(NOWHERE4, 53));
    assert_eq!(lab.wait_for(|f| f.src.ip() == IpAddr::from(NOWHERE4)).reason, Reason::Spoofed);
    // The frames are right: the same one, allowed, arrives, and it is the only one.
    lab.agent_sends_raw(libc::ETH_P_IP, &datagram(AGENT4, 53));
    let (_, from) = open.recv_from(&mut [0; 9]).unwrap();
    assert_eq!(from, SocketAddr::new(AGENT4.into(), 4000));
    bound.push(open);
    for socket in bound {
        socket.set_nonblocking(true).unwrap();
        assert_eq!(socket.recv(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

fn the_policy_outlives_its_loader(kind: Kind, mode: AttachMode) {
    let mut lab = Lab::new(kind, mode);
    lab.enforcer().apply(&table(), &[], 1).unwrap();
    lab.drop_enforcer();
    let _open = lab.peer_listens(PEER4.into(), 8080);
    let _closed = lab.peer_listens(PEER4.into(), 9090);
    let refused = |attempt: std::io::Result<TcpStream>| {
        assert_eq!(attempt.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    };
    lab.connect(PEER4.into(), 8080).unwrap();
    refused(lab.connect(PEER4.into(), 9090));

    lab.load_and_attach();
    lab.connect(PEER4.into(), 8080).unwrap();
    refused(lab.connect(PEER4.into(), 9090));
    lab.enforcer().apply(&Table::default(), &[], 2).unwrap();
    refused(lab.connect(PEER4.into(), 8080));

    lab.drop_enforcer();
    lab.unmount();
    if mode == AttachMode::Tcx {
        // The links went with their pins. The kernel frees them in its own time.
        lab.eventually(|lab| lab.connect(PEER4.into(), 9090).is_ok());
    } else {
        // The filters belong to the link. Their maps, which they hold, still deny.
        refused(lab.connect(PEER4.into(), 9090));
        lab.agent_runs("tc qdisc del dev wg0 clsact");
        lab.connect(PEER4.into(), 9090).unwrap();
    }
}

/// An uplink beside the overlay, as a sandbox has one whose rules name what lies outside.
#[test]
fn a_source_of_another_link_is_refused_with_an_answer() {
    let mut lab = Lab::new(Kind::Tun, AttachMode::Auto);
    let mut uplink = lab.in_agent(|| tun::open("eth0"));
    let (inside, outside) = ([192, 168, 7, 2].into(), IpAddr::from([203, 0, 113, 1]));
    lab.attach_with("eth0", &[inside]).unwrap();
    lab.attach_with("wg0", &[AGENT4.into(), AGENT6.into()]).unwrap();
    for command in
        ["addr add 192.168.7.2/31 dev eth0", "link set eth0 up", "route add 203.0.113.0/24 dev eth0"]
    {
        lab.agent_runs(&format!("ip {command}"));
    }
    let mut all = table();
    all.egress.push(entry("203.0.113.0/24", &[line(Proto::Any, None, 3)]));
    lab.enforcer().apply(&all, &[], 1).unwrap();

    for (from, to, port) in [(AGENT4.into(), outside, 443), (inside, PEER4.into(), 53)] {
        let socket = lab.agent_udp_from(from, to, port);
        socket.send(b"lost").unwrap();
        let refused = socket.recv(&mut [0; 9]).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EHOSTUNREACH), "{from} to {to}: {refused}");
        let told = lab.wait_for(|flow| flow.dst == SocketAddr::new(to, port));
        assert_eq!((told.action, told.reason, told.src.ip()), (Action::Deny, Reason::Spoofed, from));
    }
    // The same from the right address passes.
    lab.agent_udp_from(inside, outside, 443).send(b"gone out").unwrap();
    let told = lab.wait_for(|flow| flow.dst == SocketAddr::new(outside, 443));
    assert_eq!((told.reason, told.src.ip()), (Reason::RuleAllow, inside));
    let mut packet = [0; 100];
    // Of version 4; the kernel says hello in version 6.
    while uplink.read(&mut packet).unwrap() == 0 || packet[0] != 0x45 {}
    assert_eq!(
        (packet[12..20].to_vec(), &packet[28..36]),
        (vec![192, 168, 7, 2, 203, 0, 113, 1], &b"gone out"[..])
    );
    // Nobody's address on a link that was not announced.
    lab.attach_with("wg0", &[]).unwrap();
    let orphan = lab.agent_udp(PEER4.into(), 53);
    orphan.send(b"lost").unwrap();
    let told = lab.wait_for(|flow| flow.dst.port() == 53 && flow.src.ip() == AGENT4);
    assert_eq!(told.reason, Reason::Spoofed);
}

/// A pod has a link of its cluster beside the overlay's; its agent may bind a socket to any of them.
#[test]
fn the_overlay_is_reached_by_its_link_alone() {
    let overlay =
        Overlay::new("10.77.0.0/16".parse().unwrap(), "fd12:3456:789a::/48".parse().unwrap()).unwrap();
    let mut lab = Lab::new(Kind::Tun, AttachMode::Auto);
    let _uplink = lab.in_agent(|| tun::open("eth0"));
    let (v4, v6): (IpAddr, IpAddr) = ([192, 168, 7, 2].into(), "fd00:7::2".parse().unwrap());
    lab.attach_with("eth0", &[v4, v6]).unwrap();
    for command in [
        "addr add 192.168.7.2/31 dev eth0",
        "addr add fd00:7::2/64 dev eth0 nodad",
        "link set eth0 up",
        "route add 10.77.0.0/16 dev eth0",
        "route add fd12:3456:789a::/47 dev eth0",
    ] {
        lab.agent_runs(&format!("ip {command}"));
    }
    let mut all = table();
    for net in ["10.77.0.0/16", "fd12:3456:789a::/47"] {
        all.egress.push(entry(net, &[line(Proto::Any, None, 3)]));
    }
    lab.enforcer().apply(&all, &[], 1).unwrap();
    let peer = overlay.v6([10, 77, 0, 5].into()).into();
    let verdict = |lab: &mut Lab, from, to, port| {
        let _sent = lab.agent_udp_from(from, to, port).send(b"?");
        lab.wait_for(|flow| flow.dst == SocketAddr::new(to, port)).action
    };
    let peers = [(v4, [10, 77, 0, 5].into()), (v6, peer)];
    for (from, to) in peers {
        assert_eq!(verdict(&mut lab, from, to, 1001), Action::Allow, "{to}");
    }
    lab.confine(&overlay, "wg0");
    for (from, to) in peers {
        assert_eq!(verdict(&mut lab, from, to, 1002), Action::Deny, "{to}");
    }
    // The network beside the prefix is not the overlay's.
    let beside = "fd12:3456:789b::5".parse().unwrap();
    assert_eq!(verdict(&mut lab, v6, beside, 1003), Action::Allow);
}

/// Names of the pinned links.
fn pinned(lab: &Lab) -> Vec<String> {
    let abi = fs::read_dir(lab.pin_dir()).unwrap().next().unwrap().unwrap().path();
    let names = fs::read_dir(abi).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("link-")).collect()
}

fn links_come_and_go(mode: AttachMode) {
    let mut lab = Lab::new(Kind::Veth, mode);
    lab.enforcer().apply(&table(), &[], 1).unwrap();
    let refused = |lab: &Lab, why| {
        let attempt = lab.connect(PEER4.into(), 9090);
        assert_eq!(attempt.unwrap_err().kind(), ErrorKind::ConnectionRefused, "{why}");
    };
    for round in 0..3 {
        lab.recreate_link();
        let attached = lab.attach_in_agent("wg0").unwrap();
        assert_eq!(attached, lab.attach_in_agent("wg0").unwrap(), "again is no error");
        lab.configure();
        let _open = lab.peer_listens(PEER4.into(), 8080);
        let _closed = lab.peer_listens(PEER4.into(), 9090);
        lab.connect(PEER4.into(), 8080).unwrap();
        refused(&lab, round);
    }
    for n in 0..20 {
        lab.agent_runs(&format!("ip link add extra{n} type veth peer name other{n}"));
        lab.attach_in_agent(&format!("extra{n}")).unwrap();
    }
    if mode == AttachMode::Tcx {
        assert_eq!(pinned(&lab).len(), 2 * 21);
    }
    for n in 0..20 {
        lab.agent_runs(&format!("ip link del extra{n}"));
    }
    // A new loader of the same pins, which holds nothing of the old one.
    lab.drop_enforcer();
    lab.load_and_attach();
    if mode == AttachMode::Tcx {
        assert_eq!(pinned(&lab).len(), 2, "{:?}", pinned(&lab));
    }
    let _closed = lab.peer_listens(PEER4.into(), 9090);
    refused(&lab, 9);
}

#[test]
fn links_come_and_go_with_tcx() {
    links_come_and_go(AttachMode::Tcx);
}

#[test]
fn links_come_and_go_with_clsact() {
    links_come_and_go(AttachMode::Clsact);
}

#[test]
fn the_mode_is_told_and_unknown_links_are_refused() {
    let mut lab = Lab::new(Kind::Tun, AttachMode::Auto);
    assert_eq!(lab.attached, Attached::Tcx, "this kernel is newer than 6.6");
    let missing = lab.attach_in_agent("nosuch").unwrap_err();
    assert!(matches!(&missing, EbpfError::Attach { link, .. } if link == "nosuch"), "{missing}");
}
