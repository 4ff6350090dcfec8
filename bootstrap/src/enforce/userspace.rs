//! User space: the WireGuard device judges the packets of its link. There must be no other link.

use std::sync::{Arc, Mutex};

use lattice_audit::Class;
use lattice_overlay::{FilterEvents, UserFilter};
use lattice_policy::{Counter, Flow, Pin, Policy, RuleId, RuleSpec, Table};

use super::{Enforce, Place, Started, Verdicts, failed};
use crate::{Failure, Kind};

pub(super) fn start(place: Place) -> Result<Started, Failure> {
    let filter = place.filter.ok_or_else(|| Failure::new(Kind::Internal, "the device has no filter"))?;
    if let [_, other, ..] = &place.links[..] {
        return Err(refused(&other.name));
    }
    on(filter, Class::Netns, "userspace (netns)")
}

/// On a device that has a filter. How far the agent can avoid it is for `class` to say.
pub(super) fn on(filter: UserFilter, class: Class, words: &str) -> Result<Started, Failure> {
    let verdicts = Box::new(filter.events().map_err(|error| failed(&error))?);
    Ok(Started {
        enforcer: Arc::new(Mutex::new(filter)),
        verdicts,
        class,
        words: words.into(),
        undo: crate::steps::nothing(),
    })
}

fn refused(link: &str) -> Failure {
    Failure::new(Kind::Kernel, format!("{ONLY}, not {link}: {REMEDY}"))
}

/// A rule that takes another link.
pub(super) fn outside(rule: &RuleSpec) -> Failure {
    Failure::new(Kind::Kernel, format!("--egress-allow {}: {ONLY}: {REMEDY}", rule.text))
}

const ONLY: &str = "the user-space filter polices the overlay's link only";
const REMEDY: &str = "rules for names and addresses outside the overlay take --enforcer ebpf or nftables";

impl Enforce for UserFilter {
    fn apply(&mut self, policy: &Policy, table: &Table, pins: &[Pin]) -> Result<(), Failure> {
        UserFilter::apply(self, table, pins, policy.generation).map_err(|error| failed(&error))
    }

    fn pin(&mut self, pins: &[Pin]) -> Result<(), Failure> {
        UserFilter::pin(self, pins).map_err(|error| failed(&error))
    }

    fn police(&mut self, link: &str) -> Result<(), Failure> {
        Err(refused(link))
    }

    fn lost(&self) -> Result<u64, Failure> {
        Ok(UserFilter::lost(self))
    }

    fn counters(&self) -> Result<Vec<(RuleId, Counter)>, Failure> {
        UserFilter::counters(self).map_err(|error| failed(&error))
    }
}

impl Verdicts for FilterEvents {
    fn drain(&mut self, f: &mut dyn FnMut(Flow)) -> bool {
        FilterEvents::drain(self, f) == Self::BATCH
    }
}
