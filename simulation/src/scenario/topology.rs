//! A random network, and how it is healed.

use std::{net::IpAddr, time::Duration};

use crate::{Behaviour, Dependence, INTERNET, Link, Place, Places, Random, World, ZoneId};

const DEPENDENCES: [Dependence; 3] =
    [Dependence::EndpointIndependent, Dependence::AddressDependent, Dependence::AddressAndPortDependent];

/// Which networks there are.
pub(super) struct Topology {
    places: Places,
    known: Vec<Place>,
}

impl Topology {
    /// Servers and relays; places come with the nodes.
    pub(super) fn build(world: &mut World, random: &mut Random) -> Self {
        let mut places = Places::new(random.split());
        for _ in 0..2 {
            world.add_stun(places.server());
        }
        for _ in 0..1 + random.below(2) {
            world.relays.add(Duration::from_millis(2 + random.below(40) as u64));
        }
        Self { places, known: Vec::new() }
    }

    /// Addresses for a host in a place that is there already, or in a new one.
    pub(super) fn place(&mut self, world: &mut World, random: &mut Random) -> Vec<(ZoneId, IpAddr)> {
        let mut addresses = match random.below(12) {
            0 => self.places.open(),
            1 | 2 if !self.known.is_empty() => {
                let place = random.below(self.known.len());
                self.known[place].host()
            }
            3 => {
                let place = self.places.v6_only(&mut world.network);
                self.add(world, place, random)
            }
            4 | 5 => {
                let place = self.places.dual(&mut world.network, behaviour(random));
                self.add(world, place, random)
            }
            6 => {
                let carrier = self.places.home(&mut world.network, INTERNET, behaviour(random));
                let place = self.places.home(&mut world.network, carrier.zone, behaviour(random));
                self.add(world, place, random)
            }
            _ => {
                let place = self.places.home(&mut world.network, INTERNET, behaviour(random));
                self.add(world, place, random)
            }
        };
        if random.chance(200) {
            // A bridge for containers, with the address that they all have.
            addresses.push((world.network.add_zone(), [172, 17, 0, 1].into()));
        }
        addresses
    }

    fn add(&mut self, world: &mut World, mut place: Place, random: &mut Random) -> Vec<(ZoneId, IpAddr)> {
        if let Some(router) = place.router {
            let router = world.network.router(router);
            router.link = link(random);
            let behaviour = router.nat.as_ref().map(|nat| nat.behaviour);
            let (inner, outer, link) = (router.inner, router.outer, router.link);
            world.note(|| format!("zone {inner} in zone {outer}: {behaviour:?} {link:?}"));
        }
        let addresses = place.host();
        self.known.push(place);
        addresses
    }

    /// Repairs everything, and finds a place for who has none.
    pub(super) fn heal(&mut self, world: &mut World, random: &mut Random) {
        for relay in 0..world.relays.count() {
            world.relays.set_up(relay, true);
            world.relays.degrade(relay, Duration::from_millis(20), 0);
            (0..world.nodes()).for_each(|node| world.relays.cut(world.host(node), relay, false));
        }
        world.signalling.up = true;
        world.signalling.loss = 0;
        world.control.up = true;
        let nodes = world.nodes();
        for node in 0..nodes {
            world.suspend(node, false);
            world.control.set_removed(node, false, world.now);
            for other in 0..node {
                world.control.set_apart(node, other, false, world.now);
                world.network.cut(world.host(node), world.host(other), false);
            }
            if world.network.addresses(world.host(node)).is_empty() {
                let addresses = self.place(world, random);
                world.move_node(node, addresses);
            }
        }
        // The new places' links too.
        for router in 0..world.network.routers() {
            let link = &mut world.network.router(router).link;
            *link = Link { up: true, udp: true, loss: 0, ..*link };
        }
        world.update();
    }
}

/// A good or a bad link.
pub(super) fn link(random: &mut Random) -> Link {
    Link {
        latency: Duration::from_millis(1) + random.up_to(Duration::from_millis(60)),
        jitter: random.up_to(Duration::from_millis(20)),
        loss: random.choose(&[0, 0, 5, 30]),
        duplication: random.choose(&[0, 0, 20]),
        mtu: random.choose(&[1500, 1500, 1400]),
        up: true,
        udp: true,
    }
}

/// Any NAT that RFC 4787 has a name for; more often one that people have.
fn behaviour(random: &mut Random) -> Behaviour {
    let lifetime = Duration::from_secs(30 + random.below(91) as u64);
    let (hairpins, inbound_refreshes) = (random.chance(300), random.chance(700));
    match random.below(4) {
        0 => Behaviour { lifetime, hairpins, inbound_refreshes, ..Behaviour::HOME },
        1 => Behaviour { lifetime, hairpins, inbound_refreshes, ..Behaviour::SYMMETRIC },
        _ => Behaviour {
            mapping: random.choose(&DEPENDENCES),
            filtering: random.choose(&DEPENDENCES),
            preserves_ports: random.chance(500),
            hairpins,
            lifetime,
            inbound_refreshes,
        },
    }
}
