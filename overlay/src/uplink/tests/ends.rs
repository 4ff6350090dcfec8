//! What is left when a start fails, an uplink ends or is killed, or several come at once.

use super::*;

#[test]
fn what_a_killed_one_left_is_found_by_the_next_whoever_it_is() {
    let world = World::new();
    let (agent, uplink) = world.agent(7);
    let lock = uplink.config.lock.clone();
    let kept = uplink.config.id;
    let config = uplink.config.clone();
    std::mem::forget(uplink);
    remove(&world.host, UplinkId::new(8), &lock).unwrap();
    assert!(world.forwards("eth0"), "it lives as long as its link");
    // What is leaked above holds the agent's namespace open: its end is deleted by hand.
    link::delete(&agent, INSIDE).unwrap();
    assert!(world.nft("").contains(&kept.table()) && world.forwards("eth0"));
    remove(&world.host, UplinkId::new(8), &lock).unwrap();
    world.assert_clean();
    // And one of the same name, with its link, by its name.
    let again = Uplink::create(config).unwrap();
    again.open().unwrap();
    std::mem::forget(again);
    remove(&world.host, kept, &lock).unwrap();
    world.assert_clean();
}

#[test]
fn a_link_that_forwarded_before_goes_on() {
    let world = World::new();
    forwarding::set(&world.host, Version::V4, "eth0", true).unwrap();
    let (_agent, uplink) = world.agent(7);
    uplink.close().unwrap();
    assert!(world.forwards("eth0"));
}

#[test]
fn a_start_that_fails_leaves_nothing() {
    let world = World::new();
    let agent = Arc::new(Netns::create().unwrap());
    let other = Netns::create().unwrap();
    link::add_veth(&agent, INSIDE, &other, "eth0").unwrap();
    let taken = Uplink::create(world.config(7, &agent, &["192.0.2.7/32"])).unwrap_err();
    assert!(matches!(taken, UplinkError::Link(_)), "{taken}");
    world.assert_clean();
    // Its rules are in place when its end turns out to be gone.
    let agent = Arc::new(Netns::create().unwrap());
    let uplink = Uplink::create(world.config(7, &agent, &["192.0.2.7/32"])).unwrap();
    link::delete(&agent, INSIDE).unwrap();
    uplink.open().unwrap_err();
    drop(uplink);
    world.assert_clean();
}

#[test]
fn starts_at_the_same_time_get_different_addresses() {
    let world = World::new();
    let begun = Instant::now();
    let all: Vec<(Arc<Netns>, Uplink)> = thread::scope(|scope| {
        let starts: Vec<_> = (0..6)
            .map(|n| {
                scope.spawn({
                    let world = &world;
                    move || world.agent(n << 15 | 7)
                })
            })
            .collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    println!("6 uplinks in {:?}", begun.elapsed());
    let mut addresses: Vec<IpAddr> = all.iter().flat_map(|(_, uplink)| uplink.addresses()).collect();
    let count = addresses.len();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), count);
    thread::scope(|scope| {
        for (_, uplink) in all {
            scope.spawn(move || uplink.close().unwrap());
        }
    });
    world.assert_clean();
}
