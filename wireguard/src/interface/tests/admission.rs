//! Floods of handshakes, and who still gets in.

use super::*;

/// A third one, whom `b` knows.
fn with_third(a: &Node, b: &mut Node) -> Node {
    let mut c = Node::new(3);
    b.set_peers(&[a.config("10.42.0.1/32"), c.config("10.42.0.3/32")]);
    c.set_peers(&[b.config("10.42.0.2/32")]);
    c
}

#[test]
fn one_flooder_does_not_bring_others_to_need_a_cookie() {
    let (mut a, mut b) = pair();
    let mut c = with_third(&a, &mut b);
    a.send(&packet(A, B, b"x"));
    let (_, initiation) = a.sink.sent.pop_front().unwrap();
    (0..300).for_each(|_| b.receive(a.at, &initiation));
    b.sink.sent.clear();
    c.send(&packet([10, 42, 0, 3], B, b"x"));
    exchange(&mut c, &mut b);
    assert_eq!(b.sink.delivered.len(), 1);
}

#[test]
fn under_load_a_cookie_lets_its_owner_in_and_nobody_else() {
    let (mut a, mut b) = pair();
    a.send(&packet(A, B, b"x"));
    let (_, initiation) = a.sink.sent.pop_front().unwrap();
    // From a stranger's address, so that nothing of it is taken: it makes the load, by its valid first MAC.
    let mut forged = initiation.clone();
    let identity_unknown = SocketAddr::from(([203, 0, 113, 9], 9));
    forged[0] = 1;
    for number in 0..600u32 {
        let from = SocketAddr::from(((0xcb00_7100 + number).to_be_bytes(), 9));
        b.receive(from, &forged);
    }
    b.sink.sent.clear();
    let before = b.interface.drops().handshake_refused;
    a.now += Duration::from_millis(30);
    b.now = a.now;
    a.set_peers(&[]);
    a.set_peers(&[b.config("10.42.0.2/32")]);
    a.send(&packet(A, B, b"y"));
    let (_, fresh) = a.sink.sent.pop_front().unwrap();
    b.receive(a.at, &fresh);
    let (to, cookie) = b.sink.sent.pop_front().unwrap();
    assert_eq!((to, cookie[0], cookie.len()), (a.at, 3, 64));
    a.receive(b.at, &cookie);
    // The same initiation is sent again soon, with the cookie's MAC.
    let again = retransmit::next(&mut a, Duration::from_millis(60)).unwrap().remove(0).1;
    assert!(again[..132] == fresh[..132] && again[132..] != fresh[132..]);
    b.receive(SocketAddr::from((a.at.ip(), 1)), &again);
    assert_eq!(b.kinds(), [3], "another port than the cookie's");
    b.receive(identity_unknown, &again);
    assert_eq!(b.kinds(), [3], "another address than the cookie's");
    b.receive(a.at, &again);
    assert_eq!(b.sink.sent[0].1[0], 2);
    exchange(&mut a, &mut b);
    assert_eq!(b.sink.delivered.len(), 1);
    assert_eq!(b.interface.drops().handshake_refused, before + 3);
}

#[test]
fn without_the_first_mac_nothing_counts_and_nothing_is_answered() {
    let (mut a, mut b) = pair();
    a.send(&packet(A, B, b"x"));
    let (_, initiation) = a.sink.sent.pop_front().unwrap();
    let mut forged = initiation.clone();
    forged[116] ^= 1;
    (0..20_000).for_each(|_| b.receive(a.at, &forged));
    assert!(b.sink.sent.is_empty());
    b.receive(a.at, &initiation);
    assert_eq!(b.kinds(), [2]);
}

#[test]
fn a_cookie_that_answers_nothing_is_refused() {
    let (mut a, mut b) = pair();
    a.send(&packet(A, B, b"x"));
    exchange(&mut a, &mut b);
    for index in a.interface.indices() {
        let mut reply = [7; 64];
        reply[..4].copy_from_slice(&[3, 0, 0, 0]);
        reply[4..8].copy_from_slice(&index.to_le_bytes());
        a.receive(b.at, &reply);
    }
    assert_eq!(a.interface.drops().handshake_refused, 1);
}
