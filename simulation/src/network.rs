//! Hosts in zones, and the routers between them.
//!
//! ```text
//!   internet ──┬── router (NAT, firewall) ── home: hosts
//!              ├── router (CGN) ── carrier ── router (NAT) ── home: hosts
//!              └── hosts
//! ```
//!
//! A *zone* is what one address space reaches: a link, or the internet. Zones make a tree: each but the outermost has one
//! router to the next. A datagram goes outwards until its destination is in a zone, then inwards; two homes may well use the
//! same private addresses.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use ipnet::IpNet;

use crate::{Link, Nat, Random, queue::Queue};

/// A zone's number.
pub type ZoneId = usize;
/// A router's number.
pub type RouterId = usize;
/// A host's number.
pub type HostId = usize;

/// The outermost zone.
pub const INTERNET: ZoneId = 0;

/// How long a datagram takes within a zone.
const LOCAL: Duration = Duration::from_micros(300);

/// The way from a zone to the next outer one.
#[derive(Debug)]
pub struct Router {
    /// The zone that it serves.
    pub inner: ZoneId,
    /// The zone in which it is a host.
    pub outer: ZoneId,
    /// Networks within that have a way from outside without translation.
    pub inside: Vec<IpNet>,
    /// Translates what is IPv4; without one, IPv4 is routed as it is.
    pub nat: Option<Nat>,
    /// Guards what is not translated; without one, everything is let in.
    pub firewall: Option<Nat>,
    /// What it loses, and how long it takes, each way.
    pub link: Link,
}

/// A datagram under way.
#[derive(Debug, Clone)]
struct Datagram {
    sender: HostId,
    /// Where the sender sent it, whatever became of that on the way.
    addressed: SocketAddr,
    source: SocketAddr,
    destination: SocketAddr,
    payload: Vec<u8>,
}

/// What reached a host.
#[derive(Debug)]
pub struct Delivery {
    /// When.
    pub at: Instant,
    /// Whom.
    pub host: HostId,
    /// At which of its addresses.
    pub local: SocketAddr,
    /// From where, as the host sees it.
    pub remote: SocketAddr,
    /// From whom, as only the simulation knows.
    pub sender: HostId,
    /// Where the sender sent it, which is not `local` behind a NAT.
    pub addressed: SocketAddr,
    /// The bytes.
    pub payload: Vec<u8>,
}

#[derive(Debug, Default)]
struct Host {
    addresses: Vec<(ZoneId, IpAddr)>,
}

/// A network.
#[derive(Debug)]
pub struct Network {
    zones: usize,
    routers: Vec<Router>,
    hosts: Vec<Host>,
    cuts: Vec<(HostId, HostId)>,
    /// Datagrams that come to a zone.
    queue: Queue<(ZoneId, Datagram)>,
    /// What was sent, for somebody who sends it again; `None` when nobody does.
    recorded: Option<Vec<(ZoneId, Datagram)>>,
    random: Random,
}

// === impl Network ===

impl Network {
    /// One zone, which is the internet: number 0.
    pub fn new(random: Random) -> Self {
        let (routers, hosts, cuts) = (vec![], vec![], vec![]);
        Self { zones: 1, routers, hosts, cuts, queue: Queue::new(), recorded: None, random }
    }

    /// A zone apart from all others, until a router is added.
    pub fn add_zone(&mut self) -> ZoneId {
        self.zones += 1;
        self.zones - 1
    }

    /// A router. Its inner zone has no other.
    pub fn add_router(&mut self, router: Router) -> RouterId {
        assert!(self.uplink(router.inner).is_none(), "zone {} has a router already", router.inner);
        self.routers.push(router);
        self.routers.len() - 1
    }

    /// A router, to change how it behaves.
    pub fn router(&mut self, router: RouterId) -> &mut Router {
        &mut self.routers[router]
    }

    /// The router that serves a zone.
    pub fn uplink(&self, zone: ZoneId) -> Option<RouterId> {
        self.routers.iter().position(|router| router.inner == zone)
    }

    /// The routers from a zone to the outermost that is connected with it, in order, and that zone.
    pub fn way(&self, mut zone: ZoneId) -> (Vec<&Router>, ZoneId) {
        let mut way = Vec::new();
        while let Some(router) = self.uplink(zone) {
            way.push(&self.routers[router]);
            zone = self.routers[router].outer;
        }
        (way, zone)
    }

    /// Whether a host has a way to the internet that is up, as TCP needs.
    pub fn is_online(&self, host: HostId) -> bool {
        self.hosts[host].addresses.iter().any(|(zone, _)| {
            let (way, end) = self.way(*zone);
            end == INTERNET && way.iter().all(|router| router.link.up)
        })
    }

    /// How many routers there are.
    pub fn routers(&self) -> usize {
        self.routers.len()
    }

    /// A host with these addresses, the preferred one of each IP version first.
    pub fn add_host(&mut self, addresses: Vec<(ZoneId, IpAddr)>) -> HostId {
        self.hosts.push(Host { addresses });
        self.hosts.len() - 1
    }

    /// Moves a host to other addresses; to none, to take it off the network.
    pub fn move_host(&mut self, host: HostId, addresses: Vec<(ZoneId, IpAddr)>) {
        self.hosts[host].addresses = addresses;
    }

    /// A host's addresses.
    pub fn addresses(&self, host: HostId) -> &[(ZoneId, IpAddr)] {
        &self.hosts[host].addresses
    }

