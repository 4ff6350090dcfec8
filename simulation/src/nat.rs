//! What a NAT or a stateful firewall does to UDP, in the words of RFC 4787.
//!
//! A *mapping* ties an inner address and port to an outer one; the *filter* says who outside may use it. Each is
//! independent of the other end, or depends on its address, or on its address and port. A firewall is a NAT that maps
//! each address and port to itself.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use crate::Random;

/// What of the other end a mapping or a filter looks at (RFC 4787 sections 4.1 and 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependence {
    /// Nothing.
    EndpointIndependent,
    /// Its address.
    AddressDependent,
    /// Its address and port.
    AddressAndPortDependent,
}

/// How a NAT behaves.
#[derive(Debug, Clone, Copy)]
pub struct Behaviour {
    /// When two datagrams from one inner address and port share a mapping.
    pub mapping: Dependence,
    /// Who may send to a mapping, after the inside has sent to somebody.
    pub filtering: Dependence,
    /// The outer port is the inner one where that is free (section 4.2.1), else a random one.
    pub preserves_ports: bool,
    /// Two hosts inside reach each other at their outer addresses (section 6).
    pub hairpins: bool,
    /// How long after its last datagram to the outside a mapping, and who may use it, is forgotten (section 4.3).
    pub lifetime: Duration,
    /// Datagrams from the outside prolong it too.
    pub inbound_refreshes: bool,
}

impl Behaviour {
    /// What RFC 4787 asks of a NAT, with the filter of most home routers.
    pub const HOME: Self = Self {
        mapping: Dependence::EndpointIndependent,
        filtering: Dependence::AddressAndPortDependent,
        preserves_ports: true,
        hairpins: false,
        lifetime: Duration::from_secs(120),
        inbound_refreshes: true,
    };

    /// The kind of NAT through which no hole can be punched towards another of its kind.
    pub const SYMMETRIC: Self = Self {
        mapping: Dependence::AddressAndPortDependent,
        filtering: Dependence::AddressAndPortDependent,
        preserves_ports: false,
        ..Self::HOME
    };
}

/// A NAT, or a firewall.
#[derive(Debug)]
pub struct Nat {
    /// How it behaves.
    pub behaviour: Behaviour,
    /// Its outer address; `None` for a firewall, which translates nothing.
    pub address: Option<Ipv4Addr>,
    mappings: BTreeMap<Flow, Mapping>,
    random: Random,
}

/// What datagrams of one mapping have in common: the inner end, and as much of the outer one as the NAT looks at.
type Flow = (SocketAddr, Option<IpAddr>, Option<u16>);

#[derive(Debug)]
struct Mapping {
    outer: SocketAddr,
    /// Whom the inside has sent to, and when it was last refreshed.
    remotes: BTreeMap<SocketAddr, Instant>,
}

// === impl Nat ===

impl Nat {
    /// A NAT whose outer address is `address`.
    pub fn new(behaviour: Behaviour, address: Ipv4Addr, random: Random) -> Self {
        Self { behaviour, address: Some(address), mappings: BTreeMap::new(), random }
    }

    /// A stateful firewall.
    pub fn firewall(filtering: Dependence, lifetime: Duration, random: Random) -> Self {
        let mapping = Dependence::EndpointIndependent;
        let behaviour = Behaviour { mapping, filtering, lifetime, ..Behaviour::HOME };
        Self { behaviour, address: None, mappings: BTreeMap::new(), random }
    }

    /// The outer source of a datagram from `inner` to `remote`. `None` when the NAT is out of ports.
    pub fn outbound(&mut self, inner: SocketAddr, remote: SocketAddr, now: Instant) -> Option<SocketAddr> {
        self.expire(now);
        let flow = match self.behaviour.mapping {
            Dependence::EndpointIndependent => (inner, None, None),
            Dependence::AddressDependent => (inner, Some(remote.ip()), None),
            Dependence::AddressAndPortDependent => (inner, Some(remote.ip()), Some(remote.port())),
        };
        let outer = match self.mappings.get(&flow) {
            Some(mapping) => mapping.outer,
            None => self.allocate(inner)?,
        };
        let mapping =
            self.mappings.entry(flow).or_insert_with(|| Mapping { outer, remotes: BTreeMap::new() });
        mapping.remotes.insert(remote, now);
        Some(outer)
    }

    /// The inner destination of a datagram from `remote` to `outer`. `None` when it is not let in.
    pub fn inbound(&mut self, outer: SocketAddr, remote: SocketAddr, now: Instant) -> Option<SocketAddr> {
        self.expire(now);
        let filtering = self.behaviour.filtering;
        let fits = |known: &SocketAddr| match filtering {
            Dependence::EndpointIndependent => true,
            Dependence::AddressDependent => known.ip() == remote.ip(),
            Dependence::AddressAndPortDependent => *known == remote,
        };
        let (flow, mapping) = self
            .mappings
            .iter_mut()
            .find(|(_, mapping)| mapping.outer == outer && mapping.remotes.keys().any(fits))?;
        if self.behaviour.inbound_refreshes {
            mapping.remotes.iter_mut().filter(|(known, _)| fits(known)).for_each(|(_, at)| *at = now);
        }
        Some(flow.0)
    }

    /// Forgets everything, as when it is switched off and on.
    pub fn reboot(&mut self) {
        self.mappings.clear();
    }

    fn allocate(&mut self, inner: SocketAddr) -> Option<SocketAddr> {
        let Some(address) = self.address else { return Some(inner) };
        let at = |port| SocketAddr::from((address, port));
        let is_free = |port| self.mappings.values().all(|mapping| mapping.outer != at(port));
        if self.behaviour.preserves_ports && is_free(inner.port()) {
            return Some(at(inner.port()));
        }
        (0..64).map(|_| 1024 + self.random.below(64_512) as u16).find(|port| is_free(*port)).map(at)
    }

    fn expire(&mut self, now: Instant) {
        let lifetime = self.behaviour.lifetime;
        self.mappings.retain(|_, mapping| {
            mapping.remotes.retain(|_, at| now.saturating_duration_since(*at) < lifetime);
            !mapping.remotes.is_empty()
        });
    }
}

#[cfg(test)]
mod tests;
