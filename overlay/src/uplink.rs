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
//! The host may move to another network: [`Uplink::follow`] looks at its links and routes anew. Without a route to what the rules name the
//! pair is there all the same, for a later one; [`Uplink::unrouted`] says what must be denied meanwhile.
//!
//! A table whose link is gone is a leftover: a killed sandbox's network namespace takes the link along. Links are made before
//! their table and deleted before it, so nobody mistakes one in the making.

mod addresses;
mod error;
mod firewall;
mod follow;
mod forwarding;
mod id;
mod nft;
mod remove;
mod ruleset;
#[cfg(test)]
mod tests;
mod ways;

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;

use self::{
    follow::Sight,
    nft::Nft,
    remove::{lock, remove_locked},
};
use crate::{LinkError, Netns, link};

pub use addresses::{NET_V4, NET_V6, without};
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
    ends: Vec<End>,
    current: Mutex<Current>,
}

/// What changes of it.
#[derive(Debug)]
struct Current {
    /// What it is set up for.
    sight: Sight,
    removed: bool,
}

/// One IP version of the pair.
#[derive(Debug, Clone, Copy)]
struct End {
    outside: IpNet,
    inside: IpNet,
}

impl Uplink {
    /// Makes the pair, both ends down, the inner one without address. IPv6 is left out where this host cannot forward it for single
    /// links at the moment. Whatever fails, nothing stays.
    ///
    /// # Errors
    /// Says what is missing, and the remedy.
    pub fn create(config: UplinkConfig) -> Result<Self, UplinkError> {
        let nft = Nft::find()?;
        let _lock = lock(&config.lock)?;
        remove_locked(&config.underlay, config.id, &nft)?;
        let taken: Vec<IpAddr> = link::addresses(&config.underlay)?.into_iter().map(|(_, ip)| ip).collect();
        let routes = link::routes(&config.underlay)?;
        let pair = addresses::allocate(config.id.number(), &taken, &routes, &config.overlay)
            .ok_or(UplinkError::NoAddress)?;
        let sight = Sight::of(&config, &routes)?;
        let mut ends: Vec<End> = pair
            .outside()
            .into_iter()
            .zip(pair.inside())
            .map(|(outside, inside)| End { outside, inside })
            .collect();
        ends.retain(|end| end.inside.addr().is_ipv4() || sight.has_ipv6());
        let mtu = sight.mtu();
        let current = Mutex::new(Current { sight, removed: false });
        let uplink = Self { config, nft, ends, current };
        let made = uplink.make_pair(mtu);
        if made.is_err() {
            // Here, because the lock is held.
            uplink.current().removed = true;
            let _ = uplink.remove_locked();
        }
        made.map(|()| uplink)
    }

    fn make_pair(&self, mtu: u16) -> Result<(), UplinkError> {
        let UplinkConfig { id, underlay, inside, .. } = &self.config;
        let outside = id.link();
        link::add_veth(underlay, &outside, inside, INSIDE)?;
        for (netns, name) in [(underlay, outside.as_str()), (inside, INSIDE)] {
            link::set_no_link_local(netns, name)?;
            link::set_no_arp(netns, name)?;
            link::set_mtu(netns, name, mtu)?;
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
        self.current().sight.mtu()
    }

    /// Whether something of `target` can be reached by it at the moment, as far as the underlay's routes tell.
    pub fn leads_to(&self, target: &IpNet) -> bool {
        self.current().sight.leads_to(target)
    }

    /// What of the targets the underlay has no route to at the moment, or does not forward to, in some hundred networks at most: what is
    /// beyond is refused by its kernel alone.
    pub fn unrouted(&self) -> Vec<IpNet> {
        self.current().sight.unrouted(&self.config)
    }

    /// Whether it is the way out for the IP version of `address`.
    pub fn carries(&self, address: IpAddr) -> bool {
        self.ends.iter().any(|end| end.inside.addr().is_ipv4() == address.is_ipv4())
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens it: rules, forwarding, addresses, both ends up, default routes. The inner end must be policed by now.
    ///
    /// # Errors
    /// What was refused, and the remedy. The uplink is then to be dropped.
    pub fn open(&self) -> Result<(), UplinkError> {
        let UplinkConfig { id, underlay, inside, lock: path, .. } = &self.config;
        let outside = id.link();
        {
            let current = self.current();
            let _lock = lock(path)?;
            self.open_underlay(&current.sight)?;
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

    /// The rules of others that may drop what this uplink forwards.
    ///
    /// # Errors
    /// When nft does not answer.
    pub fn objections(&self) -> Result<Vec<Objection>, UplinkError> {
        let listing =
            self.nft.ask(&self.config.underlay, &["list", "ruleset"], "list the rules of others")?;
        Ok(firewall::objections(&listing, self.current().sight.versions()))
    }

    /// Removes all of it, and restores the forwarding of links that no other uplink needs.
    ///
    /// # Errors
    /// What could not be removed; [`remove`] can try again.
    pub fn close(&self) -> Result<(), UplinkError> {
        self.current().removed = true;
        let _lock = lock(&self.config.lock)?;
        self.remove_locked()
    }

    fn remove_locked(&self) -> Result<(), UplinkError> {
        remove_locked(&self.config.underlay, self.config.id, &self.nft)
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        if !self.current().removed {
            let removed = lock(&self.config.lock).and_then(|_lock| self.remove_locked());
            if let Err(error) = removed {
                tracing::warn!(%error, link = self.config.id.link(), "could not remove an uplink");
            }
        }
    }
}