    /// Loses what one host sends straight to the other, both ways, or lets it through again.
    pub fn cut(&mut self, one: HostId, other: HostId, cut: bool) {
        let pair = (one.min(other), one.max(other));
        self.cuts.retain(|known| *known != pair);
        if cut {
            self.cuts.push(pair);
        }
    }

    /// Whether what one host sends straight to the other is lost.
    pub fn is_cut(&self, one: HostId, other: HostId) -> bool {
        self.cuts.contains(&(one.min(other), one.max(other)))
    }

    /// Sends a datagram from a host's address, or, where `local` is `None`, from its preferred one of that IP version.
    pub fn send(
        &mut self,
        sender: HostId,
        (local, port): (Option<IpAddr>, u16),
        remote: SocketAddr,
        payload: &[u8],
        now: Instant,
    ) {
        let addresses = &self.hosts[sender].addresses;
        let fits = |address: &IpAddr| match local {
            Some(local) => *address == local,
            None => address.is_ipv4() == remote.is_ipv4(),
        };
        // What a host sends to itself never leaves it.
        let own = addresses.iter().find(|(_, address)| *address == remote.ip());
        let Some(&(zone, source)) = own.or_else(|| addresses.iter().find(|(_, address)| fits(address)))
        else {
            return;
        };
        let datagram = Datagram {
            sender,
            addressed: remote,
            source: SocketAddr::new(source, port),
            destination: remote,
            payload: payload.to_vec(),
        };
        self.recorded.iter_mut().for_each(|recorded| recorded.push((zone, datagram.clone())));
        self.queue.push(now + LOCAL, (zone, datagram));
    }

    /// Begins or ends to write down what is sent.
    pub fn record(&mut self, on: bool) {
        self.recorded = on.then(Vec::new);
    }

    /// Sends everything that was written down once more, from where it came.
    pub fn replay(&mut self, now: Instant) {
        for (zone, datagram) in self.recorded.take().into_iter().flatten() {
            self.queue.push(now + self.random.up_to(LOCAL), (zone, datagram));
        }
        self.recorded = Some(Vec::new());
    }

    /// When [`Self::poll`] has work.
    pub fn next_at(&self) -> Option<Instant> {
        self.queue.next_at()
    }

    /// Moves datagrams on until one reaches its host, or time is up to `now`.
    pub fn poll(&mut self, now: Instant) -> Option<Delivery> {
        while let Some((at, (zone, datagram))) = self.queue.pop(now) {
            let destination = datagram.destination;
            let here = self.hosts.iter().position(|host| host.addresses.contains(&(zone, destination.ip())));
            if let Some(host) = here {
                if self.is_cut(host, datagram.sender) {
                    continue;
                }
                let Datagram { sender, addressed, source: remote, payload, .. } = datagram;
                return Some(Delivery { at, host, local: destination, remote, sender, addressed, payload });
            }
            match self.inward(zone, destination.ip()) {
                Some(router) => self.pass_in(router, datagram, at),
                None => self.pass_out(zone, datagram, at),
            }
        }
        None
    }

    /// The router of this zone behind which an address is.
    fn inward(&self, zone: ZoneId, address: IpAddr) -> Option<RouterId> {
        self.routers.iter().position(|router| {
            let translates =
                router.nat.as_ref().is_some_and(|nat| nat.address.map(IpAddr::V4) == Some(address));
            router.outer == zone && (translates || router.inside.iter().any(|net| net.contains(&address)))
        })
    }

    fn pass_in(&mut self, router: RouterId, mut datagram: Datagram, at: Instant) {
        let Router { nat, firewall, inner, .. } = &mut self.routers[router];
        let (destination, source) = (datagram.destination, datagram.source);
        let guard = match nat {
            Some(nat) if nat.address.map(IpAddr::V4) == Some(destination.ip()) => Some(nat),
            _ => firewall.as_mut(),
        };
        if let Some(guard) = guard {
            let Some(destination) = guard.inbound(destination, source, at) else { return };
            datagram.destination = destination;
        }
        let zone = *inner;
        self.cross(router, zone, datagram, at);
    }

    fn pass_out(&mut self, zone: ZoneId, mut datagram: Datagram, at: Instant) {
        let Some(router) = self.uplink(zone) else { return };
        let Router { nat, firewall, outer, inner, inside, .. } = &mut self.routers[router];
        let (destination, source) = (datagram.destination, datagram.source);
        if inside.iter().any(|net| net.contains(&destination.ip())) {
            // Nobody has that address: without this, it would go out and in again for ever.
            return;
        }
        let is_routed = !source.is_ipv4() || nat.is_none();
        if let Some(guard) = if is_routed { firewall.as_mut() } else { nat.as_mut() } {
            let Some(source) = guard.outbound(source, destination, at) else { return };
            datagram.source = source;
        }
        let is_own = nat.as_ref().is_some_and(|nat| nat.address.map(IpAddr::V4) == Some(destination.ip()));
        if !is_own {
            let zone = *outer;
            return self.cross(router, zone, datagram, at);
        }
        // RFC 4787 section 6, "external source IP address and port".
        let zone = *inner;
        if let Some(nat) = nat.as_mut().filter(|nat| nat.behaviour.hairpins)
            && let Some(destination) = nat.inbound(destination, datagram.source, at)
        {
            datagram.destination = destination;
            self.queue.push(at + LOCAL, (zone, datagram));
        }
    }

    fn cross(&mut self, router: RouterId, zone: ZoneId, datagram: Datagram, at: Instant) {
        let link = self.routers[router].link;
        for after in link.carry(datagram.payload.len(), datagram.destination, &mut self.random) {
            self.queue.push(at + after, (zone, datagram.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
