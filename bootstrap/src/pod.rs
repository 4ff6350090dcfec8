//! Phase one in a pod: the agent's namespace is one that a CNI plugin has made, with links, addresses and default routes.
//!
//! Its links stay the way out of the overlay, and each is policed with its own addresses. `wg0` joins them for the overlay's pool,
//! whose packets pass no other link, in or out: not when `wg0` is gone, not by a socket that is bound to `eth0`, and not with a source
//! that a neighbour made up. The user-space filter cannot do this. There is no uplink, and the node gets no rules of ours.
//!
//! That `wg0` was made is noted in the state directory, because the namespace may outlive us.

use std::{
    fs, io,
    net::IpAddr,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;
use lattice_overlay::{Netns, link};
use lattice_policy::{Overlay, PrivateNames, Proto, RuleSpec};
use serde::{Deserialize, Serialize};

use crate::{
    Failure, Kind, StateDir, Steps,
    enforce::{self, Enforcer, PolicedLink},
    sandbox::{LINK, kernel},
    source::source_to,
    steps::drops,
};

/// A namespace that somebody else has made and wired, and what the node says of the pod in it.
#[derive(Debug, Clone)]
pub struct Pod {
    /// The namespace: the path that the OCI spec gives.
    pub netns: PathBuf,
    /// The resolv.conf(5) that names whom our resolver asks, from the caller's namespace.
    pub resolv_conf: PathBuf,
    /// The agent's search list: domains in lower case, without a dot at the end.
    pub search: Vec<String>,
    /// The most that the agent's own rules may come to.
    pub most: Vec<RuleSpec>,
    /// Whether the node may open TCP connections to the pod, as kubelet does to probe it.
    pub probes: bool,
    /// Names that may open private addresses: those of the cluster's services.
    pub private: PrivateNames,
}

/// The namespace as it was found.
pub(crate) struct Entered<'a> {
    pod: &'a Pod,
    inside: Arc<Netns>,
    links: Vec<PolicedLink>,
    /// Where unicast routes lead, and the addresses.
    taken: Vec<IpNet>,
    enforcer: Enforcer,
}

/// What was made in a pod's namespace.
#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    netns: PathBuf,
    /// Device and inode: the path may be another namespace's by now.
    id: (u64, u64),
    /// The index of `wg0`.
    link: u32,
    /// Whether the policy is a table of nftables there.
    #[serde(default)]
    table: bool,
}

impl<'a> Entered<'a> {
    /// Looks at the namespace, and changes nothing.
    pub(crate) fn open(pod: &'a Pod, enforcer: Enforcer) -> Result<Self, Failure> {
        let shown = pod.netns.display();
        let inside = Netns::open(&pod.netns).map_err(|error| {
            Failure::new(
                Kind::Input,
                format!("netns: cannot open the pod's network namespace {shown}: {error}"),
            )
        })?;
        if is_of_the_host(&inside) {
            let text = format!(
                "netns: {shown} is the node's own network namespace: a pod with hostNetwork cannot be policed; give it a network of its own"
            );
            return Err(Failure::new(Kind::Input, text));
        }
        let list = || -> Result<_, link::LinkError> {
            Ok((link::links(&inside)?, link::addresses(&inside)?, link::routes(&inside)?))
        };
        let (links, addresses, routes) =
            list().map_err(|error| kernel("netns: cannot look into the pod's network namespace", &error))?;
        let links: Vec<PolicedLink> = links
            .into_iter()
            .filter(|link| !link.loopback)
            .map(|link| PolicedLink { own: own(&link.name, &addresses), name: link.name })
            .collect();
        if links.iter().any(|link| link.name == LINK) {
            let text = format!(
                "netns: {shown} holds a link {LINK} already: another sandbox runs in it, or was killed there"
            );
            return Err(Failure::new(Kind::Taken, text));
        }
        if enforcer == Enforcer::Userspace {
            let text = "policy: the user-space filter is for an agent's only link, and a pod has others: eBPF or nftables must be permitted here; `lattice doctor` says what they lack";
            return Err(Failure::new(Kind::Kernel, text));
        }
        let addresses = addresses.iter().map(|(_, address)| IpNet::from(*address));
        let taken = routes.iter().map(|route| route.destination).chain(addresses).collect();
        Ok(Self { pod, inside: Arc::new(inside), links, taken, enforcer })
    }

