//! One thing at a time: which path a pair of networks allows, and how long nothing arrives after a fault.

use std::time::{Duration, Instant};

use lattice_simulation::{
    Behaviour,
    Dependence::{self, AddressAndPortDependent, AddressDependent, EndpointIndependent},
    Full, INTERNET, Nat, Place, Places, Random, World, ZoneId,
};
use lattice_wireguard::Path;

const SECOND: Duration = Duration::from_secs(1);
/// Beside round trips, which are below this in all of these.
const ROUND_TRIPS: Duration = Duration::from_millis(300);

type Address = (ZoneId, std::net::IpAddr);

/// Nodes 0 and 1, two STUN servers, relays.
struct Pair {
    world: World,
    places: Places,
}

impl Pair {
    fn new(relays: u64, place: impl Fn(&mut Places, &mut World) -> [Vec<Address>; 2]) -> Self {
        let mut world = World::new(7, true);
        let mut places = Places::new(Random::new(8));
        (0..2).for_each(|_| world.add_stun(places.server()));
        (1..=relays).for_each(|number| {
            world.relays.add(Duration::from_millis(10 * number));
        });
        for addresses in place(&mut places, &mut world) {
            world.add_node(addresses, Full::boxed);
        }
        let mut pair = Self { world, places };
        pair.pass(2 * SECOND);
        pair
    }

    /// Two homes with such NATs.
    fn homes(relays: u64, one: Behaviour, other: Behaviour) -> Self {
        Self::new(relays, |places, world| {
            [one, other].map(|kind| places.home(&mut world.network, INTERNET, kind).host())
        })
    }

    /// Both send every 20 ms, for so long.
    fn talk(&mut self, time: Duration) {
        let end = self.world.now + time;
        while self.world.now < end {
            self.world.send(0, 1, 200);
            self.world.send(1, 0, 200);
            self.pass(Duration::from_millis(20));
        }
    }

    /// Nobody sends anything for so long.
    fn pass(&mut self, time: Duration) {
        if let Err(violation) = self.world.run_for(time) {
            panic!("{}\n{violation}", self.world.story());
        }
    }

    fn paths(&self) -> [Option<Path>; 2] {
        [(0, 1), (1, 0)].map(|(from, to)| self.world.device(from).path(&self.world.key(to)))
    }

    fn are_direct(&self) -> bool {
        self.paths().iter().all(|path| matches!(path, Some(Path::Direct { .. })))
    }

    fn are_relayed(&self) -> bool {
        self.paths().iter().all(|path| matches!(path, Some(Path::Relay { .. })))
    }

    /// Nothing may be lost for longer, either way, since then.
    fn lost_at_most(&mut self, most: Duration, since: Instant) {
        self.pass(SECOND);
        for pair in [(0, 1), (1, 0)] {
            let lost = self.world.ledger.longest_loss(pair, since);
            assert!(lost <= most, "{}\n{pair:?}: nothing for {lost:?}", self.world.story());
        }
    }
}

#[test]
fn kinds_of_nat_meet_as_theory_says() {
    let nat = |mapping, filtering| Behaviour { mapping, filtering, ..Behaviour::HOME };
    let port = AddressAndPortDependent;
    let kinds: [(Dependence, Dependence); 5] = [
        (EndpointIndependent, EndpointIndependent),
        (EndpointIndependent, AddressDependent),
        (EndpointIndependent, port),
        (AddressDependent, port),
        (port, port),
    ];
    for (at, one) in kinds.into_iter().enumerate() {
        for other in &kinds[at..] {
            // A symmetric NAT that keeps the port is as good as another, with one host behind it.
            let random_ports = |kind: Behaviour| Behaviour { preserves_ports: false, ..kind };
            let (a, b) = (random_ports(nat(one.0, one.1)), random_ports(nat(other.0, other.1)));
            let mut pair = Pair::homes(1, a, b);
            pair.talk(10 * SECOND);
            let asymmetric = [a, b].iter().filter(|kind| kind.mapping != EndpointIndependent).count();
            let lets_in = [a, b].iter().any(|kind| kind.filtering != port);
            let expect_direct = asymmetric == 0 || asymmetric == 1 && lets_in;
            let found = (pair.are_direct(), pair.are_relayed());
            assert_eq!(found, (expect_direct, !expect_direct), "{}\n{a:?}\n{b:?}", pair.world.story());
        }
    }
}

