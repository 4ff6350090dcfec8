//! First contact.

use proptest::prelude::*;

use super::*;

/// Lets time pass until something is sent, and returns it. `None` when nothing is to be sent within `limit`.
pub(super) fn next(node: &mut Node, limit: Duration) -> Option<Vec<(SocketAddr, Vec<u8>)>> {
    let start = node.now;
    while let Some(at) = node.interface.poll_timeout().filter(|at| *at <= start + limit) {
        node.now = node.now.max(at);
        node.pass(Duration::ZERO);
        assert!(node.interface.poll_timeout().is_none_or(|next| next > node.now), "time stands still");
        if !node.sink.sent.is_empty() {
            return Some(node.sink.sent.drain(..).collect());
        }
    }
    None
}

fn has_handshake(node: &Node) -> bool {
    node.interface.peers().all(|peer| peer.last_handshake().is_some())
}

#[test]
fn an_unanswered_initiation_goes_out_again_to_every_candidate_and_not_for_ever() {
    let (mut a, b) = pair();
    let elsewhere = SocketAddr::from(([192, 0, 2, 99], 51820));
    a.set_peers(&[PeerConfig { endpoints: vec![elsewhere, b.at], ..b.config("10.42.0.2/32") }]);
    let start = a.now;
    a.send(&packet(A, B, b"x"));
    let first: Vec<_> = a.sink.sent.drain(..).collect();
    assert_eq!(first.len(), 2);
    let (mut at, mut last) = (Vec::new(), first.clone());
    while a.now < start + Duration::from_secs(3) {
        let again = next(&mut a, Duration::from_secs(3)).unwrap();
        let after = (a.now - start).as_millis();
        assert_eq!(again.iter().map(|(to, _)| to).collect::<Vec<_>>(), [&elsewhere, &b.at]);
        assert_eq!(again[0].1, again[1].1);
        assert_eq!(again == last, after < 750, "{after} ms");
        at.push(after);
        last = again;
    }
    assert_eq!(at, [50, 150, 350, 750, 1500, 3000]);
    let bytes: usize = first.iter().map(|(_, datagram)| datagram.len()).sum();
    assert_eq!(a.peer().tx_bytes(), 7 * bytes as u64);
    // What comes then is another one, and comes once.
    let later = next(&mut a, Duration::from_secs(3)).unwrap();
    assert_eq!(later.iter().map(|(to, _)| to).collect::<Vec<_>>(), [&elsewhere, &b.at]);
    assert_ne!(later[0].1, first[0].1);
    assert_eq!(next(&mut a, Duration::from_millis(4999)), None);
}

#[test]
fn an_answer_that_was_lost_costs_less_than_a_second() {
    let (mut a, mut b) = pair();
    a.send(&packet(A, B, b"x"));
    let start = a.now;
    b.receive(a.at, &a.sink.sent.pop_front().unwrap().1);
    assert_eq!(b.sink.sent.drain(..).count(), 1, "the answer, lost");
    while !has_handshake(&a) {
        let again = next(&mut a, Duration::from_secs(5)).expect("not given up");
        a.sink.sent.extend(again);
        b.now = a.now;
        exchange(&mut a, &mut b);
    }
    assert!(a.now <= start + Duration::from_millis(750), "{:?}", a.now - start);
    assert_eq!(b.sink.delivered, [packet(A, B, b"x")]);
    assert_eq!((next(&mut a, Duration::from_secs(5)), next(&mut b, Duration::from_secs(5))), (None, None));
}

#[test]
fn an_answered_one_does_not() {
    let (mut a, mut b) = pair();
    a.send(&packet(A, B, b"x"));
    exchange(&mut a, &mut b);
    assert!(has_handshake(&a) && has_handshake(&b));
    assert_eq!((next(&mut a, Duration::from_secs(5)), next(&mut b, Duration::from_secs(5))), (None, None));
}