    /// The namespace.
    pub(crate) fn inside(&self) -> Arc<Netns> {
        self.inside.clone()
    }

    /// The step `netns`: all but WireGuard's link stands when it is done.
    pub(crate) fn step(&self, steps: &mut Steps<'_>, overlay: &Overlay) -> Result<(), Failure> {
        steps.run("netns", || {
            self.leaves_to_us(overlay)?;
            link::set_up(&self.inside, "lo")
                .map_err(|error| kernel("cannot raise the pod's loopback", &error))?;
            let names: Vec<&str> = self.links.iter().map(|link| link.name.as_str()).collect();
            let detail = format!("{} with {}", self.pod.netns.display(), names.join(", "));
            Ok(((), drops(self.inside.clone()), detail))
        })
    }

    /// Notes that `wg0` is there, and what will police it.
    pub(crate) fn note_device(&self, state: &StateDir) -> Result<(), Failure> {
        let links =
            link::links(&self.inside).map_err(|error| kernel("cannot list the pod's links", &error))?;
        let Some(link) = links.iter().find(|link| link.name == LINK) else { return Ok(()) };
        let id = id(&self.inside).map_err(|error| kernel("cannot look at the pod's namespace", &error))?;
        let table = self.enforcer == Enforcer::Nftables;
        Mark { netns: self.pod.netns.clone(), id, link: link.index, table }.write(state)
    }

    /// The links that the CNI plugin made.
    pub(crate) fn links(&self) -> &[PolicedLink] {
        &self.links
    }

    /// Whether a default route of the IP version of `address` is there.
    pub(crate) fn carries(&self, address: IpAddr) -> bool {
        self.taken.iter().any(|net| net.prefix_len() == 0 && net.addr().is_ipv4() == address.is_ipv4())
    }

    /// Who may probe the pod: the addresses from which the node reaches it, by the node's own routes.
    pub(crate) fn probes(
        &self,
        steps: &mut Steps<'_>,
        underlay: &Netns,
        overlay: &Overlay,
    ) -> Result<Vec<RuleSpec>, Failure> {
        if !self.pod.probes {
            return Ok(Vec::new());
        }
        let own: Vec<IpAddr> = self.links.iter().flat_map(|link| link.own.iter().copied()).collect();
        let ask = || own.iter().filter_map(|own| source_to(*own).ok()).collect::<Vec<IpAddr>>();
        let mut from =
            underlay.run(ask).map_err(|error| kernel("cannot enter this network namespace", &error))?;
        from.sort_unstable();
        from.dedup();
        from.retain(|from| !from.is_loopback() && !own.contains(from));
        if from.iter().any(|from| overlay.contains(&IpNet::from(*from)))
            || (from.is_empty() && !own.is_empty())
        {
            steps.warn("this node has no address from which it could probe the pod: its probes will fail");
        }
        from.retain(|from| !overlay.contains(&IpNet::from(*from)));
        Ok(from.into_iter().map(|from| RuleSpec::new(Proto::Tcp, IpNet::from(from), Vec::new())).collect())
    }

    /// Refuses an overlay of which the pod's network has a part: what is meant for a peer would go to a pod, or the other way round.
    fn leaves_to_us(&self, overlay: &Overlay) -> Result<(), Failure> {
        let clash = |what: &str, net: &IpNet| {
            let remedy = match net {
                IpNet::V4(_) => "give latticed a --pool",
                IpNet::V6(_) => "take another workspace, with a prefix",
            };
            let text = format!(
                "the overlay ({}, {}) holds {net}, which belongs to {what}: {remedy} that this cluster does not use",
                overlay.pool(),
                overlay.prefix()
            );
            Failure::new(Kind::Input, text)
        };
        if let Some(net) = self.taken.iter().find(|net| overlay.contains(net)) {
            return Err(clash("the pod's own network", net));
        }
        let overlaps =
            |net: &&IpNet| overlay.contains(net) || overlay.nets().iter().any(|own| net.contains(own));
        match self.pod.private.nets().iter().find(overlaps) {
            Some(net) => Err(clash("the cluster's services", net)),
            None => Ok(()),
        }
    }
}

