//! Paths that the interface's owner chooses.

use super::*;

/// As [`Sink`], with all paths.
#[derive(Default)]
struct Paths(Vec<(Path, u8)>);

impl Output for Paths {
    fn transmit(&mut self, path: Path, len: usize, write: impl FnOnce(&mut [u8])) {
        let mut datagram = vec![0; len];
        write(&mut datagram);
        self.0.push((path, datagram[0]));
    }
    fn deliver(&mut self, _: &mut [u8]) {}
}

fn set(node: &mut Node, path: Option<Path>) {
    let key = node.peer().public_key();
    node.interface.set_path(&key, path, node.now, &mut node.sink);
}

fn to(node: &mut Node) -> Vec<SocketAddr> {
    node.sink.sent.drain(..).map(|(to, _)| to).collect()
}

#[test]
fn a_chosen_path_is_the_only_one_and_hearing_the_peer_elsewhere_does_not_move_it() {
    let (mut a, mut b) = pair();
    a.send(&packet(A, B, b"x"));
    exchange(&mut a, &mut b);
    let chosen = SocketAddr::from(([198, 51, 100, 1], 7));
    set(&mut a, Some(Path::to(chosen)));
    assert_eq!(to(&mut a), [], "nothing to say");
    a.send(&packet(A, B, b"y"));
    let (at, datagram) = a.sink.sent.pop_front().unwrap();
    assert_eq!(at, chosen);
    b.receive(chosen, &datagram);
    b.receive(a.at, &[]);

    // Its answer, by another path, is taken.
    b.now += Duration::from_secs(1);
    a.now = b.now;
    b.send(&packet(B, A, b"z"));
    let (_, answer) = b.sink.sent.pop_front().unwrap();
    a.receive(b.at, &answer);
    assert_eq!(a.sink.delivered.len(), 1);
    assert_eq!(a.peer().path(), Some(Path::to(chosen)));
    assert_eq!(a.peer().last_received(), Some(a.now));
    assert_eq!(a.peer().last_received_by().and_then(|path| path.remote()), Some(b.at));

    // A handshake goes there too, and nowhere else.
    a.pass(Duration::from_secs(200));
    a.pass(Duration::from_secs(6));
    assert_eq!(to(&mut a), [chosen, chosen]);
    set(&mut a, None);
    assert_eq!(to(&mut a), [b.at], "at once, where it was heard of");
}

#[test]
fn packets_that_wait_begin_a_handshake_by_a_new_path_at_once() {
    let (mut a, mut b) = pair();
    a.set_peers(&[PeerConfig {
        endpoints: vec![SocketAddr::from(([192, 0, 2, 99], 1))],
        ..b.config("10.42.0.2/32")
    }]);
    a.send(&packet(A, B, b"x"));
    a.sink.sent.clear();
    set(&mut a, Some(Path::to(b.at)));
    set(&mut a, Some(Path::to(b.at)));
    assert_eq!(a.sink.sent.len(), 1);
    // Repeated there as well.
    a.sink.sent.clear();
    let again = retransmit::next(&mut a, Duration::from_millis(60)).unwrap();
    assert_eq!(again.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [b.at]);
    a.sink.sent.extend(again);
    exchange(&mut a, &mut b);
    assert_eq!(b.sink.delivered.len(), 1);
}

#[test]
fn a_relay_is_a_path_like_others() {
    let (mut a, mut b) = pair();
    a.set_peers(&[PeerConfig { endpoints: vec![], ..b.config("10.42.0.2/32") }]);
    let relay = Path::Relay { relay: 3, peer: b.key.public() };
    set(&mut a, Some(relay));
    let mut out = Paths::default();
    a.interface.handle_packets(&mut Single::new(&packet(A, B, b"x")), a.now, &mut out);
    assert_eq!(out.0, [(relay, 1)]);

    // The other end answers by the relay that it was asked by.
    set(&mut a, Some(Path::to(b.at)));
    let (_, mut initiation) = a.sink.sent.pop_front().unwrap();
    let back = Path::Relay { relay: 5, peer: a.key.public() };
    let mut out = Paths::default();
    b.interface.handle_datagram(back, &mut initiation, b.now, &mut out);
    assert_eq!(out.0, [(back, 2)]);
    assert_eq!(b.peer().path(), Some(back));
}

#[test]
fn a_path_into_the_overlay_is_none() {
    let (mut a, b) = pair();
    set(&mut a, Some(Path::to(SocketAddr::from((B, 51820)))));
    a.send(&packet(A, B, b"x"));
    assert_eq!(to(&mut a), [b.at]);
}
