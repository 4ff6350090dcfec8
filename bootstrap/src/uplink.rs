//! The steps that give an agent a way out of the overlay, where a rule needs one.
//!
//! `veth` makes the link, down, before the policy is attached to it; `uplink` opens it once the policy is in force. Its undo
//! comes before the policy's: at no time is it open without one. Which rules hold in the underlay says
//! [`lattice_overlay::uplink`].
//!
//! A file in the sandbox's state directory says that there may be something in the underlay, from before it is made until after
//! it is removed. What a killed run left is found by it.

mod unreachable;

use std::{fs, io, net::IpAddr, path::PathBuf, sync::Arc};

use ipnet::IpNet;
use lattice_overlay::{LinkError, Netns, Uplink, UplinkConfig, UplinkError, UplinkId, uplink};
use lattice_policy::{Overlay, RuleSpec};
use lattice_wire::PeerName;
use sha2::{Digest as _, Sha256};

use crate::{
    Failure, Kind, StateDir, Steps,
    destinations::{in_no_overlay, is_outside, targets},
    failure::{chain, kernel},
    steps::nothing,
};

pub(crate) use unreachable::Unreachable;

/// Finds out before a token is spent whether this host lacks what `rules` take.
///
/// # Errors
/// [`Kind::Program`] when a rule names something that is in no overlay, and nft is missing.
pub fn check(rules: &[RuleSpec]) -> Result<(), Failure> {
    match in_no_overlay(rules) {
        None => Ok(()),
        Some(rule) => found().map(drop).map_err(|failure| {
            Failure::new(failure.kind, format!("--egress-allow {}: {}", rule.text, failure.message))
        }),
    }
}

/// Where the program is that uplinks take; for `lattice doctor`.
///
/// # Errors
/// [`Kind::Program`], with the remedy.
pub fn found() -> Result<PathBuf, Failure> {
    uplink::available().map_err(failure)
}

/// An agent's way out, if it has one. Dropping it closes it.
#[derive(Default)]
pub(crate) struct WayOut(Option<Made>);

struct Made {
    uplink: Arc<Uplink>,
    mark: PathBuf,
    closed: bool,
}

impl WayOut {
    /// Makes it where a rule needs it, still down.
    pub(crate) fn make(
        steps: &mut Steps<'_>,
        egress: &[RuleSpec],
        name: &PeerName,
        overlay: &Overlay,
        underlay: &Arc<Netns>,
        inside: &Arc<Netns>,
        state: &StateDir,
    ) -> Result<Self, Failure> {
        let outside: Vec<&RuleSpec> = egress.iter().filter(|rule| is_outside(rule, overlay)).collect();
        if outside.is_empty() {
            return Ok(Self(None));
        }
        let made = steps.run("veth", || {
            found()?;
            let mark = state.uplink();
            let id = id(state)?;
            let targets = outside.iter().flat_map(|rule| targets(rule)).collect();
            fs::write(&mark, format!("{}\n", id.table())).map_err(|error| unwritten(&mark, &error))?;
            let made = Uplink::create(UplinkConfig {
                id,
                owner: format!("sandbox {}", name),
                underlay: underlay.clone(),
                inside: inside.clone(),
                targets,
                overlay: overlay.nets(),
                lock: state.uplink_lock(),
            });
            let uplink = made.map_err(|error| {
                // Nothing was made.
                let _ = fs::remove_file(&mark);
                failure(error)
            })?;
            let detail = format!("{} to {}, down, mtu {}", uplink::INSIDE, uplink.outside(), uplink.mtu());
            // Its undo is that of the next step, or comes with the value's end.
            Ok((Made { uplink: Arc::new(uplink), mark, closed: false }, nothing(), detail))
        })?;
        for rule in outside {
            let nets = targets(rule);
            if let (false, Some(net)) = (nets.iter().any(|net| made.uplink.leads_to(net)), nets.first()) {
                steps.warn(&unreachable(rule, net));
            }
        }
        Ok(Self(Some(made)))
    }

    fn uplink(&self) -> Option<&Arc<Uplink>> {
        self.0.as_ref().map(|made| &made.uplink)
    }

