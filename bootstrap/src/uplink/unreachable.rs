//! Where an uplink leads nobody, as networks for the policy, so that the sandbox itself refuses it, with a record; and the node of a
//! pod, whose other links lead to it without an uplink and without a table.
//!
//! The networks of all uplinks are in it as a whole: that another agent comes or goes on the host changes no policy, because a new one
//! judges every flow anew.
//!
//! So is what the host itself has no route to, and IPv6 as a whole where it does not forward it: as long as that is so. One thread
//! watches the host, and has the uplink itself follow it ([`Uplink::follow`]).
//!
//! The table in the underlay, or the kernel, refuses all of this too, and more that no address tells: somebody's DNAT to the host, more
//! connections than one agent may have.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ipnet::IpNet;
use lattice_overlay::{
    LinkError, Netns, Uplink,
    link::{self, Changes},
    uplink::{NET_V4, NET_V6, without},
};
use lattice_policy::Overlay;

use crate::{
    Failure,
    addresses::{Addresses, Look},
    failure::{chain, kernel},
    live::Live,
};

/// A host may have thousands, and each repeats the lines of every rule as wide as `0.0.0.0/0`: what is beyond is left to the table
/// alone.
const MOST: usize = 256;

/// The host is looked at this long after the news of a change, which seldom comes alone. Until then the table refuses what is new.
const SETTLE: Duration = Duration::from_millis(50);

/// kube-proxy's, in the mode `ipvs`: the addresses of all services are its, so that the node takes their packets, and hands them on.
const SERVICES: &str = "kube-ipvs0";

/// The addresses of a host and of its other agents, and its routes.
pub(crate) struct Unreachable {
    underlay: Arc<Netns>,
    overlay: Overlay,
    way: Way,
}

enum Way {
    /// The agent has this one.
    Uplink(Arc<Uplink>),
    /// The agent is in a pod. The cluster's services are in these networks, whoever has their addresses.
    Pod(Vec<IpNet>),
}

impl Unreachable {
    pub(super) fn new(underlay: Arc<Netns>, overlay: Overlay, uplink: Arc<Uplink>) -> Self {
        Self { underlay, overlay, way: Way::Uplink(uplink) }
    }

    /// The node of a pod, in a cluster with these networks of services.
    pub(crate) fn from_pod(underlay: Arc<Netns>, overlay: Overlay, services: Vec<IpNet>) -> Self {
        Self { underlay, overlay, way: Way::Pod(services) }
    }

    /// The host's own, as they are now.
    pub(crate) fn nets(&self) -> Result<Vec<IpNet>, Failure> {
        let what = "cannot list this host's addresses, which no agent may reach";
        self.list().map_err(|error| kernel(what, &error))
    }

    /// What of the rules' destinations the host has no way to, as far as the uplink knows.
    pub(crate) fn unrouted(&self) -> Vec<IpNet> {
        match &self.way {
            Way::Uplink(uplink) => uplink.unrouted(),
            Way::Pod(_) => Vec::new(),
        }
    }

    /// Has the uplink and `live` know them, whenever they change, until the result is dropped.
    pub(crate) fn follow(self, live: Arc<Mutex<Live>>) -> Result<Addresses, Failure> {
        let watched = |error| kernel("cannot watch this host's addresses and routes", &error);
        // A pod is told of no routes: a node may have thousands, and they change.
        let changes = match self.way {
            Way::Uplink(_) => Changes::of_all(&self.underlay),
            Way::Pod(_) => Changes::of_links_and_addresses(&self.underlay),
        };
        let changes = changes.map_err(watched)?;
        let look = move || {
            let mut done = Look::Done;
            if let Way::Uplink(uplink) = &self.way
                && let Err(error) = uplink.follow()
            {
                tracing::warn!(error = chain(&error), "the way out of the overlay does not follow this host");
                done = Look::Failed;
            }
            match self.list() {
                Ok(nets) => {
                    let mut live = live.lock().unwrap_or_else(PoisonError::into_inner);
                    live.set_unreachable(nets, self.unrouted());
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot list this host's addresses");
                    done = Look::Failed;
                }
            }
            done
        };
        Addresses::follow(changes, SETTLE, look).map_err(watched)
    }

    fn list(&self) -> Result<Vec<IpNet>, LinkError> {
        // An address has no route while its link is down, and broadcast and anycast addresses are in no list of addresses.
        let addresses = link::addresses(&self.underlay)?.into_iter().map(|(link, ip)| (link, ip.into()));
        let own = addresses.chain(link::own_routes(&self.underlay)?);
        Ok(match &self.way {
            Way::Uplink(_) => to_deny(&self.overlay, own.map(|(_, net)| net)),
            Way::Pod(services) => of_node(&self.overlay, services, own),
        })
    }
}

/// What to deny on a host of these `addresses`.
fn to_deny(overlay: &Overlay, addresses: impl Iterator<Item = IpNet>) -> Vec<IpNet> {
    let mut nets = Vec::new();
    for net in [NET_V4.into(), NET_V6.into()] {
        // No uplink has an address of the overlay.
        without(net, &overlay.nets(), MOST, &mut nets);
    }
    let uplinks = nets.len();
    let mut others = of_host(&overlay.nets(), addresses);
    others.retain(|ip| !nets.iter().any(|net| net.contains(ip)));
    nets.extend(others);
    nets.truncate(MOST.max(uplinks));
    nets
}

