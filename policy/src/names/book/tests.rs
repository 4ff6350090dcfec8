use std::net::Ipv4Addr;

use super::*;
use crate::{Action, Policy, parse_rule};

fn names(rules: &[&str]) -> Names {
    let add = |policy: Policy, rule: &&str| policy.egress(Action::Allow, parse_rule(rule).unwrap());
    Names::new(&rules.iter().fold(Policy::new(1), add), &[])
}

fn address(n: u32) -> IpAddr {
    Ipv4Addr::from(0x5DB8_0000 + n).into()
}

/// Rules and end of a pin.
fn of(pin: &Pin) -> (Vec<u32>, u64) {
    (pin.matches.iter().map(|line| line.rule.0).collect(), pin.until_ns)
}

fn learned(book: &mut PinBook, names: &Names, name: &str, at: IpAddr, until: u64) -> (Vec<u32>, u64) {
    let learned = book.learn(names, name, at, until).unwrap();
    assert_eq!(learned.left_out, []);
    let [pin] = learned.pins.as_slice() else { panic!("{learned:?}") };
    assert_eq!(pin.address, at);
    of(pin)
}

/// How many pairs there are, by each of the indices.
fn size(book: &PinBook) -> usize {
    let pairs = book.ends.len();
    assert_eq!(book.live.values().map(BTreeMap::len).sum::<usize>(), pairs);
    assert_eq!(book.addresses.values().map(BTreeSet::len).sum::<usize>(), pairs);
    assert!(
        book.live.values().all(|names| !names.is_empty())
            && book.addresses.values().all(|all| !all.is_empty())
    );
    pairs
}

#[test]
fn names_of_one_address_add_up() {
    let (names, mut book, at) =
        (names(&["a.example.com:80", "*.example.org:443"]), PinBook::default(), address(1));
    assert_eq!(learned(&mut book, &names, "a.example.com", at, 20), (vec![1], 20));
    assert_eq!(
        learned(&mut book, &names, "B.example.org.", at, 10),
        (vec![1, 3], 10),
        "ends with the first line"
    );
    assert_eq!(
        learned(&mut book, &names, "c.example.org", at, 15),
        (vec![1, 3], 15),
        "two names for one line"
    );
    let shorter = book.learn(&names, "c.example.org", at, 5);
    assert_eq!(shorter, Ok(Learned::default()), "no answer shortens another");
    assert_eq!(book.next_end(), Some(10));

    assert_eq!(book.expire(&names, 9), []);
    let renewed = book.expire(&names, 15);
    assert_eq!(renewed.iter().map(of).collect::<Vec<_>>(), [(vec![1], 20)]);
    assert_eq!(book.expire(&names, 20), [], "the pin ends by itself");
    assert_eq!((book.next_end(), size(&book)), (None, 0));
}

#[test]
fn what_may_not_be_told_is_not_learned() {
    let (names, mut book) = (names(&["a.example.com", "10.0.0.1"]), PinBook::default());
    assert_eq!(book.learn(&names, "b.example.com", address(1), 9), Err(Refused::Unknown));
    assert!(matches!(
        book.learn(&names, "a.example.com", "10.0.0.2".parse().unwrap(), 9),
        Err(Refused::Closed(_))
    ));
    assert_eq!(book.learn(&names, "a.example.com", "10.0.0.1".parse().unwrap(), 9), Ok(Learned::default()));
    assert_eq!((size(&book), book.pins(&names)), (0, vec![]));
}

#[test]
fn a_new_policy_judges_what_is_pinned() {
    let (old, mut book) = (names(&["*.example.com:443"]), PinBook::default());
    for (name, n) in [("a.example.com", 1), ("b.example.com", 2)] {
        learned(&mut book, &old, name, address(n), 10);
    }
    let new = names(&["b.example.com:80", "a.example.com:22"]);
    assert_eq!(book.pins(&new).iter().map(of).collect::<Vec<_>>(), [(vec![3], 10), (vec![1], 10)]);
    let pins = book.pins(&names(&["a.example.com"]));
    assert_eq!(pins.iter().map(|pin| pin.address).collect::<Vec<_>>(), [address(1)]);
    assert_eq!(book.pins(&Names::default()), []);
    assert_eq!(book.pins(&old).len(), 2, "they come back with the policy");
}

#[test]
fn the_book_is_bounded() {
    let (names, mut book) = (names(&["*.example.com:443"]), PinBook::default());
    let bound = u32::try_from(Pin::MAX).unwrap();
    for n in 0..bound {
        learned(&mut book, &names, &format!("h{n}.example.com"), address(n), u64::from(1000 + n));
    }
    let more = book.learn(&names, "more.example.com", address(bound), 1).unwrap();
    let [gone, pin] = more.pins.as_slice() else { panic!("{more:?}") };
    assert_eq!(
        (gone.address, of(gone)),
        (address(0), (vec![], 0)),
        "the soonest to end goes, not the new one"
    );
    assert_eq!((pin.address, of(pin)), (address(bound), (vec![1], 1)));
    assert_eq!((size(&book), book.pins(&names).len()), (Pin::MAX, Pin::MAX));

    // Another name of an address that has one: the pair that goes is told with what the address keeps.
    learned_at(&mut book, &names, 1);
    assert_eq!(size(&book), Pin::MAX);
}

/// Learns another name for the address of the pair that goes for it.
fn learned_at(book: &mut PinBook, names: &Names, n: u32) {
    book.expire(names, 1);
    learned(book, names, "filler.example.com", address(n), 1000);
    let learned = book.learn(names, "again.example.com", address(n), 5000).unwrap();
    assert_eq!(learned.pins.iter().map(of).collect::<Vec<_>>(), [(vec![1], 5000)]);
}

#[test]
fn a_name_is_bounded() {
    let (names, mut book) = (names(&["a.example.com", "b.example.com"]), PinBook::default());
    let bound = u32::try_from(MAX_PER_NAME).unwrap();
    learned(&mut book, &names, "b.example.com", address(bound + 1), 1);
    for n in 0..bound {
        learned(&mut book, &names, "a.example.com", address(n), u64::from(1000 + n));
    }
    let more = book.learn(&names, "a.example.com", address(bound), 9).unwrap();
    assert_eq!(more.pins.iter().map(|pin| pin.address).collect::<Vec<_>>(), [address(0), address(bound)]);
    assert_eq!(size(&book), MAX_PER_NAME + 1, "the other name keeps its address");
}

#[test]
fn an_address_is_bounded() {
    let (names, mut book) = (names(&["*.example.com", "a.example.org:80"]), PinBook::default());
    learned(&mut book, &names, "a.example.org", address(1), 9999);
    for n in 0..MAX_PER_ADDRESS + 9 {
        let name = format!("h{n}.example.com");
        assert_eq!(learned(&mut book, &names, &name, address(1), 1000 + n as u64).0, [1]);
    }
    assert_eq!(size(&book), MAX_PER_ADDRESS);
    assert_eq!(book.next_end(), Some(1010), "the soonest went");
}
