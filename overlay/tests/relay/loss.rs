//! Paths by QUIC that lose what is large: all that one connection sends, as much loss by a flood looks to QUIC, or really all.

use std::{io::Write as _, process::Stdio};

use super::*;

/// Has `netns` drop UDP packets with more than 1,300 bytes that come in, and `which`; what else it dropped, no more.
fn drop_large(netns: &Netns, which: &str) {
    let rule = format!(
        "table inet narrow {{}}
        delete table inet narrow
        table inet narrow {{ chain in {{
            type filter hook input priority 0; meta l4proto udp meta length > 1300 {which} drop; }}; }}"
    );
    let run = || {
        let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(rule.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "nft");
    };
    netns.run(run).unwrap();
}

/// The local ports of all UDP sockets in `netns`.
fn udp_ports(netns: &Netns) -> Vec<u16> {
    let table = netns.run(|| std::fs::read_to_string("/proc/thread-self/net/udp").unwrap()).unwrap();
    let local = |line: &str| line.split_whitespace().nth(1)?.split_once(':').map(|(_, port)| port.to_owned());
    table.lines().skip(1).filter_map(local).map(|port| u16::from_str_radix(&port, 16).unwrap()).collect()
}

type ByQuic = (Arc<Netns>, Arc<Netns>, TestRelay, [(Peer, u16); 2]);

/// Relay and peers at two ends of a link, the peers by QUIC, and also otherwise only if `or_tcp`; and the ports of their sockets.
fn by_quic(or_tcp: bool) -> ByQuic {
    let (of_relay, of_peers) = narrow(1500);
    let relay = TestRelay::in_netns(&of_relay, Ipv4Addr::new(192, 0, 2, 1));
    let mut known = Vec::new();
    let peers = [1, 2].map(|address| {
        let change = |config: &mut RelayClientConfig| config.server.tcp.take_if(|_| !or_tcp);
        let peer = Peer::with(&relay, address, &of_peers, |config| drop(change(config))).up();
        assert_eq!(peer.transport(), Some(Transport::Quic));
        let port = udp_ports(&of_peers).into_iter().find(|port| !known.contains(port)).unwrap();
        known.push(port);
        (peer, port)
    });
    peers[0].0.reaches(&peers[1].0, &FULL);
    (of_relay, of_peers, relay, peers)
}

/// `a` sends large and small datagrams to `b` until `end`.
fn send_until(a: &Peer, b: &Peer, end: impl Fn() -> bool) {
    let begun = Instant::now();
    while !end() {
        assert!(begun.elapsed() < HANGS, "{:?} {:?}", a.client, b.client);
        for datagram in [&FULL[..], b"small"] {
            a.client.send(&b.address, datagram.len(), |body| body.copy_from_slice(datagram));
            while b.receive(Duration::from_millis(2)).is_some() {}
        }
    }
}

#[test]
fn a_path_by_quic_that_only_seems_to_have_become_narrow_is_tried_anew() {
    for outwards in [true, false] {
        let (of_relay, of_peers, _relay, [(a, of_a), (b, of_b)]) = by_quic(false);
        // Silently, at the receiving end, and of this one connection.
        match outwards {
            true => drop_large(&of_relay, &format!("udp sport {of_a}")),
            false => drop_large(&of_peers, &format!("udp dport {of_b}")),
        }
        let port = if outwards { of_a } else { of_b };
        send_until(&a, &b, || {
            let is_up = |peer: &Peer| peer.transport().is_some();
            assert!(is_up(&a) && is_up(&b), "outwards: {outwards}: {:?} {:?}", a.client, b.client);
            !udp_ports(&of_peers).contains(&port)
        });
        a.reaches(&b, &FULL);
        b.reaches(&a, &FULL);
    }
}

#[test]
fn a_path_that_became_narrow_is_left_for_tcp() {
    let (of_relay, _of_peers, _relay, [(a, _), (b, _)]) = by_quic(true);
    drop_large(&of_relay, "");
    send_until(&a, &b, || a.transport() == Some(Transport::Tcp));
    a.reaches(&b, &FULL);
}

#[test]
fn a_path_that_seems_narrow_twice_in_a_row_is_left_for_tcp() {
    let (of_relay, of_peers, _relay, [(a, of_a), (b, of_b)]) = by_quic(true);
    drop_large(&of_relay, &format!("udp sport {of_a}"));
    send_until(&a, &b, || !udp_ports(&of_peers).contains(&of_a));
    let anew = udp_ports(&of_peers).into_iter().find(|port| *port != of_b);
    let Some(port) = anew.filter(|_| a.transport() == Some(Transport::Quic)) else {
        println!("SKIPPED: this machine is so busy that TCP was there before QUIC");
        return;
    };
    drop_large(&of_relay, &format!("udp sport {port}"));
    send_until(&a, &b, || !udp_ports(&of_peers).contains(&port));
    assert_eq!(a.transport(), Some(Transport::Tcp), "a third connection by QUIC would have come about");
    a.reaches(&b, &FULL);
}
