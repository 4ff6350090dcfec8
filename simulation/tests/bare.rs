//! WireGuard alone between nodes that can see each other.

use std::time::Duration;

use lattice_simulation::{Bare, Behaviour, INTERNET, Places, Random, World};

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
