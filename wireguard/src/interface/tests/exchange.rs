//! Packets from end to end: who is reached, where, and who is not.

use super::*;
use crate::{
    Packets,
    unreachable::{MAX_PER_PERIOD, PERIOD},
};

#[test]
fn packets_wait_for_the_handshake_and_arrive_in_order_without_padding() {
    let (mut a, mut b) = pair();
    let packets: Vec<_> = (1..6).map(|n| packet(A, B, &vec![n; n.into()])).collect();
    packets.iter().for_each(|packet| a.send(packet));
    exchange(&mut a, &mut b);
    assert_eq!(b.sink.delivered, packets);
    b.send(&packet(B, A, b"back"));
    exchange(&mut a, &mut b);
    assert_eq!(a.sink.delivered, [packet(B, A, b"back")]);
    assert_eq!((a.interface.drops(), b.interface.drops()), (Drops::default(), Drops::default()));
    for node in [&a, &b] {
        assert!(node.interface.peers().all(|peer| peer.last_handshake().is_some()));
    }
}

#[test]
fn keepalive_connects_without_traffic() {
    let (mut a, mut b) = pair();
    a.set_peers(&[PeerConfig { keepalive: Some(25), endpoints: vec![], ..b.config("10.42.0.2/32") }]);
    a.pass(Duration::from_millis(250));
    assert!(a.sink.sent.is_empty());
    // The endpoint comes later: it is used at once.
    a.set_peers(&[PeerConfig { keepalive: Some(25), ..b.config("10.42.0.2/32") }]);
    exchange(&mut a, &mut b);
    assert!(b.interface.peers().all(|peer| peer.last_handshake().is_some()));
}

#[test]
fn initiations_go_to_every_candidate_and_the_answering_one_wins() {
    let (mut a, mut b) = pair();
    let dead = SocketAddr::from(([192, 0, 2, 99], 51820));
    a.set_peers(&[PeerConfig { endpoints: vec![dead, b.at], ..b.config("10.42.0.2/32") }]);
    a.send(&packet(A, B, b"x"));
    assert_eq!(a.sink.sent.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [dead, b.at]);
    exchange(&mut a, &mut b);
    a.send(&packet(A, B, b"y"));
    assert_eq!(a.sink.sent.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [b.at]);
}

#[test]
fn candidates_are_bounded() {
    let (mut a, b) = pair();
    let many = (1..200).map(|port| SocketAddr::from(([192, 0, 2, 7], port))).collect();
    a.set_peers(&[PeerConfig { endpoints: many, ..b.config("10.42.0.2/32") }]);
    a.send(&packet(A, B, b"x"));
    assert_eq!(a.sink.sent.len(), lattice_wire::netmap::MAX_ENDPOINTS);
}

#[test]
fn peers_that_stay_keep_their_session_and_those_removed_lose_it() {
    let (mut a, mut b) = pair();
    a.send(&packet(A, B, b"x"));
    exchange(&mut a, &mut b);
    let third = Node::new(3).config("10.42.0.3/32");
    a.set_peers(&[third.clone(), b.config("10.42.0.2/32")]);
    a.send(&packet(A, B, b"y"));
    let (_, datagram) = a.sink.sent.back().unwrap();
    assert_eq!(datagram[0], 4, "data, not a handshake");
    exchange(&mut a, &mut b);
    assert_eq!(b.sink.delivered.len(), 2);

    a.set_peers(&[third]);
    b.send(&packet(B, A, b"z"));
    a.send(&packet(A, B, b"z"));
    exchange(&mut a, &mut b);
    assert_eq!((a.interface.drops().unknown_peer, a.interface.drops().no_route), (1, 1));
    assert_eq!(b.sink.delivered.len(), 2);
    assert_eq!(a.sink.delivered.len(), 1, "only the ICMP error for the packet sent");
    assert_eq!((a.sink.delivered[0][9], a.sink.delivered[0][20], a.sink.delivered[0][21]), (1, 3, 1));
}