impl Mark {
    fn read(state: &StateDir) -> Result<Option<Self>, Failure> {
        let path = state.pod();
        match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).map(Some).map_err(|error| unusable(&path, &error.into()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unusable(&path, &error)),
        }
    }

    fn write(&self, state: &StateDir) -> Result<(), Failure> {
        let path = state.pod();
        let written =
            serde_json::to_vec(self).map_err(io::Error::from).and_then(|text| fs::write(&path, text));
        written.map_err(|error| unusable(&path, &error))
    }

    /// The namespace, if it still is the same.
    fn netns(&self) -> Option<Netns> {
        let netns = Netns::open(&self.netns).ok()?;
        (id(&netns).ok()? == self.id).then_some(netns)
    }
}

/// Removes `wg0`, and the policy if it is in nftables, from the pod's namespace: WireGuard's own link and tables outlive a killed owner.
pub(crate) fn clear(state: &StateDir) -> Result<(), Failure> {
    let Some(mark) = Mark::read(state)? else { return Ok(()) };
    if let Some(netns) = mark.netns() {
        let remove = || -> Result<(), link::LinkError> {
            let links = link::links(&netns)?;
            let is_ours = |link: &&link::Link| link.name == LINK && link.index == mark.link;
            links.iter().find(is_ours).map_or(Ok(()), |link| link::delete(&netns, &link.name))
        };
        remove().map_err(|error| kernel("cannot remove wg0 from the pod's namespace", &error))?;
        if mark.table {
            enforce::nftables::remove(Arc::new(netns)).map_err(|reason| {
                let text = format!("cannot remove the policy from the pod's namespace: {reason}");
                Failure::new(Kind::Kernel, text)
            })?;
        }
    }
    let path = state.pod();
    fs::remove_file(&path).map_err(|error| unusable(&path, &error))
}

fn unusable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        Kind::Internal,
        format!("cannot use {}: {error}; remove it when the pod is gone", path.display()),
    )
}

/// What a namespace is known by.
fn id(netns: &Netns) -> io::Result<(u64, u64)> {
    let meta = fs::File::from(netns.as_fd().try_clone_to_owned()?).metadata()?;
    Ok((meta.dev(), meta.ino()))
}

/// Also when it cannot be told.
fn is_of_the_host(netns: &Netns) -> bool {
    let of = |path: &str| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    match (id(netns), of("/proc/thread-self/ns/net")) {
        (Ok(theirs), Ok(ours)) => theirs == ours || of("/proc/1/ns/net").is_ok_and(|first| theirs == first),
        _ => true,
    }
}

/// The addresses by which the pod is known on that link. A link-local one serves neighbour discovery, which the policy lets pass by
/// itself.
fn own(link: &str, addresses: &[(String, IpAddr)]) -> Vec<IpAddr> {
    let is_wide = |address: &IpAddr| match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    };
    addresses.iter().filter(|(name, _)| name == link).map(|(_, own)| *own).filter(is_wide).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Role;

    /// Needs root. A veth pair stands in for WireGuard's link, which this kernel may not have.
    #[test]
    fn only_the_link_that_was_made_is_removed_from_the_namespace_that_it_was_made_in() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::claim(root.path(), Role::Sandbox, &"a".parse().unwrap()).unwrap();
        let (inside, other) = (Netns::create().unwrap(), Netns::create().unwrap());
        link::add_veth(&inside, LINK, &other, LINK).unwrap();
        let index = |netns: &Netns| {
            let links = link::links(netns).unwrap();
            links.iter().find(|link| link.name == LINK).map(|link| link.index)
        };
        let own = index(&inside).unwrap();
        let mark = |netns: &Netns, of: &Netns, link| {
            Mark { netns: netns.path(), id: id(of).unwrap(), link, table: false }.write(&state).unwrap();
            clear(&state).unwrap();
            assert!(!state.pod().exists());
        };
        mark(&inside, &inside, own + 1);
        mark(&inside, &other, own);
        assert_eq!(index(&inside), Some(own), "somebody else's");
        mark(&inside, &inside, own);
        assert_eq!(index(&inside), None);
        clear(&state).unwrap();
    }
}