/// What to deny to a pod on a node with these addresses, each with its link, in a cluster with these networks of `services`.
fn of_node(
    overlay: &Overlay,
    services: &[IpNet],
    addresses: impl Iterator<Item = (String, IpNet)>,
) -> Vec<IpNet> {
    let open: Vec<IpNet> = services.iter().copied().chain(overlay.nets()).collect();
    of_host(&open, addresses.filter(|(link, _)| link != SERVICES).map(|(_, net)| net))
}

/// What to deny because the host has these `addresses`, some of which may be whole networks: nothing of what stays `open`.
fn of_host(open: &[IpNet], addresses: impl Iterator<Item = IpNet>) -> Vec<IpNet> {
    let mut nets = Vec::new();
    for net in addresses.filter(|net| !is_elsewhere(net)) {
        let mut left = Vec::new();
        // In a pod there is no table that what is left out could be left to.
        without(net, open, usize::MAX, &mut left);
        nets.extend(left);
    }
    nets.sort_unstable();
    nets.dedup();
    nets
}

/// An agent's loopback is its own; link-local and multicast addresses are guarded in every policy.
fn is_elsewhere(net: &IpNet) -> bool {
    match net.network() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || ip.is_multicast(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPLINKS: [&str; 2] = ["198.19.0.0/16", "fdc0:296a:8e70::/64"];

    fn on(pool: &str, addresses: &[&str]) -> Vec<String> {
        let overlay = Overlay::new(pool.parse().unwrap(), "fd12:3456:789a::/48".parse().unwrap()).unwrap();
        let nets = to_deny(&overlay, addresses.iter().map(|net| read(net)));
        nets.iter().map(IpNet::to_string).collect()
    }

    fn read(net: &str) -> IpNet {
        net.parse().or_else(|_| net.parse::<IpAddr>().map(IpNet::from)).unwrap()
    }

    #[test]
    fn what_is_of_services_is_not_of_the_node_whatever_route_names_it() {
        let overlay =
            Overlay::new("10.42.0.0/16".parse().unwrap(), "fd12:3456:789a::/48".parse().unwrap()).unwrap();
        let on = |routes: &[(&str, &str)]| {
            let routes = routes.iter().map(|(link, net)| ((*link).to_owned(), read(net)));
            let nets = of_node(&overlay, &[read("10.96.0.0/12")], routes);
            nets.iter().map(IpNet::to_string).collect::<Vec<_>>()
        };
        // Older releases of kube-proxy give a service's address a broadcast.
        let routes =
            [("kube-ipvs0", "172.30.0.1"), ("lo", "10.96.0.7"), ("lo", "10.97.0.0/16"), ("eth0", "fd77::")];
        assert_eq!(on(&routes), ["fd77::/128"]);
        assert_eq!(on(&[("lo", "10.96.0.0/11")]), ["10.112.0.0/12"]);
        // What is local as a whole leaves the overlay open.
        assert_eq!(on(&[("lo", "10.42.0.0/15")]), ["10.43.0.0/16"]);
    }

    #[test]
    fn the_host_and_all_uplinks_but_not_the_overlay() {
        for (ip, expected) in [
            ("192.0.2.1", Some("192.0.2.1/32")),
            ("2001:db8::1", Some("2001:db8::1/128")),
            ("127.0.0.1", None),
            ("::1", None),
            ("fe80::1", None),
            ("169.254.3.1", None),
            ("127.0.0.0/8", None),
            ("fe80::", None),
            ("ff00::/8", None),
            ("10.1.0.0/16", Some("10.1.0.0/16")),
            ("10.42.0.9", None),
            ("fd12:3456:789a::a2a:9", None),
        ] {
            let all: Vec<&str> = UPLINKS.into_iter().chain(expected).collect();
            assert_eq!(on("10.42.0.0/16", &[ip, ip]), all, "{ip}");
        }
    }

    #[test]
    fn another_agent_changes_nothing() {
        let alone = on("10.42.0.0/16", &["192.0.2.1", "198.19.0.2", "fdc0:296a:8e70::2"]);
        let others = ["192.0.2.1", "198.19.0.2", "fdc0:296a:8e70::2", "198.19.0.4", "fdc0:296a:8e70::4"];
        assert_eq!(on("10.42.0.0/16", &others), alone);
    }

    #[test]
    fn an_overlay_among_the_uplinks_stays_open() {
        let nets = ["198.19.0.0/18", "198.19.128.0/17", "fdc0:296a:8e70::/64"];
        assert_eq!(on("198.19.64.0/18", &["198.19.64.9", "198.19.0.2"]), nets);
        assert_eq!(on("198.18.0.0/15", &[]), UPLINKS[1..]);
    }

    #[test]
    fn of_a_host_with_thousands_some_are_left_to_the_table() {
        let many: Vec<String> = (0..2000).map(|n| format!("192.0.{}.{}", n / 250, n % 250)).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let nets = on("10.42.0.0/16", &many);
        assert_eq!(nets.len(), MOST);
        assert_eq!(nets[..2], UPLINKS);
    }
}