#[test]
fn other_networks_meet_as_well() {
    type Make = fn(&mut Places, &mut World) -> [Vec<Address>; 2];
    let table: [(&str, Make, bool); 6] = [
        (
            "one home",
            |places, world| {
                let mut home = places.home(&mut world.network, INTERNET, Behaviour::SYMMETRIC);
                [home.host(), home.host()]
            },
            true,
        ),
        (
            "a server and a symmetric NAT",
            |places, world| {
                [places.open(), places.home(&mut world.network, INTERNET, Behaviour::SYMMETRIC).host()]
            },
            true,
        ),
        (
            "IPv6 only, behind firewalls",
            |places, world| [0, 1].map(|_| places.v6_only(&mut world.network).host()),
            true,
        ),
        (
            "IPv6 beside symmetric NATs",
            |places, world| [0, 1].map(|_| places.dual(&mut world.network, Behaviour::SYMMETRIC).host()),
            true,
        ),
        (
            "different IP versions",
            |places, world| {
                let home = places.home(&mut world.network, INTERNET, Behaviour::HOME).host();
                [places.v6_only(&mut world.network).host(), home]
            },
            false,
        ),
        (
            "UDP blocked",
            |places, world| {
                let mut home: Place = places.home(&mut world.network, INTERNET, Behaviour::HOME);
                world.network.router(home.router.unwrap()).link.udp = false;
                [home.host(), places.open()]
            },
            false,
        ),
    ];
    for (name, make, expect_direct) in table {
        let mut pair = Pair::new(1, make);
        pair.talk(10 * SECOND);
        let found = (pair.are_direct(), pair.are_relayed());
        assert_eq!(found, (expect_direct, !expect_direct), "{}\n{name}", pair.world.story());
    }
}

#[test]
fn the_first_packets_wait_for_a_path_and_no_longer_than_it_takes() {
    let mut pair = Pair::homes(1, Behaviour::HOME, Behaviour::HOME);
    let start = pair.world.now;
    pair.talk(5 * SECOND);
    pair.lost_at_most(SECOND, start);
    for way in [(0, 1), (1, 0)] {
        let slowest = pair.world.ledger.slowest(way, start);
        assert!(slowest <= SECOND, "{}\nthe first packet took {slowest:?}", pair.world.story());
    }
    assert!(pair.are_direct());
}

/// No wait but the repetition of what was lost: the goal for the first packet is half a second.
#[test]
fn where_udp_is_blocked_the_first_packet_comes_by_the_relay_within_half_a_second_whichever_signal_is_lost() {
    for (after, who) in
        [(None, "none"), (Some(Duration::ZERO), "the call"), (Some(SECOND / 100), "its answer")]
    {
        let mut pair = Pair::new(1, |places, world| {
            let home: Place = places.home(&mut world.network, INTERNET, Behaviour::HOME);
            world.network.router(home.router.unwrap()).link.udp = false;
            [{ home }.host(), places.open()]
        });
        let start = pair.world.now;
        pair.world.signalling.lose = u32::from(after == Some(Duration::ZERO));
        pair.world.send(0, 1, 200);
        if let Some(after) = after.filter(|after| !after.is_zero()) {
            pair.pass(after);
            pair.world.signalling.lose = 1;
        }
        pair.pass(SECOND);
        assert_eq!(pair.world.signalling.lose, 0, "lost: {who}");
        assert!(matches!(pair.paths()[0], Some(Path::Relay { .. })), "{}", pair.world.story());
        assert_eq!(pair.world.ledger.count((0, 1), start).1, 1, "{}", pair.world.story());
        let took = pair.world.ledger.slowest((0, 1), start);
        assert!(took <= SECOND / 2, "{}\nlost: {who}: the first packet took {took:?}", pair.world.story());
    }
}

#[test]
fn when_the_direct_path_is_cut_the_relay_takes_over_and_gives_back() {
    let mut pair = Pair::homes(1, Behaviour::HOME, Behaviour::HOME);
    pair.talk(10 * SECOND);
    let since = pair.world.now;
    let hosts = (pair.world.host(0), pair.world.host(1));
    pair.world.network.cut(hosts.0, hosts.1, true);
    pair.talk(5 * SECOND);
    assert!(pair.are_relayed(), "{}", pair.world.story());
    pair.lost_at_most(SECOND + ROUND_TRIPS, since);
    let since = pair.world.now;
    pair.world.network.cut(hosts.0, hosts.1, false);
    pair.talk(60 * SECOND);
    assert!(pair.are_direct(), "{}", pair.world.story());
    pair.lost_at_most(Duration::ZERO, since);
}

#[test]
fn when_a_relay_dies_the_other_takes_over() {
    let mut pair = Pair::homes(2, Behaviour::SYMMETRIC, Behaviour::SYMMETRIC);
    pair.talk(10 * SECOND);
    let Some(Path::Relay { relay, .. }) = pair.paths()[0] else { panic!("{}", pair.world.story()) };
    let since = pair.world.now;
    pair.world.relays.set_up(relay, false);
    pair.world.update();
    pair.talk(5 * SECOND);
    assert!(pair.are_relayed(), "{}", pair.world.story());
    pair.lost_at_most(SECOND + ROUND_TRIPS, since);
}

