//! The policy in a network namespace: the agent's and its peer's, joined by a veth pair. Needs root and `nft`.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    thread,
};

use lab::{AGENT4, AGENT6, Lab, NOWHERE4, NOWHERE6, PEER4, PEER6, entry, line, table};
use lattice_policy::{Action, Direction, Flow, Proto, Reason, Table};

mod agree;
mod lab;
mod odd;
mod pins;
mod switch;

fn peers() -> [IpAddr; 2] {
    [PEER4.into(), PEER6.into()]
}

/// What is so in the flows that were told about `port` of `ip`.
fn about(flows: &[Flow], ip: IpAddr, port: u16) -> Vec<(Direction, Action, Reason, u32, u32)> {
    let told = flows.iter().filter(|f| f.dst == SocketAddr::new(ip, port));
    told.map(|f| (f.direction, f.action, f.reason, f.rule.0, f.generation)).collect()
}

fn refused(attempt: std::io::Result<TcpStream>) {
    assert_eq!(attempt.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

/// A denied datagram fails by itself, or its sender is told.
fn is_refused(client: &UdpSocket) {
    let told = client.send(b"no").and_then(|_| client.recv(&mut [0; 9])).unwrap_err();
    let known = [libc::EPERM, libc::EHOSTUNREACH, libc::EACCES];
    assert!(told.raw_os_error().is_some_and(|e| known.contains(&e)), "{told}");
}

#[test]
fn allowed_passes_and_denied_is_refused() {
    let mut lab = Lab::new();
    for ip in peers() {
        refused(lab.connect(ip, 8080));
    }
    lab.nftables.apply(&table(), &[], 7).unwrap();
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
        refused(lab.connect(ip, 9090));
    }
    for ip in [IpAddr::from(NOWHERE4), NOWHERE6.into()] {
        refused(lab.connect(ip, 443));
    }
    lab.wait_for(|f| f.dst == SocketAddr::new(NOWHERE6.into(), 443));
}

#[test]
fn records_say_who_decided_what_and_when() {
    let mut lab = Lab::new();
    refused(lab.connect(PEER4.into(), 8080));
    lab.nftables.apply(&table(), &[], 7).unwrap();
    let _open = lab.peer_listens(PEER4.into(), 8080);
    lab.connect(PEER4.into(), 8080).unwrap();
    for _ in 0..3 {
        refused(lab.connect(PEER4.into(), 9090));
    }
    refused(lab.connect(NOWHERE4.into(), 1));
    lab.eventually(|lab| !about(&lab.told(), NOWHERE4.into(), 1).is_empty());
    let flows = lab.told();
    let unready = (Direction::Egress, Action::Deny, Reason::NoPolicy, 0, 0);
    let allowed = (Direction::Egress, Action::Allow, Reason::RuleAllow, 1, 7);
    let denied = (Direction::Egress, Action::Deny, Reason::DefaultDeny, 0, 7);
    assert_eq!(about(&flows, PEER4.into(), 8080), [unready, allowed]);
    assert_eq!(about(&flows, PEER4.into(), 9090), [denied; 3], "each from another port");
    let flow = flows.iter().find(|f| f.dst.port() == 9090).unwrap();
    assert_eq!((flow.proto, flow.src.ip(), flow.link), (6, AGENT4.into(), lab.link_index()));
    assert_eq!(flow.bytes, 60, "a SYN with options");
    assert!(flow.at_ns > 0 && flow.src.port() > 0);
    assert_eq!(lab.nftables.lost(), 0);
}

#[test]
fn a_denied_flow_is_told_once_a_second() {
    let mut lab = Lab::new();
    lab.nftables.apply(&table(), &[], 1).unwrap();
    let client = lab.agent_udp(PEER4.into(), 54);
    for _ in 0..200 {
        let _ = client.send(b"no");
    }
    refused(lab.connect(NOWHERE4.into(), 1));
    lab.eventually(|lab| !about(&lab.told(), NOWHERE4.into(), 1).is_empty());
    // A slow machine may take longer than a second for 200 datagrams, but not a second for each.
    let told = about(&lab.told(), PEER4.into(), 54).len();
    assert!((1..100).contains(&told), "{told}");
}

#[test]
fn datagrams_pass_or_are_refused() {
    let mut lab = Lab::new();
    lab.nftables.apply(&table(), &[], 1).unwrap();
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
        let closed = lab.peer_binds(ip, 54);
        is_refused(&lab.agent_udp(ip, 54));
        closed.set_nonblocking(true).unwrap();
        assert_eq!(closed.recv(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn errors_about_a_flow_come_in() {
    let mut lab = Lab::new();
    lab.nftables.apply(&table(), &[], 1).unwrap();
    for ip in peers() {
        // Allowed, and nobody listens: the peer says so.
        let client = lab.agent_udp(ip, 53);
        client.send(b"anyone?").unwrap();
        assert_eq!(client.recv(&mut [0; 9]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}

#[test]
fn echo_passes_or_is_refused() {
    let lab = &mut Lab::new();
    let echo = [line(Proto::Icmp, None, 4)];
    let open = |nets: &[&str]| Table {
        egress: nets.iter().map(|net| entry(net, &echo)).collect(),
        ingress: Vec::new(),
    };
    lab.nftables.apply(&open(&["10.42.0.1/32", "fd00::1/128"]), &[], 1).unwrap();
    for ip in peers() {
        lab.agent.command(&format!("ping -c 1 -W 30 {ip}"));
        let told = lab.wait_for(|f| f.dst.ip() == ip && f.action == Action::Allow);
        assert_eq!((told.rule.0, told.dst.port(), told.src.port()), (4, 0, 0));
    }
    lab.nftables.apply(&open(&[]), &[], 2).unwrap();
    for ip in peers() {
        let said = lab
            .agent
            .run(|| std::process::Command::new("ping").args(["-c1", "-W30", &ip.to_string()]).output());
        assert!(!said.unwrap().status.success());
        let told = lab.wait_for(|f| f.dst.ip() == ip && f.generation == 2);
        assert_eq!((told.reason, told.proto), (Reason::DefaultDeny, if ip.is_ipv4() { 1 } else { 58 }));
    }
}

#[test]
fn ingress_is_closed_until_a_rule_opens_it() {
    let mut lab = Lab::new();
    lab.nftables.apply(&table(), &[], 1).unwrap();
    let agent = IpAddr::from(AGENT4);
    let listener = lab.agent_listens(agent, 9000);
    listener.set_nonblocking(true).unwrap();
    let attempt = lab.peer.start_connecting(SocketAddr::new(agent, 9000));
    let denied = lab.wait_for(|f| f.dst == SocketAddr::new(agent, 9000));
    assert_eq!((denied.direction, denied.reason), (Direction::Ingress, Reason::DefaultDeny));
    assert_eq!((denied.src.ip(), denied.link), (IpAddr::from(PEER4), lab.link_index()));
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(attempt);

    let mut open = table();
    let rule = [line(Proto::Tcp, Some(9000), 6)];
    open.ingress = vec![entry("10.42.0.1/32", &rule), entry("fd00::1/128", &rule)];
    lab.nftables.apply(&open, &[], 2).unwrap();
    let listener6 = lab.agent_listens(AGENT6.into(), 9000);
    lab.connect_from_peer(AGENT6.into(), 9000).unwrap().write_all(b"hello").unwrap();
    listener6.accept().unwrap().0.read_exact(&mut [0; 5]).unwrap();
    listener.set_nonblocking(false).unwrap();
    let mut peer = lab.connect_from_peer(AGENT4.into(), 9000).unwrap();
    let (mut served, _) = listener.accept().unwrap();
    served.write_all(b"hello").unwrap();
    peer.read_exact(&mut [0; 5]).unwrap();
    let told = lab.wait_for(|f| f.dst == SocketAddr::new(AGENT4.into(), 9000) && f.action == Action::Allow);
    assert_eq!((told.direction, told.rule.0, told.generation), (Direction::Ingress, 6, 2));

    // What others opened is judged by the ingress policy in both directions.
    lab.nftables.apply(&table(), &[], 3).unwrap();
    let cut = served.write_all(b"more").and_then(|()| served.read_exact(&mut [0; 1])).unwrap_err();
    assert_eq!(cut.kind(), ErrorKind::ConnectionReset);
    let told = lab.wait_for(|f| f.generation == 3 && f.src == SocketAddr::new(AGENT4.into(), 9000));
    assert_eq!((told.direction, told.reason), (Direction::Egress, Reason::DefaultDeny));
}

#[test]
fn a_new_policy_cuts_a_live_connection() {
    let mut lab = Lab::new();
    // As many rules as the other one, so that numbers that were used twice would show.
    let mut elsewhere = table();
    elsewhere.egress = vec![entry("198.51.100.1/32", &table().egress[0].matches)];
    for ip in peers() {
        lab.nftables.apply(&table(), &[], 1).unwrap();
        let open = lab.peer_listens(ip, 8080);
        let mut agent = lab.connect(ip, 8080).unwrap();
        let (mut peer, _) = open.accept().unwrap();
        let mut exchange = || {
            agent.write_all(b"ping").unwrap();
            peer.read_exact(&mut [0; 4]).unwrap();
            peer.write_all(b"pong").unwrap();
            agent.read_exact(&mut [0; 4]).unwrap();
        };
        exchange();
        // One that still allows it neither touches it nor tells of it.
        for generation in 2..6 {
            lab.nftables.apply(&table(), &[], generation).unwrap();
            exchange();
        }
        lab.nftables.apply(&elsewhere, &[], 9).unwrap();
        let cut = agent.write_all(b"ping").and_then(|()| agent.read_exact(&mut [0; 4])).unwrap_err();
        assert_eq!(cut.kind(), ErrorKind::ConnectionReset);
        lab.eventually(|lab| about(&lab.told(), ip, 8080).len() > 1);
        let allowed = (Direction::Egress, Action::Allow, Reason::RuleAllow, 1, 1);
        let denied = (Direction::Egress, Action::Deny, Reason::DefaultDeny, 0, 9);
        assert_eq!(about(&lab.told(), ip, 8080)[..2], [allowed, denied]);
        // What the peer sends into it does not arrive either.
        peer.write_all(b"late").unwrap();
        let told = lab.wait_for(|f| f.src == SocketAddr::new(ip, 8080));
        assert_eq!((told.direction, told.action, told.generation), (Direction::Ingress, Action::Deny, 9));
    }
}
