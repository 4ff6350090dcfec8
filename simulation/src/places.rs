//! Where a node may be: the networks that people have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};

use crate::{Behaviour, Dependence, INTERNET, Link, Nat, Network, Random, Router, RouterId, ZoneId};

/// Hands out addresses and builds networks.
#[derive(Debug)]
pub struct Places {
    next: u16,
    random: Random,
}

/// A network that nodes can be in.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its zone.
    pub zone: ZoneId,
    /// Its router.
    pub router: Option<RouterId>,
    v4: Option<[u8; 3]>,
    v6: Option<Ipv6Net>,
    hosts: u8,
}

impl Places {
    /// None yet.
    pub fn new(random: Random) -> Self {
        Self { next: 0, random }
    }

    fn number(&mut self) -> u16 {
        self.next += 1;
        self.next
    }

    /// An address of its own on the internet.
    pub fn public_v4(&mut self) -> Ipv4Addr {
        let number = self.number().to_be_bytes();
        Ipv4Addr::new(198, 18, number[0], number[1])
    }

    /// A network of its own on the internet, in the range for documentation.
    fn public_v6(&mut self) -> Ipv6Net {
        let address = Ipv6Addr::new(0x2001, 0xdb8, self.number(), 0, 0, 0, 0, 0);
        Ipv6Net::new(address, 64).expect("64 is a prefix length")
    }

    /// A server's two addresses.
    pub fn server(&mut self) -> [IpAddr; 2] {
        [self.public_v4().into(), host_of(self.public_v6(), 1)]
    }

    /// A server room: hosts there have public addresses and nothing before them.
    pub fn open(&mut self) -> Vec<(ZoneId, IpAddr)> {
        self.server().map(|address| (INTERNET, address)).into()
    }

    /// A home or an office with IPv4 behind a NAT; all homes use the same private addresses.
    pub fn home(&mut self, network: &mut Network, outer: ZoneId, behaviour: Behaviour) -> Place {
        let address = match outer {
            INTERNET => self.public_v4(),
            _ => Ipv4Addr::from(
                [&[100, 64][..], &self.number().to_be_bytes()]
                    .concat()
                    .first_chunk()
                    .copied()
                    .unwrap_or_default(),
            ),
        };
        let nat = Nat::new(behaviour, address, self.random.split());
        self.place(network, outer, Some(nat), Some([192, 168, 1]), None)
    }

    /// One with IPv6 as well, behind a firewall.
    pub fn dual(&mut self, network: &mut Network, behaviour: Behaviour) -> Place {
        let nat = Nat::new(behaviour, self.public_v4(), self.random.split());
        let v6 = self.public_v6();
        self.place(network, INTERNET, Some(nat), Some([192, 168, 1]), Some(v6))
    }

    /// One with IPv6 only, behind a firewall.
    pub fn v6_only(&mut self, network: &mut Network) -> Place {
        let v6 = self.public_v6();
        self.place(network, INTERNET, None, None, Some(v6))
    }

    fn place(
        &mut self,
        network: &mut Network,
        outer: ZoneId,
        nat: Option<Nat>,
        v4: Option<[u8; 3]>,
        v6: Option<Ipv6Net>,
    ) -> Place {
        let inner = network.add_zone();
        let guard = Dependence::AddressAndPortDependent;
        let firewall = Nat::firewall(guard, Duration::from_secs(60), self.random.split());
        let inside = v6.map(IpNet::V6).into_iter().collect();
        let firewall = Some(firewall);
        let router = network.add_router(Router { inner, outer, inside, nat, firewall, link: Link::GOOD });
        Place { zone: inner, router: Some(router), v4, v6, hosts: 1 }
    }
}

impl Place {
    /// Addresses for one more host there.
    pub fn host(&mut self) -> Vec<(ZoneId, IpAddr)> {
        self.hosts += 1;
        let v4 = self.v4.map(|[a, b, c]| Ipv4Addr::new(a, b, c, self.hosts).into());
        let v6 = self.v6.map(|net| host_of(net, self.hosts));
        v6.into_iter().chain(v4).map(|address| (self.zone, address)).collect()
    }
}

fn host_of(net: Ipv6Net, host: u8) -> IpAddr {
    Ipv6Addr::from_bits(net.network().to_bits() | u128::from(host)).into()
}