/// Whichever of the two loses it, and when both do.
#[test]
fn when_a_relay_falls_silent_the_other_takes_over() {
    for losers in [&[0][..], &[1], &[0, 1]] {
        let mut pair = Pair::homes(2, Behaviour::SYMMETRIC, Behaviour::SYMMETRIC);
        pair.talk(10 * SECOND);
        let Some(Path::Relay { relay, .. }) = pair.paths()[0] else { panic!("{}", pair.world.story()) };
        let since = pair.world.now;
        for node in losers {
            let host = pair.world.host(*node);
            pair.world.relays.cut(host, relay, true);
        }
        pair.world.update();
        pair.talk(5 * SECOND);
        assert!(pair.are_relayed(), "{}", pair.world.story());
        pair.lost_at_most(SECOND + ROUND_TRIPS, since);
    }
}

#[test]
fn when_a_nat_reboots_the_relay_takes_over_and_a_new_hole_is_punched() {
    let random_ports = Behaviour { preserves_ports: false, ..Behaviour::HOME };
    let mut pair = Pair::homes(1, random_ports, Behaviour::HOME);
    pair.talk(10 * SECOND);
    let (since, before) = (pair.world.now, pair.paths()[1]);
    pair.world.network.router(0).nat.as_mut().map(Nat::reboot);
    pair.talk(60 * SECOND);
    assert!(pair.are_direct() && pair.paths()[1] != before, "{}", pair.world.story());
    pair.lost_at_most(SECOND + ROUND_TRIPS, since);
}

#[test]
fn a_node_that_roams_is_found_again() {
    let mut pair = Pair::homes(1, Behaviour::HOME, Behaviour::HOME);
    pair.talk(10 * SECOND);
    pair.world.move_node(0, Vec::new());
    pair.talk(SECOND);
    let addresses = pair.places.home(&mut pair.world.network, INTERNET, Behaviour::HOME).host();
    pair.world.move_node(0, addresses);
    // The relay's connection has to be made anew; what was sent before that is lost.
    pair.talk(SECOND);
    let since = pair.world.now;
    pair.talk(10 * SECOND);
    assert!(pair.are_direct(), "{}", pair.world.story());
    pair.lost_at_most(SECOND, since);
}

#[test]
fn sessions_are_renewed_without_loss_for_an_hour() {
    let mut pair = Pair::homes(1, Behaviour::HOME, Behaviour::HOME);
    pair.talk(5 * SECOND);
    let since = pair.world.now;
    for _ in 0..3600 {
        pair.world.send(0, 1, 200);
        pair.world.send(1, 0, 200);
        pair.pass(SECOND);
    }
    pair.lost_at_most(SECOND, since);
    assert!(pair.are_direct());
}

#[test]
fn idle_nodes_are_silent() {
    let mut pair = Pair::homes(1, Behaviour::HOME, Behaviour::HOME);
    pair.talk(5 * SECOND);
    pair.pass(240 * SECOND);
    let before = [0, 1].map(|node| pair.world.sent(node));
    pair.pass(600 * SECOND);
    let sent = [0, 1].map(|node| pair.world.sent(node) - before[node]);
    assert!(
        sent.iter().all(|sent| *sent <= 10),
        "in ten minutes of silence: {sent:?}\n{}",
        pair.world.story()
    );
}

#[test]
fn a_suspended_host_is_reached_as_soon_as_it_runs_again() {
    for time in [5 * SECOND, 100 * SECOND, 1000 * SECOND] {
        let mut pair = Pair::homes(1, Behaviour::HOME, Behaviour::HOME);
        pair.talk(5 * SECOND);
        pair.world.suspend(0, true);
        let end = pair.world.now + time;
        while pair.world.now < end {
            pair.world.send(1, 0, 100);
            pair.pass(SECOND);
        }
        pair.world.suspend(0, false);
        pair.talk(3 * SECOND);
        let since = pair.world.now;
        pair.talk(3 * SECOND);
        pair.lost_at_most(Duration::ZERO, since);
    }
}

/// A copy of what was said and sent before is neither believed nor delivered again.
#[test]
fn what_is_replayed_changes_nothing() {
    let mut pair = Pair::homes(1, Behaviour::HOME, Behaviour::HOME);
    pair.world.network.record(true);
    pair.talk(5 * SECOND);
    let (since, before) = (pair.world.now, pair.paths());
    for _ in 0..20 {
        pair.world.signalling.replay(20, pair.world.now);
        pair.world.network.replay(pair.world.now);
        pair.talk(SECOND / 2);
    }
    assert_eq!(pair.paths(), before, "{}", pair.world.story());
    pair.lost_at_most(Duration::ZERO, since);
}

#[test]
fn a_peer_that_is_removed_gets_nothing_more() {
    let mut pair = Pair::homes(1, Behaviour::HOME, Behaviour::HOME);
    pair.talk(5 * SECOND);
    pair.world.control.set_removed(0, true, pair.world.now);
    pair.talk(10 * SECOND);
    let since = pair.world.now;
    pair.talk(5 * SECOND);
    assert_eq!(pair.world.ledger.count((0, 1), since).1, 0);
    pair.world.control.set_removed(0, false, pair.world.now);
    pair.talk(10 * SECOND);
    let since = pair.world.now;
    pair.talk(SECOND);
    pair.lost_at_most(Duration::ZERO, since);
}