    /// The agent's link, which must be policed like every other.
    pub(crate) fn link(&self) -> Option<&'static str> {
        self.uplink().map(|_| uplink::INSIDE)
    }

    /// The agent's addresses on it.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.uplink().map(|uplink| uplink.addresses()).unwrap_or_default()
    }

    /// Where it leads nobody; nothing when there is none.
    pub(crate) fn unreachable(&self, underlay: &Arc<Netns>, overlay: &Overlay) -> Option<Unreachable> {
        self.uplink().map(|uplink| Unreachable::new(underlay.clone(), *overlay, uplink.clone()))
    }

    /// Whether the default route of the IP version of `address` leads to it.
    pub(crate) fn carries(&self, address: IpAddr) -> bool {
        self.uplink().is_some_and(|uplink| uplink.carries(address))
    }

    /// Opens it.
    pub(crate) fn open(self, steps: &mut Steps<'_>) -> Result<(), Failure> {
        let Some(made) = self.0 else { return Ok(()) };
        let objections = steps.run("uplink", || {
            let uplink = &made.uplink;
            uplink.open().map_err(failure)?;
            let objections = uplink.objections().map_err(failure)?;
            let own: Vec<String> = uplink.addresses().iter().map(IpAddr::to_string).collect();
            let detail = format!("{} behind NAT by {}", own.join(", "), uplink.outside());
            Ok((objections, Box::new(move || made.close()) as _, detail))
        })?;
        for objection in objections {
            steps.warn(&format!(
                "a firewall of this host may drop what goes outside the overlay (nft list chain {}); to allow it: {}",
                objection.chain, objection.remedy
            ));
        }
        Ok(())
    }
}

impl Made {
    fn close(mut self) -> Result<(), String> {
        self.close_once()
    }

    fn close_once(&mut self) -> Result<(), String> {
        self.closed = true;
        self.uplink.close().map_err(|error| chain(&error))?;
        match fs::remove_file(&self.mark) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(unwritten(&self.mark, &error).message)
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if !self.closed
            && let Err(error) = self.close_once()
        {
            tracing::warn!(%error, "could not close the way out");
        }
    }
}

/// Removes what a killed run of this name left in the underlay.
///
/// # Errors
/// What could not be removed.
pub(crate) fn clear(state: &StateDir) -> Result<(), Failure> {
    let mark = state.uplink();
    if !mark.exists() {
        return Ok(());
    }
    let underlay = Netns::current().map_err(|error| kernel("cannot open this network namespace", &error))?;
    uplink::remove(&underlay, id(state)?, &state.uplink_lock()).map_err(failure)?;
    fs::remove_file(&mark).map_err(|error| unwritten(&mark, &error))
}

/// The same for every start in a state directory, another in every other on this host.
fn id(state: &StateDir) -> Result<UplinkId, Failure> {
    let number = state.number().map_err(|error| {
        Failure::new(Kind::Internal, format!("cannot look at the state directory: {error}"))
    })?;
    let [a, b, c, d, ..] = *Sha256::digest(number).first_chunk::<4>().unwrap_or(&[0; 4]);
    Ok(UplinkId::new(u32::from_be_bytes([a, b, c, d])))
}

fn unwritten(mark: &std::path::Path, error: &io::Error) -> Failure {
    Failure::new(Kind::Internal, format!("cannot change {}: {error}", mark.display()))
}

fn unreachable(rule: &RuleSpec, net: &IpNet) -> String {
    let why = match net {
        IpNet::V4(_) => "this host has no route to it",
        IpNet::V6(_) => {
            "this host has no route to it, or does not forward IPv6 (Linux 6.17, or sysctl net.ipv6.conf.all.forwarding=1)"
        }
    };
    format!("--egress-allow {}: {why}, so it is refused until there is one", rule.text)
}

fn failure(error: UplinkError) -> Failure {
    let kind = match &error {
        UplinkError::NoNft | UplinkError::Run { .. } | UplinkError::Nft { .. } => Kind::Program,
        UplinkError::Sysctl { .. } | UplinkError::OddName(_) | UplinkError::Bridge(_) => Kind::Kernel,
        UplinkError::NoAddress => Kind::Taken,
        UplinkError::Lock { .. } => Kind::Internal,
        UplinkError::Link(LinkError::Namespace(_)) => Kind::Privilege,
        UplinkError::Link(_) => Kind::Kernel,
    };
    Failure::new(kind, format!("no way out of the overlay: {}", chain(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_by_directory_and_stay() {
        let root = tempfile::tempdir().unwrap();
        let claim =
            |name: &str| StateDir::claim(root.path(), crate::Role::Sandbox, &name.parse().unwrap()).unwrap();
        let (a, b) = (claim("a"), claim("b"));
        assert_ne!(id(&a).unwrap(), id(&b).unwrap());
        assert_eq!(a.uplink_lock(), root.path().join("uplink.lock"));
        let before = id(&a).unwrap();
        fs::write(a.uplink(), "x").unwrap();
        drop(a);
        let again = claim("a");
        assert!(again.has_leftovers());
        assert_eq!(id(&again).unwrap(), before);
        fs::remove_file(again.uplink()).unwrap();
    }
}
