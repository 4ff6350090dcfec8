//! What an uplink takes of the underlay's links and routes, and how it keeps up with them.
//!
//! Masquerading chooses the address of the link that a packet leaves by, and forgets a connection that would leave by another one
//! (`nf_nat_oif_changed`): what must follow a host that moves are the links that forward because of us, and the MTU.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    INSIDE, Uplink, UplinkConfig, UplinkError,
    addresses::without,
    forwarding::{self, Ipv6, Version},
    remove::{listed, lock},
    ruleset::{self, Opened, Rules},
    ways::{Ways, ways},
};
use crate::link::{self, Route};

/// Bytes of a packet while no route says how many.
const MTU: u16 = 1500;

/// Most networks that are told one by one to be without a route.
const MOST: usize = 128;

/// What is seen of the underlay at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sight {
    v4: Ways,
    v6: Ways,
    ipv6: Ipv6,
}

// === impl Sight ===

impl Sight {
    pub(super) fn of(config: &UplinkConfig, routes: &[Route]) -> Result<Self, UplinkError> {
        let links = link::links(&config.underlay)?;
        let to = |every: IpNet| ways(&every, &config.targets, &config.overlay, routes, &links);
        let ipv6 = forwarding::ipv6(&config.underlay)?;
        let v6 = match ipv6 {
            Ipv6::No => Ways::default(),
            Ipv6::All | Ipv6::PerLink => to(Ipv6Net::default().into()),
        };
        Ok(Self { v4: to(Ipv4Net::default().into()), v6, ipv6 })
    }

    /// Whether the host can forward IPv6 for us.
    pub(super) fn has_ipv6(&self) -> bool {
        self.ipv6 != Ipv6::No
    }

    pub(super) fn mtu(&self) -> u16 {
        [self.v4.mtu, self.v6.mtu].into_iter().flatten().min().unwrap_or(MTU)
    }

    /// Whether packets of IPv4 and of IPv6 are forwarded.
    pub(super) fn versions(&self) -> (bool, bool) {
        (!self.v4.links.is_empty(), !self.v6.links.is_empty())
    }

    pub(super) fn leads_to(&self, target: &IpNet) -> bool {
        self.v4.lead_to(target) || self.v6.lead_to(target)
    }

    /// The networks among the targets of `config` that no way leads to. Where these are many, whole IP versions are looked at: then
    /// what no rule names is among them, too.
    pub(super) fn unrouted(&self, config: &UplinkConfig) -> Vec<IpNet> {
        let led: Vec<IpNet> = config.overlay.iter().chain(&self.v4.to).chain(&self.v6.to).copied().collect();
        let rest = |nets: &[IpNet]| {
            let mut out = Vec::new();
            for net in nets {
                without(*net, &led, MOST, &mut out);
            }
            out
        };
        let targets = IpNet::aggregate(&config.targets);
        let exactly = rest(&targets);
        if exactly.len() <= MOST {
            return exactly;
        }
        let mut every = vec![IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        every.retain(|every| targets.iter().any(|target| every.contains(target)));
        let mut all = rest(&every);
        all.truncate(MOST);
        all
    }

    /// Links that must forward, each with the version. IPv6 as a whole is not ours to turn on.
    fn forwarding(&self) -> impl Iterator<Item = (Version, &String)> {
        let v6 = self.v6.links.iter().filter(|_| self.ipv6 == Ipv6::PerLink);
        self.v4.links.iter().map(|link| (Version::V4, link)).chain(v6.map(|link| (Version::V6, link)))
    }
}

// === impl Uplink ===

impl Uplink {
    /// Has an open uplink follow the underlay's links and routes; nothing is done where all is as it was.
    ///
    /// # Errors
    /// What was refused, and the remedy. It then stays as it was.
    pub fn follow(&self) -> Result<(), UplinkError> {
        let UplinkConfig { id, underlay, inside, lock: path, .. } = &self.config;
        let mut sight = Sight::of(&self.config, &link::routes(underlay)?)?;
        if !self.ends.iter().any(|end| end.inside.addr().is_ipv6()) {
            (sight.v6, sight.ipv6) = (Ways::default(), Ipv6::No);
        }
        let mut current = self.current();
        if current.removed {
            return Ok(());
        }
        // A link that went and came back forwards no more.
        let mut all_forward = true;
        for (version, link) in sight.forwarding() {
            all_forward &= forwarding::is_on(underlay, version, link)?;
        }
        if all_forward && current.sight == sight {
            return Ok(());
        }
        let mtu = sight.mtu();
        if current.sight.mtu() != mtu {
            link::set_mtu(underlay, &id.link(), mtu)?;
            link::set_mtu(inside, INSIDE, mtu)?;
        }
        let _lock = lock(path)?;
        self.open_underlay(&sight)?;
        tracing::info!(uplink = id.link(), v4 = ?sight.v4.links, v6 = ?sight.v6.links, mtu, "the way out follows this host");
        current.sight = sight;
        Ok(())
    }

    /// The rules first: at no time does a link forward without them.
    pub(super) fn open_underlay(&self, sight: &Sight) -> Result<(), UplinkError> {
        let UplinkConfig { id, owner, underlay, .. } = &self.config;
        let mut others = listed(underlay, &self.nft)?;
        let mut opened = Opened::default();
        for (version, link) in sight.forwarding() {
            let already = others.values().any(|other| other.of(version).contains(link));
            if already || !forwarding::is_on(underlay, version, link)? {
                opened.of_mut(version).push(link.clone());
            }
        }
        self.can_open(&opened)?;
        let before = others.remove(id).unwrap_or_default();
        for version in [Version::V4, Version::V6] {
            let needed = |link: &String| others.values().any(|other| other.of(version).contains(link));
            let kept = opened.of(version);
            for link in before.of(version).iter().filter(|link| !kept.contains(link) && !needed(link)) {
                forwarding::set(underlay, version, link, false)?;
            }
        }
        let inside: Vec<IpNet> = self.ends.iter().map(|end| end.inside).collect();
        let rules = Rules { id: *id, inside: &inside, opened: &opened, owner };
        self.nft.apply(underlay, &rules.text(), "make the rules of an uplink")?;
        forwarding::set(underlay, Version::V4, &id.link(), true)?;
        if sight.ipv6 == Ipv6::PerLink {
            forwarding::set(underlay, Version::V6, &id.link(), true)?;
        }
        for version in [Version::V4, Version::V6] {
            for link in opened.of(version) {
                forwarding::set(underlay, version, link, true)?;
            }
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
}
