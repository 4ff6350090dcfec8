//! An agent's way out of the overlay: a veth pair, NAT in the underlay, and the forwarding that this takes.
//!
//! ```text
//!   agent netns                    underlay netns
//!   eth0 ── policed by eBPF ────── lattice-<id> ── forward ── masquerade ── the host's own links
//!   198.19.x.y+1/31                198.19.x.y/31
//! ```
//!
//! The agent's policy decides what leaves by `eth0`. The rules in the underlay (table `lattice-up-<id>`) hold whatever the
//! policy says, for the host's sake:
//!
//! - Only the uplink's own address comes in by it.
//! - Nothing of the host itself is reached through it: no address of any of its links, before or after another's DNAT, and
//!   no other agent.
//! - Nobody begins a connection towards the agent.
//! - A link that forwards only because of us forwards to and from uplinks, and nothing else: the host does not become a
//!   router for its neighbours. Such links are kept by name in the tables themselves (`opened4`, `opened6`), so that the
//!   last uplink to end, or whoever removes what a killed one left, knows what to restore.
//!
//! An accept here does not overrule another table's drop: nftables asks all tables. [`Uplink::objections`] finds those that may.
//! ICMP errors that the kernel or NAT sends back, such as "fragmentation needed", belong to a known flow and pass as related.
//!
//! Neither ARP nor neighbour discovery runs on the pair: each end is told the other's hardware address.
//!
//! A table whose link is gone is a leftover: a killed sandbox's network namespace takes the link along. Links are made before
//! their table and deleted before it, so nobody mistakes one in the making.

mod addresses;
mod error;
mod firewall;
mod forwarding;
mod id;
mod nft;
mod remove;
mod ruleset;
#[cfg(test)]
mod tests;
mod ways;

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use self::{
    forwarding::{Ipv6, Version},
    nft::Nft,
    remove::{listed, lock, remove_locked},
    ruleset::{Opened, Rules},
    ways::Ways,
};
use crate::{LinkError, Netns, link};

pub use addresses::{NET_V4, NET_V6};
pub use error::UplinkError;
pub use firewall::Objection;
pub use id::UplinkId;
pub use remove::remove;

/// The agent's end.
pub const INSIDE: &str = "eth0";
/// With what the names of all outside ends begin.
pub const PREFIX: &str = "lattice-";
const TABLE_PREFIX: &str = "lattice-up-";

/// Whether this host has the program that uplinks take.
///
/// # Errors
/// [`UplinkError::NoNft`].
pub fn available() -> Result<PathBuf, UplinkError> {
    Nft::find().map(Nft::into_path)
}

/// What an uplink is made from.
#[derive(Debug, Clone)]
pub struct UplinkConfig {
    /// Its names.
    pub id: UplinkId,
    /// Whose it is, in the words of the table's comment: letters, digits, spaces and dashes.
    pub owner: String,
    /// Where the NAT is.
    pub underlay: Arc<Netns>,
    /// Where the agent is.
    pub inside: Arc<Netns>,
    /// The destinations that it is for.
    pub targets: Vec<IpNet>,
    /// The overlay, which is never reached by it.
    pub overlay: [IpNet; 2],
    /// A file that only root can write, the same for all uplinks of the underlay: one at a time changes what they share.
    pub lock: PathBuf,
}

/// A way out. Dropping it removes it.
#[derive(Debug)]
pub struct Uplink {
    config: UplinkConfig,
    nft: Nft,
    v4: Ways,
    v6: Ways,
    ends: Vec<End>,
    mtu: u16,
    removed: bool,
}

/// One IP version of the pair.
#[derive(Debug, Clone, Copy)]
struct End {
    outside: IpNet,
    inside: IpNet,
}

