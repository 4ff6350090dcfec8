//! nftables: a table in the agent's namespace, which ends with the namespace.

use std::sync::{Arc, Mutex};

use lattice_audit::Class;
use lattice_nftables::{Enter, Events, NftError, Nftables, Options};
use lattice_overlay::Netns;
use lattice_policy::{Counter, Flow, Pin, Policy, RuleId, Table};

use super::{Enforce, Place, PolicedLink, Started, Verdicts, failed};
use crate::{Failure, Kind, failure::chain};

pub(super) fn probe() -> Result<(), Failure> {
    lattice_nftables::probe().map_err(|error| failure(&error))
}

/// Makes a table that denies everything, on links that are and links that come.
pub(super) fn start(place: Place) -> Result<Started, Failure> {
    let tied = place.links.into_iter().flat_map(|link| {
        let PolicedLink { name, own } = link;
        own.into_iter().map(move |address| (name.clone(), address))
    });
    // A namespace of ours ends with its last process: until then nothing may pass, whoever is still in it. One that is not ours is
    // left as it was found.
    let is_ours = place.confined.is_none();
    let netns = place.netns;
    let options = Options {
        enter: enter(netns.clone()),
        own: Vec::new(),
        tied: tied.collect(),
        confined: place.confined.map(|(net, link)| (net, link.to_owned())),
        table: Options::TABLE.into(),
        log_group: Options::LOG_GROUP,
    };
    let load = || {
        let mut nftables = Nftables::load(&options)?;
        let verdicts = Box::new(nftables.events()?);
        Ok((nftables, verdicts))
    };
    let (nftables, verdicts) = load().map_err(|error: NftError| {
        if !is_ours {
            let _ = remove(netns.clone());
        }
        failure(&error)
    })?;
    Ok(Started {
        enforcer: Arc::new(Mutex::new(nftables)),
        verdicts,
        class: Class::Kernel,
        words: "nftables (kernel)".into(),
        undo: if is_ours { crate::steps::nothing() } else { Box::new(move || remove(netns)) },
    })
}

/// Takes the policy away from a namespace.
pub(crate) fn remove(netns: Arc<Netns>) -> Result<(), String> {
    lattice_nftables::remove(enter(netns), Options::TABLE).map_err(|error| chain(&error))
}

fn enter(netns: Arc<Netns>) -> Enter {
    Arc::new(move |work| netns.run(work))
}

fn failure(error: &NftError) -> Failure {
    let kind = match error {
        NftError::NotPermitted { .. } => Kind::Privilege,
        NftError::NoNft => Kind::Program,
        _ => Kind::Kernel,
    };
    Failure::new(kind, chain(error))
}

impl Enforce for Nftables {
    fn apply(&mut self, policy: &Policy, table: &Table, pins: &[Pin]) -> Result<(), Failure> {
        Nftables::apply(self, table, pins, policy.generation).map_err(|error| failed(&error))
    }

    fn pin(&mut self, pins: &[Pin]) -> Result<(), Failure> {
        Nftables::pin(self, pins).map_err(|error| failed(&error))
    }

    /// The table is for every link but loopback.
    fn police(&mut self, _link: &str) -> Result<(), Failure> {
        Ok(())
    }

    fn lost(&self) -> Result<u64, Failure> {
        Ok(Nftables::lost(self))
    }

    fn counters(&self) -> Result<Vec<(RuleId, Counter)>, Failure> {
        Nftables::counters(self).map_err(|error| failed(&error))
    }
}

impl Verdicts for Events {
    fn drain(&mut self, f: &mut dyn FnMut(Flow)) -> bool {
        Events::drain(self, f) == Self::BATCH
    }
}