#[test]
fn a_copy_of_one_that_was_taken_is_dropped() {
    let (mut a, mut b) = pair();
    a.send(&packet(A, B, b"x"));
    let initiation = a.sink.sent.pop_front().unwrap();
    let again = next(&mut a, Duration::from_secs(1)).unwrap();
    assert_eq!(again, std::slice::from_ref(&initiation));
    b.receive(a.at, &initiation.1);
    assert_eq!(b.sink.sent.len(), 1);
    b.now += Duration::from_millis(50);
    b.receive(a.at, &initiation.1);
    assert_eq!(b.sink.sent.len(), 1);
    exchange(&mut a, &mut b);
    assert_eq!(b.sink.delivered.len(), 1);
}

#[test]
fn both_at_once_get_one_session_each_way_and_are_quiet_then() {
    let (mut a, mut b) = pair();
    a.send(&packet(A, B, b"from a"));
    b.send(&packet(B, A, b"from b"));
    exchange(&mut a, &mut b);
    assert_eq!((a.sink.delivered.len(), b.sink.delivered.len()), (1, 1));
    assert_eq!((next(&mut a, Duration::from_secs(5)), next(&mut b, Duration::from_secs(5))), (None, None));
}

#[test]
fn a_peer_that_may_be_elsewhere_is_searched_for_anew_and_one_that_was_removed_is_not() {
    let (mut a, b) = pair();
    let count = |a: &mut Node| std::iter::from_fn(|| next(a, Duration::from_millis(1900))).count();
    a.send(&packet(A, B, b"x"));
    a.sink.sent.clear();
    assert_eq!(count(&mut a), 6);
    let moved = SocketAddr::from(([192, 0, 2, 77], 51820));
    a.set_peers(&[PeerConfig { endpoints: vec![moved], ..b.config("10.42.0.2/32") }]);
    assert_eq!(a.sink.sent.drain(..).map(|(to, _)| to).collect::<Vec<_>>(), [moved]);
    assert_eq!(count(&mut a), 6);

    a.set_peers(&[b.config("10.42.0.2/32")]);
    a.sink.sent.clear();
    a.set_peers(&[]);
    assert_eq!(a.interface.poll_timeout(), None);
    a.pass(Duration::from_secs(1));
    assert!(a.sink.sent.is_empty());
}

/// Lets both talk over a link of such a round trip, on which the datagrams for which `is_lost` says so, by their number, get lost. Returns
/// when each had the handshake, and after how long `b` had what `a` sent it.
fn meet_over(round_trip: Duration, is_lost: impl Fn(usize) -> bool) -> Option<Duration> {
    let (mut a, mut b) = pair();
    let start = a.now;
    let mut flying: Vec<(Instant, bool, Vec<u8>)> = Vec::new();
    let mut number = 0;
    a.send(&packet(A, B, b"x"));
    while b.sink.delivered.is_empty() {
        for (node, is_to_b) in [(&mut a, true), (&mut b, false)] {
            for (_, datagram) in node.sink.sent.drain(..) {
                if !is_lost(number) {
                    flying.push((node.now + round_trip / 2, is_to_b, datagram));
                }
                number += 1;
            }
        }
        flying.sort_by_key(|(at, ..)| *at);
        let timeouts = [a.interface.poll_timeout(), b.interface.poll_timeout()];
        let next = timeouts.into_iter().flatten().chain(flying.first().map(|(at, ..)| *at)).min()?;
        if next > start + Duration::from_secs(60) {
            return None;
        }
        (a.now, b.now) = (next, next);
        if flying.first().is_some_and(|(at, ..)| *at == next) {
            let (_, is_to_b, datagram) = flying.remove(0);
            if is_to_b { b.receive(a.at, &datagram) } else { a.receive(b.at, &datagram) }
        } else {
            a.pass(Duration::ZERO);
            b.pass(Duration::ZERO);
        }
    }
    assert_eq!(b.sink.delivered, [packet(A, B, b"x")]);
    // All that is left of the search is the session, and perhaps the one before it.
    assert!(a.interface.indices().len() <= 2, "{:?}", a.interface.indices());
    Some(b.now - start)
}

