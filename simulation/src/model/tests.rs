//! The theory, spelled out.

use super::*;
use crate::{Behaviour, Dependence::*, Places, Random};

fn between(place: impl Fn(&mut Places, &mut Network) -> [Vec<(ZoneId, IpAddr)>; 2]) -> Direct {
    let (mut network, mut places) = (Network::new(Random::new(1)), Places::new(Random::new(2)));
    let [a, b] = place(&mut places, &mut network);
    let [a, b] = [network.add_host(a), network.add_host(b)];
    assert_eq!(direct(&network, a, b), direct(&network, b, a));
    direct(&network, a, b)
}

fn homes(one: (Dependence, Dependence), other: (Dependence, Dependence)) -> Direct {
    between(|places, network| {
        [one, other].map(|(mapping, filtering)| {
            let behaviour = Behaviour { mapping, filtering, ..Behaviour::HOME };
            places.home(network, INTERNET, behaviour).host()
        })
    })
}

#[test]
fn kinds_of_nat_decide() {
    let (cone, port) = ((EndpointIndependent, EndpointIndependent), AddressAndPortDependent);
    let table = [
        (cone, cone, Direct::Certain),
        ((EndpointIndependent, port), (EndpointIndependent, port), Direct::Certain),
        ((EndpointIndependent, AddressDependent), (port, port), Direct::Certain),
        ((EndpointIndependent, port), (port, port), Direct::Impossible),
        ((EndpointIndependent, port), (AddressDependent, port), Direct::Impossible),
        ((port, port), (port, port), Direct::Impossible),
        ((port, EndpointIndependent), (port, port), Direct::Unknown),
    ];
    for (one, other, expected) in table {
        assert_eq!(homes(one, other), expected, "{one:?} {other:?}");
        assert_eq!(homes(other, one), expected, "{other:?} {one:?}");
    }
}

#[test]
fn places_decide() {
    let symmetric = Behaviour::SYMMETRIC;
    let one_home = |places: &mut Places, network: &mut Network| {
        let mut home = places.home(network, INTERNET, symmetric);
        [home.host(), home.host()]
    };
    assert_eq!(between(one_home), Direct::Certain);
    let server = |places: &mut Places, network: &mut Network| {
        [places.home(network, INTERNET, symmetric).host(), places.open()]
    };
    assert_eq!(between(server), Direct::Certain);
    let versions = |places: &mut Places, network: &mut Network| {
        [places.home(network, INTERNET, Behaviour::HOME).host(), places.v6_only(network).host()]
    };
    assert_eq!(between(versions), Direct::Impossible);
    let both_six = |places: &mut Places, network: &mut Network| {
        [places.dual(network, symmetric).host(), places.v6_only(network).host()]
    };
    assert_eq!(between(both_six), Direct::Certain);
    let no_udp = |places: &mut Places, network: &mut Network| {
        let mut home = places.home(network, INTERNET, Behaviour::HOME);
        network.router(home.router.unwrap()).link.udp = false;
        [home.host(), places.open()]
    };
    assert_eq!(between(no_udp), Direct::Impossible);
    let carrier = |places: &mut Places, network: &mut Network| {
        let carrier = places.home(network, INTERNET, Behaviour::HOME);
        [0, 1].map(|_| places.home(network, carrier.zone, Behaviour::HOME).host())
    };
    assert_eq!(between(carrier), Direct::Unknown);
}
