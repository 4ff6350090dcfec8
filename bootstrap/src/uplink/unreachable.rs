//! Where an uplink leads nobody, as networks for the policy, so that the sandbox itself refuses it, with a record.
//!
//! The table in the underlay refuses all of this too, and more that no address tells: broadcasts of the host's networks, somebody's
//! DNAT to the host, more connections than one agent may have.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use ipnet::IpNet;
use lattice_overlay::{LinkError, Netns, link, uplink::PREFIX};
use lattice_policy::Overlay;

use crate::{Failure, addresses::Addresses, live::Live, sandbox::kernel};

/// A host may have thousands, and each repeats the lines of every rule as wide as `0.0.0.0/0`: what is beyond is left to the table
/// alone.
const MOST: usize = 256;

/// The addresses of a host and of its other agents.
#[derive(Clone)]
pub(crate) struct Unreachable {
    underlay: Arc<Netns>,
    overlay: Overlay,
    /// The agent's own.
    own: Vec<IpAddr>,
}

impl Unreachable {
    pub(super) fn new(underlay: Arc<Netns>, overlay: Overlay, own: Vec<IpAddr>) -> Self {
        Self { underlay, overlay, own }
    }

    /// As they are now.
    pub(crate) fn nets(&self) -> Result<Vec<IpNet>, Failure> {
        let what = "cannot list this host's addresses, which no agent may reach";
        self.list().map_err(|error| kernel(what, &error))
    }

    /// Has `live` know them, whenever they change, until the result is dropped.
    pub(crate) fn follow(self, live: Arc<Mutex<Live>>) -> Result<Addresses, Failure> {
        let underlay = self.underlay.clone();
        let look = move || {
            match self.list() {
                Ok(nets) => live.lock().unwrap_or_else(PoisonError::into_inner).set_unreachable(nets),
                Err(error) => tracing::warn!(%error, "cannot list this host's addresses"),
            }
            true
        };
        Addresses::follow(&underlay, look)
            .map_err(|error| kernel("cannot watch this host's addresses", &error))
    }

    fn list(&self) -> Result<Vec<IpNet>, LinkError> {
        let all = link::addresses(&self.underlay)?;
        let mut nets: Vec<IpNet> = all.iter().filter_map(|(link, ip)| self.net(link, *ip)).collect();
        nets.sort_unstable();
        nets.dedup();
        nets.truncate(MOST);
        Ok(nets)
    }

    /// What to deny because of the address `ip` of the host's `link`.
    fn net(&self, link: &str, ip: IpAddr) -> Option<IpNet> {
        // An agent's loopback is its own; link-local addresses are guarded in every policy.
        let is_elsewhere = match ip {
            IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
        };
        if is_elsewhere || self.overlay.contains(&ip.into()) {
            return None;
        }
        // The other address of the pair is an agent's.
        let pair = IpNet::new(ip, if ip.is_ipv4() { 31 } else { 127 }).ok()?.trunc();
        if link.starts_with(PREFIX) && !self.own.iter().any(|own| pair.contains(own)) {
            return Some(pair);
        }
        Some(ip.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_and_other_agents_but_neither_the_overlay_nor_the_agent_itself() {
        let of = Unreachable {
            underlay: Arc::new(Netns::current().unwrap()),
            overlay: Overlay::new("10.42.0.0/16".parse().unwrap(), "fd12:3456:789a::/48".parse().unwrap())
                .unwrap(),
            own: vec!["198.19.0.3".parse().unwrap(), "fdc0:296a:8e70::3".parse().unwrap()],
        };
        for (link, ip, expected) in [
            ("eth0", "192.0.2.1", Some("192.0.2.1/32")),
            ("eth0", "2001:db8::1", Some("2001:db8::1/128")),
            ("lo", "203.0.113.7", Some("203.0.113.7/32")),
            ("lo", "127.0.0.1", None),
            ("lo", "::1", None),
            ("eth0", "fe80::1", None),
            ("eth0", "169.254.3.1", None),
            ("wg0", "10.42.0.9", None),
            ("wg0", "fd12:3456:789a::a2a:9", None),
            ("lattice-0000001", "198.19.0.2", Some("198.19.0.2/32")),
            ("lattice-0000001", "fdc0:296a:8e70::2", Some("fdc0:296a:8e70::2/128")),
            ("lattice-0000002", "198.19.0.4", Some("198.19.0.4/31")),
            ("lattice-0000002", "fdc0:296a:8e70::4", Some("fdc0:296a:8e70::4/127")),
        ] {
            let expected = expected.map(|net| net.parse().unwrap());
            assert_eq!(of.net(link, ip.parse().unwrap()), expected, "{link} {ip}");
        }
    }
}
