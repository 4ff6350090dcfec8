//! nftables: a table in the agent's namespace, which ends with the namespace. It takes every own address on every link: a
//! source that is another link's passes here, and is dropped without an answer by the uplink's own rules.

use std::sync::{Arc, Mutex};

use lattice_audit::Class;
use lattice_nftables::{Events, NftError, Nftables, Options};
use lattice_policy::{Counter, Flow, Pin, Policy, RuleId, Table};

use super::{Enforce, Place, Started, Verdicts, failed};
use crate::{Failure, Kind, failure::chain};

pub(super) fn probe() -> Result<(), Failure> {
    lattice_nftables::probe().map_err(|error| failure(&error))
}

/// Makes a table that denies everything, on links that are and links that come.
pub(super) fn start(place: Place) -> Result<Started, Failure> {
    let netns = place.netns;
    let options = Options {
        enter: Arc::new(move |work| netns.run(work)),
        own: place.links.into_iter().flat_map(|link| link.own).collect(),
        table: Options::TABLE.into(),
        log_group: Options::LOG_GROUP,
    };
    let mut nftables = Nftables::load(&options).map_err(|error| failure(&error))?;
    let verdicts = Box::new(nftables.events().map_err(|error| failure(&error))?);
    Ok(Started {
        enforcer: Arc::new(Mutex::new(nftables)),
        verdicts,
        class: Class::Kernel,
        words: "nftables (kernel)".into(),
        // The table is not removed: until the namespace ends nothing may pass, whoever is still in it.
        undo: crate::steps::nothing(),
    })
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
