//! WireGuard alone between nodes that can see each other.

use std::time::Duration;

use lattice_simulation::{Bare, Behaviour, INTERNET, Link, Places, Random, World};

#[test]
fn a_home_and_a_server_meet_at_the_servers_address() {
    let mut world = World::new(1, true);
    let mut places = Places::new(Random::new(2));
    let mut home = places.home(&mut world.network, INTERNET, Behaviour::SYMMETRIC);
    world.add_node(places.open(), Bare::boxed);
    world.add_node(home.host(), Bare::boxed);
    world.run_for(Duration::from_secs(2)).unwrap();
    let start = world.now;
    for _ in 0..20 {
        world.send(1, 0, 100);
        world.send(0, 1, 100);
        world.run_for(Duration::from_millis(100)).unwrap();
    }
    world.run_for(Duration::from_secs(1)).unwrap();
    for pair in [(0, 1), (1, 0)] {
        assert_eq!(world.ledger.count(pair, start), (20, 20), "{pair:?}\n{}", world.story());
    }
}

/// A satellite link, say: the first answer comes after the second initiation was sent.
#[test]
fn peers_with_a_round_trip_of_more_than_a_second_meet_by_the_second_initiation() {
    for (round_trip, most) in [(0, 20), (600, 620), (1200, 1970), (2000, 3520)].map(|(one, two)| {
        let milliseconds = Duration::from_millis;
        (milliseconds(one), milliseconds(two))
    }) {
        let mut world = World::new(1, true);
        let mut places = Places::new(Random::new(2));
        let mut home = places.home(&mut world.network, INTERNET, Behaviour::HOME);
        let far = Link { latency: round_trip / 2, jitter: Duration::ZERO, ..Link::GOOD };
        world.network.router(0).link = far;
        world.add_node(places.open(), Bare::boxed);
        world.add_node(home.host(), Bare::boxed);
        world.run_for(Duration::from_secs(2)).unwrap();
        let start = world.now;
        for _ in 0..5 {
            world.send(1, 0, 100);
            world.run_for(Duration::from_secs(4)).unwrap();
        }
        let slowest = world.ledger.slowest((1, 0), start);
        assert_eq!(world.ledger.count((1, 0), start), (5, 5), "{}", world.story());
        assert!(slowest <= most + round_trip / 2, "{round_trip:?}: {slowest:?}\n{}", world.story());
    }
}