impl Uplink {
    /// Makes the pair, both ends down, the inner one without address. None when the underlay has a way to none of the
    /// targets. Whatever fails, nothing stays.
    ///
    /// # Errors
    /// Says what is missing, and the remedy.
    pub fn create(config: UplinkConfig) -> Result<Option<Self>, UplinkError> {
        let nft = Nft::find()?;
        let _lock = lock(&config.lock)?;
        remove_locked(&config.underlay, config.id, &nft)?;
        let links = link::links(&config.underlay)?;
        let routes = link::routes(&config.underlay)?;
        let to = |every: IpNet| ways::ways(&every, &config.targets, &config.overlay, &routes, &links);
        let v4 = to(Ipv4Net::default().into());
        let v6 = match forwarding::ipv6(&config.underlay)? {
            Ipv6::No => Ways::default(),
            Ipv6::All | Ipv6::PerLink => to(Ipv6Net::default().into()),
        };
        let Some(mtu) = [v4.mtu, v6.mtu].into_iter().flatten().min() else { return Ok(None) };
        let taken: Vec<IpAddr> = link::addresses(&config.underlay)?.into_iter().map(|(_, ip)| ip).collect();
        let pair = addresses::allocate(config.id.number(), &taken, &routes, &config.overlay)
            .ok_or(UplinkError::NoAddress)?;
        let both = pair.outside().into_iter().zip(pair.inside()).zip([&v4, &v6]);
        let ends = both
            .filter(|(_, ways)| !ways.links.is_empty())
            .map(|((outside, inside), _)| End { outside, inside })
            .collect();
        let mut uplink = Self { config, nft, v4, v6, ends, mtu, removed: false };
        let made = uplink.make_pair();
        if made.is_err() {
            // Here, because the lock is held.
            uplink.removed = true;
            let _ = uplink.remove_locked();
        }
        made.map(|()| Some(uplink))
    }

    fn make_pair(&self) -> Result<(), UplinkError> {
        let UplinkConfig { id, underlay, inside, .. } = &self.config;
        let outside = id.link();
        link::add_veth(underlay, &outside, inside, INSIDE)?;
        for (netns, name) in [(underlay, outside.as_str()), (inside, INSIDE)] {
            link::set_no_link_local(netns, name)?;
            link::set_no_arp(netns, name)?;
            link::set_mtu(netns, name, self.mtu)?;
        }
        // They also mark the pair as taken.
        for end in &self.ends {
            link::add_address(underlay, &outside, end.outside)?;
        }
        Ok(())
    }