#[test]
fn a_late_answer_keeps_the_next_one_from_being_late_too() {
    let delivered = |round_trip| {
        let round_trip = Duration::from_millis(round_trip);
        // The packet itself takes half of one.
        let after = meet_over(round_trip, |_| false).expect("not given up");
        (after - round_trip / 2).as_millis()
    };
    // The first initiation is answered in time.
    assert_eq!([200, 740].map(delivered), [200, 740]);
    // The second, because the first answer was late. The third would have been sent after 1.5 s.
    assert_eq!([760, 1200, 1490].map(delivered), [1510, 1950, 2240]);
    assert_eq!(delivered(2000), 3500);
    assert_eq!(delivered(3000), 6000);
    let longest = delivered(4900);
    assert!((9900..=10_300).contains(&longest), "{longest}");
}

/// The answer to the second initiation, or the initiation itself, does not come. Another one follows, soon after it should have come.
#[test]
fn a_late_answer_and_then_none() {
    let round_trip = Duration::from_millis(1200);
    // After the first one, three copies of it and the first answer.
    let second_initiation = 5;
    let after = meet_over(round_trip, |number| number == second_initiation).unwrap() - round_trip / 2;
    assert_eq!(after.as_millis(), 750 + 1800 + 1200);
}

/// The answer to the first initiation, which `a` is yet to get: it has sent another one.
fn with_a_late_answer() -> (Node, Node, Vec<u8>) {
    let (mut a, mut b) = pair();
    a.send(&packet(A, B, b"x"));
    b.receive(a.at, &a.sink.sent.pop_front().unwrap().1);
    let answer = b.sink.sent.pop_front().unwrap().1;
    while (a.now - a.start).as_millis() < 750 {
        next(&mut a, Duration::from_secs(1)).unwrap();
    }
    (a, b, answer)
}

#[test]
fn a_late_answer_counts_once_and_only_if_it_is_one() {
    let (mut a, b, answer) = with_a_late_answer();
    let elsewhere = SocketAddr::from(([192, 0, 2, 99], 51820));
    let mut forged = answer.clone();
    forged[20] ^= 1;
    a.receive(elsewhere, &forged);
    assert_eq!(a.peer().last_received(), None);
    a.receive(b.at, &answer);
    assert_eq!((a.peer().last_received(), a.peer().last_handshake()), (Some(a.now), None));
    assert_eq!(a.interface.indices().len(), 1);
    a.receive(elsewhere, &answer);
    let is_at = matches!(a.peer().path(), Some(Path::Direct { remote, .. }) if remote == b.at);
    assert!(is_at, "a repeated answer moves nobody");
}

/// A relay that holds answers back must not make the search by a direct path a slow one.
#[test]
fn what_one_path_took_says_nothing_about_another() {
    let (mut a, b, answer) = with_a_late_answer();
    a.receive(b.at, &answer);
    let elsewhere = SocketAddr::from(([192, 0, 2, 99], 51820));
    let (key, now) = (a.peer().public_key(), a.now);
    a.interface.set_path(&key, Some(Path::Direct { local: None, remote: elsewhere }), now, &mut a.sink);
    let first = a.sink.sent.drain(..).next().unwrap();
    assert_eq!(first.0, elsewhere);
    assert_eq!(
        next(&mut a, Duration::from_millis(60)),
        Some(vec![first]),
        "the copy, should the first one get lost"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// The other learns of us some time after we began, and has nothing to say by itself.
    #[test]
    fn first_contact_follows_soon_upon_knowing_each_other(later in 0u64..3000) {
        let (mut a, mut b) = (Node::new(1), Node::new(2));
        let later = Duration::from_millis(later);
        let known_at = a.now + later;
        a.set_peers(&[b.config("10.42.0.2/32")]);
        a.send(&packet(A, B, b"x"));
        let mut known = false;
        loop {
            if !known && a.now >= known_at {
                known = true;
                b.set_peers(&[PeerConfig { endpoints: vec![], ..a.config("10.42.0.1/32") }]);
            }
            b.now = a.now;
            exchange(&mut a, &mut b);
            if has_handshake(&a) {
                break;
            }
            let again = next(&mut a, Duration::from_secs(5));
            prop_assert!(again.is_some(), "given up");
            a.sink.sent.extend(again.unwrap());
        }
        prop_assert!(known && has_handshake(&b));
        prop_assert_eq!(&b.sink.delivered, &[packet(A, B, b"x")]);
        // Each wait is at most as long as all before it and 50 ms more.
        prop_assert!(a.now <= known_at + later + Duration::from_millis(50));
    }
}
