use std::time::Duration;

use super::*;
use crate::{kdf::Key, message::Message};

fn session(local_index: u32, is_initiator: bool, now: Instant) -> Session {
    let keys = [Key::new([1; 32]), Key::new([2; 32])];
    let [send, receive] = if is_initiator { keys } else { [keys[1].clone(), keys[0].clone()] };
    Session::new(local_index, 9, Keys { send, receive }, is_initiator, now)
}

fn sealed(session: &mut Session, packet: &[u8; 32], now: Instant) -> Option<(u64, Vec<u8>)> {
    let counter = session.take_counter(now)?;
    let mut room = [&[0; 16][..], packet, &[0; 16]].concat();
    session.seal(counter, &mut room);
    let Some(Message::Data { receiver: 9, counter }) = Message::parse(&room) else {
        panic!("no data message")
    };
    Some((counter, room))
}

#[test]
fn what_one_seals_the_other_opens_once() {
    let now = Instant::now();
    let (mut a, mut b) = (session(1, true, now), session(2, false, now));
    for expected in 0..3 {
        let (counter, mut message) = sealed(&mut a, &[7; 32], now).unwrap();
        assert_eq!(counter, expected);
        let mut forged = message.clone();
        forged[20] ^= 1;
        assert!(b.open(counter, &mut forged, now).is_err());
        assert!(b.open(counter + 1, &mut message.clone(), now).is_err(), "another counter");
        let mut again = message.clone();
        assert_eq!(&*b.open(counter, &mut message, now).unwrap(), [7; 32]);
        assert!(b.open(counter, &mut again, now).is_err());
    }
}

#[test]
fn ends_by_age_and_by_messages() {
    let now = Instant::now();
    let (mut a, mut b) = (session(1, true, now), session(2, false, now));
    let (counter, mut message) = sealed(&mut a, &[7; 32], now).unwrap();
    let end = now + REJECT_AFTER_TIME;
    assert!(sealed(&mut a, &[7; 32], end - Duration::from_millis(1)).is_some());
    assert!(sealed(&mut a, &[7; 32], end).is_none());
    assert!(b.open(counter, &mut message.clone(), end).is_err());
    assert!(b.open(counter, &mut message, end - Duration::from_millis(1)).is_ok());

    a.next_counter = REKEY_AFTER_MESSAGES - 1;
    assert!(!a.is_worn() && sealed(&mut a, &[7; 32], now).is_some() && a.is_worn());
    a.next_counter = REJECT_AFTER_MESSAGES - 1;
    let (counter, mut last) = sealed(&mut a, &[7; 32], now).unwrap();
    assert!(b.open(counter, &mut last, now).is_ok());
    assert!(sealed(&mut a, &[7; 32], now).is_none() && !a.is_usable(now));
    a.next_counter = REJECT_AFTER_MESSAGES;
    let mut room = vec![0; 64];
    a.seal(Counter(REJECT_AFTER_MESSAGES), &mut room);
    assert!(b.open(REJECT_AFTER_MESSAGES, &mut room, now).is_err());
}

#[test]
fn the_peers_first_message_makes_an_answered_session_the_current_one() {
    let now = Instant::now();
    let mut sessions = Sessions::default();
    let freed = |freed: Freed| freed.into_iter().flatten().collect::<Vec<_>>();
    assert!(freed(sessions.add_answered(session(1, false, now))).is_empty());
    assert!(!sessions.is_connected(now) && sessions.find(1).is_some());
    assert_eq!(freed(sessions.add_answered(session(2, false, now))), [1]);
    assert!(sessions.confirm(1).is_none());
    assert!(freed(sessions.confirm(2).unwrap()).is_empty());
    assert!(sessions.is_connected(now) && sessions.confirm(2).is_none());

    // Ours comes, then theirs, then both at once.
    assert!(freed(sessions.add_initiated(session(3, true, now))).is_empty());
    assert_eq!(sessions.current().unwrap().local_index, 3);
    assert_eq!(freed(sessions.add_answered(session(4, false, now))), [2]);
    assert_eq!(sessions.current().unwrap().local_index, 3);
    assert_eq!(freed(sessions.add_initiated(session(5, true, now))), [3]);
    assert!(sessions.confirm(4).is_none(), "it is the previous one");
    assert_eq!(freed(sessions.clear()), [5, 4]);
    assert!(!sessions.is_connected(now) && sessions.find(5).is_none());
}

/// Does not compile if a session, or what holds one, could be copied.
#[test]
fn a_session_cannot_be_cloned() {
    trait AmbiguousIfClone<Marker> {
        fn check() {}
    }
    impl<T> AmbiguousIfClone<()> for T {}
    struct Cloneable;
    impl<T: Clone> AmbiguousIfClone<Cloneable> for T {}
    <Session as AmbiguousIfClone<_>>::check();
    <Counter as AmbiguousIfClone<_>>::check();
    <Sessions as AmbiguousIfClone<_>>::check();
    <crate::Interface as AmbiguousIfClone<_>>::check();
}