    /// The agent's addresses on it, which the policy must know as its own.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.ends.iter().map(|end| end.inside.addr()).collect()
    }

    /// The link in the underlay.
    pub fn outside(&self) -> String {
        self.config.id.link()
    }

    /// Bytes of a packet.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Whether something of `target` can be reached by it, as far as the underlay's routes tell.
    pub fn leads_to(&self, target: &IpNet) -> bool {
        self.v4.lead_to(target) || self.v6.lead_to(target)
    }

    /// Whether it is the way out for the IP version of `address`.
    pub fn carries(&self, address: IpAddr) -> bool {
        self.ends.iter().any(|end| end.inside.addr().is_ipv4() == address.is_ipv4())
    }

    /// Opens it: rules, forwarding, addresses, both ends up, default routes. The inner end must be policed by now.
    ///
    /// # Errors
    /// What was refused, and the remedy. The uplink is then to be dropped.
    pub fn open(&self) -> Result<(), UplinkError> {
        let UplinkConfig { id, underlay, inside, lock: path, .. } = &self.config;
        let outside = id.link();
        {
            let _lock = lock(path)?;
            self.open_underlay()?;
        }
        let mac = |netns: &Netns, name: &str| -> Result<Vec<u8>, LinkError> {
            let found = link::links(netns)?.into_iter().find(|link| link.name == name);
            found.map(|link| link.mac).ok_or_else(|| LinkError::NotFound(name.into()))
        };
        let (outer, inner) = (mac(underlay, &outside)?, mac(inside, INSIDE)?);
        for end in &self.ends {
            link::add_address(inside, INSIDE, end.inside)?;
        }
        link::set_up(inside, INSIDE)?;
        link::set_up(underlay, &outside)?;
        for end in &self.ends {
            let (gateway, agent) = (end.outside.addr(), end.inside.addr());
            link::add_neighbour(inside, INSIDE, gateway, &outer)?;
            link::add_neighbour(underlay, &outside, agent, &inner)?;
            link::add_default_route(inside, gateway, INSIDE, agent)?;
        }
        Ok(())
    }

    /// The rules first: at no time does a link forward without them.
    fn open_underlay(&self) -> Result<(), UplinkError> {
        let UplinkConfig { id, owner, underlay, .. } = &self.config;
        let others = listed(underlay, &self.nft)?;
        let per_link = forwarding::ipv6(underlay)? == Ipv6::PerLink;
        let mut opened = Opened::default();
        for link in &self.v4.links {
            let already = others.values().any(|other| other.v4.contains(link));
            if already || !forwarding::is_on(underlay, Version::V4, link)? {
                opened.v4.push(link.clone());
            }
        }
        for link in self.v6.links.iter().filter(|_| per_link) {
            let already = others.values().any(|other| other.v6.contains(link));
            if already || !forwarding::is_on(underlay, Version::V6, link)? {
                opened.v6.push(link.clone());
            }
        }
        self.can_open(&opened)?;
        let inside: Vec<IpNet> = self.ends.iter().map(|end| end.inside).collect();
        let rules = Rules { id: *id, inside: &inside, opened: &opened, owner };
        self.nft.apply(underlay, &rules.text(), "make the rules of an uplink")?;
        let own = id.link();
        for link in opened.v4.iter().chain(Some(&own).filter(|_| !self.v4.links.is_empty())) {
            forwarding::set(underlay, Version::V4, link, true)?;
        }
        for link in opened.v6.iter().chain(Some(&own).filter(|_| per_link && !self.v6.links.is_empty())) {
            forwarding::set(underlay, Version::V6, link, true)?;
        }
        Ok(())
    }

    fn can_open(&self, opened: &Opened) -> Result<(), UplinkError> {
        let underlay = &self.config.underlay;
        if let Some(odd) = opened.v4.iter().chain(&opened.v6).find(|link| !ruleset::can_name(link)) {
            return Err(UplinkError::OddName(odd.clone()));
        }
        if forwarding::bridges_are_filtered(underlay)? {
            let bridges = link::links(underlay)?.into_iter().filter(|link| link.bridge);
            let ours = |name: &String| opened.v4.contains(name) || opened.v6.contains(name);
            if let Some(bridge) = bridges.map(|link| link.name).find(ours) {
                return Err(UplinkError::Bridge(bridge));
            }
        }
        Ok(())
    }

    /// The rules of others that may drop what this uplink forwards.
    ///
    /// # Errors
    /// When nft does not answer.
    pub fn objections(&self) -> Result<Vec<Objection>, UplinkError> {
        let listing =
            self.nft.ask(&self.config.underlay, &["list", "ruleset"], "list the rules of others")?;
        let versions = (!self.v4.links.is_empty(), !self.v6.links.is_empty());
        Ok(firewall::objections(&listing, versions))
    }

    /// Removes all of it, and restores the forwarding of links that no other uplink needs.
    ///
    /// # Errors
    /// What could not be removed; [`remove`] can try again.
    pub fn close(mut self) -> Result<(), UplinkError> {
        self.removed = true;
        let _lock = lock(&self.config.lock)?;
        self.remove_locked()
    }

    fn remove_locked(&self) -> Result<(), UplinkError> {
        remove_locked(&self.config.underlay, self.config.id, &self.nft)
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        if !self.removed {
            let removed = lock(&self.config.lock).and_then(|_lock| self.remove_locked());
            if let Err(error) = removed {
                tracing::warn!(%error, link = self.config.id.link(), "could not remove an uplink");
            }
        }
    }
}