#[test]
fn a_source_that_is_not_the_peers_own_is_dropped() {
    let (mut a, mut b) = pair();
    for source in [[10, 42, 0, 3], B] {
        a.send(&packet(source, B, b"x"));
    }
    exchange(&mut a, &mut b);
    assert!(b.sink.delivered.is_empty());
    assert_eq!(b.interface.drops().wrong_source, 2);
}

#[test]
fn a_network_belongs_to_the_peer_listed_last() {
    let (mut a, mut b) = pair();
    b.set_peers(&[a.config("10.42.0.1/32"), Node::new(3).config("10.42.0.1/32")]);
    a.send(&packet(A, B, b"x"));
    exchange(&mut a, &mut b);
    assert_eq!(b.interface.drops().wrong_source, 1);
}

#[test]
fn only_authentic_datagrams_move_a_peer() {
    let (mut a, mut b) = pair();
    a.send(&packet(A, B, b"x"));
    exchange(&mut a, &mut b);
    let endpoint = |node: &Node| node.interface.peers().next().unwrap().path().and_then(|path| path.remote());
    let elsewhere = SocketAddr::from(([198, 51, 100, 1], 7));

    a.send(&packet(A, B, b"y"));
    let (_, datagram) = a.sink.sent.pop_front().unwrap();
    let mut forged = datagram.clone();
    *forged.last_mut().unwrap() ^= 1;
    b.receive(elsewhere, &forged);
    assert_eq!(endpoint(&b), Some(a.at));
    assert_eq!(b.interface.drops().unauthenticated, 1);

    b.receive(elsewhere, &datagram);
    assert_eq!(endpoint(&b), Some(elsewhere));

    let replayed_from = SocketAddr::from(([198, 51, 100, 2], 7));
    b.receive(replayed_from, &datagram);
    assert_eq!(endpoint(&b), Some(elsewhere));
    assert_eq!(b.interface.drops().unauthenticated, 2);
    assert_eq!(b.sink.delivered.len(), 2);
}

#[test]
fn an_address_of_the_overlay_is_no_endpoint() {
    let (mut a, mut b) = pair();
    let within = SocketAddr::from((A, 51820));
    b.set_peers(&[PeerConfig { endpoints: vec![within, a.at], ..a.config("10.42.0.1/32") }]);
    b.send(&packet(B, A, b"x"));
    assert_eq!(b.sink.sent.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [a.at]);
    exchange(&mut a, &mut b);
    // A peer that sends its datagrams through the tunnel is not followed into it.
    a.send(&packet(A, B, b"y"));
    let (_, datagram) = a.sink.sent.pop_front().unwrap();
    b.receive(within, &datagram);
    assert_eq!(b.interface.peers().next().unwrap().path().and_then(|path| path.remote()), Some(a.at));
    assert_eq!((b.interface.drops().routing_loop, b.sink.delivered.len()), (1, 0));

    // Who owns the default route may be anywhere all the same.
    b.set_peers(&[a.config("0.0.0.0/0")]);
    b.receive(a.at, &datagram);
    assert_eq!(b.sink.delivered.len(), 1);
}

#[test]
fn answers_leave_by_the_address_that_was_asked() {
    let (mut a, mut b) = pair();
    a.send(&packet(A, B, b"x"));
    assert_eq!(a.sink.sent_from, None, "the kernel's choice");
    let (_, initiation) = a.sink.sent.pop_front().unwrap();
    for asked in ["198.51.100.1", "198.51.100.2"].map(|ip| ip.parse().unwrap()) {
        let path = Path::Direct { remote: a.at, local: Some(asked) };
        b.interface.handle_datagram(path, &mut initiation.clone(), b.now, &mut b.sink);
        // A replay changes nothing.
        assert_eq!(b.sink.sent_from, Some("198.51.100.1".parse().unwrap()));
    }
    exchange(&mut a, &mut b);
    b.send(&packet(B, A, b"y"));
    assert_eq!(b.sink.sent_from, Some(b.at.ip()), "where it was reached last");
}

