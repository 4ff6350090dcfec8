//! One fault at a time.

use std::time::Duration;

use lattice_simulation::{Behaviour, Full, INTERNET, Places, Random, World};

#[test]
fn two_homes_meet() {
    let mut world = World::new(1, true);
    let mut places = Places::new(Random::new(2));
    for _ in 0..2 {
        world.add_stun(places.server());
    }
    world.relays.add(Duration::from_millis(10));
    for _ in 0..2 {
        let mut home = places.home(&mut world.network, INTERNET, Behaviour::HOME);
        world.add_node(home.host(), Full::boxed);
    }
    world.run_for(Duration::from_secs(2)).unwrap();
    for _ in 0..20 {
        world.send(1, 0, 100);
        world.send(0, 1, 100);
        world.run_for(Duration::from_millis(100)).unwrap();
    }
    world.run_for(Duration::from_secs(1)).unwrap();
    panic!("{}", world.story());
}