#[test]
fn a_peer_said_to_be_elsewhere_is_looked_for_and_its_session_lives_on() {
    let (mut a, mut b) = pair();
    a.send(&packet(A, B, b"x"));
    exchange(&mut a, &mut b);
    b.at = SocketAddr::from(([198, 51, 100, 2], 51820));
    b.now += Duration::from_secs(1);
    a.set_peers(&[b.config("10.42.0.2/32")]);
    exchange(&mut a, &mut b);
    a.send(&packet(A, B, b"y"));
    assert_eq!(a.sink.sent.len(), 1);
    exchange(&mut a, &mut b);
    assert_eq!(b.sink.delivered.len(), 2);
}

#[test]
fn strangers_get_no_answer() {
    let (mut a, mut b) = pair();
    b.set_peers(&[Node::new(3).config("10.42.0.1/32")]);
    a.send(&packet(A, B, b"x"));
    exchange(&mut a, &mut b);
    assert_eq!(b.interface.drops().unknown_peer, 1);
    assert!(b.sink.delivered.is_empty() && b.sink.sent.is_empty());
    b.set_peers(&[]);
    a.set_peers(&[]);
    a.set_peers(&[b.config("10.42.0.2/32")]);
    a.send(&packet(A, B, b"x"));
    exchange(&mut a, &mut b);
    assert_eq!(b.interface.drops().handshake_refused, 1, "without peers nothing is even parsed");
}

#[test]
fn a_flood_of_initiations_is_asked_for_cookies() {
    let (mut a, mut b) = pair();
    a.send(&packet(A, B, b"x"));
    let (_, initiation) = a.sink.sent.pop_front().unwrap();
    for _ in 0..100 {
        b.receive(a.at, &initiation);
    }
    let kinds: Vec<u8> = b.sink.sent.iter().map(|(_, datagram)| datagram[0]).collect();
    assert_eq!(kinds[0], 2, "the first is answered");
    assert!(kinds[1..].iter().all(|kind| *kind == 3) && kinds.len() > 30, "{kinds:?}");
    // 148 bytes in, at most 92 out: nothing to gain for who would reflect a flood.
    assert!(b.sink.sent.iter().all(|(_, datagram)| datagram.len() < initiation.len()));
}

#[test]
fn a_peer_that_keeps_initiating_is_slowed_down() {
    let (mut a, mut b) = pair();
    let now = a.now;
    let mut initiate = |later: u64| {
        (a.now, b.now) = (now + Duration::from_millis(later), now + Duration::from_millis(later));
        a.set_peers(&[]);
        a.set_peers(&[b.config("10.42.0.2/32")]);
        a.send(&packet(A, B, b"x"));
        let (_, initiation) = a.sink.sent.pop_back().unwrap();
        b.receive(a.at, &initiation);
        b.sink.sent.len()
    };
    assert_eq!([initiate(0), initiate(19), initiate(20), initiate(39), initiate(59)], [1, 1, 2, 2, 3]);
    assert_eq!(b.interface.drops().handshake_refused, 2);
}

#[test]
fn a_packet_for_a_peer_that_is_nowhere_is_refused_at_once() {
    let (mut a, b) = pair();
    a.set_peers(&[PeerConfig { endpoints: vec![], ..b.config("10.42.0.2/32") }]);
    a.send(&packet(A, B, b"x"));
    assert_eq!(a.interface.drops().no_endpoint, 1);
    assert_eq!(a.sink.delivered.len(), 1);
}

#[test]
fn errors_about_packets_nobody_takes_are_limited() {
    let (mut a, _) = pair();
    for _ in 0..1000 {
        a.send(&packet(A, [10, 9, 9, 9], b"x"));
    }
    assert_eq!(a.sink.delivered.len(), MAX_PER_PERIOD as usize);
    a.pass(PERIOD);
    a.send(&packet(A, [10, 9, 9, 9], b"x"));
    assert_eq!(a.sink.delivered.len(), MAX_PER_PERIOD as usize + 1);
}

#[test]
fn a_key_of_low_order_is_no_peer() {
    let mut a = Node::new(1);
    let anybody = PeerConfig { public_key: WgPublicKey([0; 32]), ..Node::new(2).config("10.42.0.2/32") };
    a.set_peers(&[anybody]);
    assert_eq!(a.interface.peers().count(), 0);
}

#[test]
fn packets_are_padded_to_sixteen_bytes_as_far_as_the_mtu_allows() {
    let (mut a, mut b) = pair();
    a.send(&packet(A, B, b"x"));
    exchange(&mut a, &mut b);
    for (len, padded) in [(20, 32), (32, 32), (33, 48), (1408, 1408), (1409, 1420), (1420, 1420)] {
        a.send(&packet(A, B, &vec![7; len - 20]));
        let (_, datagram) = &a.sink.sent[0];
        assert_eq!(datagram.len(), padded + 32, "of {len}");
        exchange(&mut a, &mut b);
        assert_eq!(b.sink.delivered.pop().map(|packet| packet.len()), Some(len));
    }
}

/// What segmentation makes of a packet: its first bytes, and several that go to the same address.
struct Run(Vec<u8>, VecDeque<Vec<u8>>);

impl Packets for Run {
    fn next_len(&self) -> Option<usize> {
        self.1.front().map(Vec::len)
    }
    fn head(&self) -> &[u8] {
        &self.0
    }
    fn write(&mut self, room: &mut [u8]) {
        room.copy_from_slice(&self.1.pop_front().expect("asked for only as long as there are any"));
    }
}

#[test]
fn a_run_goes_where_its_head_says_before_and_after_the_handshake() {
    let (mut a, mut b) = pair();
    let packets: Vec<_> = (1..4).map(|n| packet(A, B, &[n; 40])).collect();
    for round in 1..3 {
        let mut run = Run(packets[0][..20].to_vec(), packets.clone().into());
        a.interface.handle_packets(&mut run, a.now, &mut a.sink);
        assert!(run.1.is_empty());
        exchange(&mut a, &mut b);
        assert_eq!(b.sink.delivered, vec![&packets[..]; round].concat());
    }
    // All of one that goes nowhere is consumed, and its sender is told.
    let lost = packet(A, [10, 42, 0, 9], b"x");
    let mut run = Run(lost[..20].to_vec(), vec![lost.clone(); 3].into());
    a.interface.handle_packets(&mut run, a.now, &mut a.sink);
    assert!(run.1.is_empty());
    assert_eq!((a.interface.drops().no_route, a.sink.delivered.len()), (3, 3));
}

#[test]
fn a_packet_that_says_to_be_longer_than_it_is_goes_nowhere() {
    let (mut a, mut b) = pair();
    a.send(&packet(A, B, b"x"));
    exchange(&mut a, &mut b);
    let mut long = packet(A, B, b"y");
    long[3] += 1;
    a.send(&long);
    assert!(a.sink.sent.is_empty());
    assert_eq!(a.interface.drops().malformed, 1);
}

#[test]
fn padding_tells_nothing_of_what_was_there_before() {
    let (mut a, mut b) = pair();
    a.send(&packet(A, B, b"x"));
    exchange(&mut a, &mut b);
    // A segment that claims its padding as its own.
    let mut segment = packet(A, B, &[7; 13]);
    segment[3] = 48;
    let mut run = Run(segment[..20].to_vec(), VecDeque::from([segment.clone()]));
    a.interface.handle_packets(&mut run, a.now, &mut a.sink);
    exchange(&mut a, &mut b);
    assert_eq!(b.sink.delivered[1], [&segment[..], &[0; 15]].concat());
}
