//! What a running sandbox says of its policy.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use lattice_dns::{Counters, Resolver, Why};
use lattice_policy::{Counter, RuleId, builtin};
use serde::{Deserialize, Serialize};

use super::{
    overlay::{OverlayReport, OverlaySources},
    rules::{self, RuleCount, RuleReport},
};
use crate::{
    Failure,
    clock::{nanos, since_boot},
    enforce::{self, Shared},
    live::Live,
};

/// The policy in force, and what it did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What enforces it, and its class.
    pub enforcement: String,
    /// As flow records name it.
    pub generation: u32,
    /// The layers of the control plane that the flags are narrowed by.
    pub layers: Vec<String>,
    /// Its rules, then the built-in ones that decided about something.
    pub rules: Vec<RuleReport>,
    /// What no rule named, and so was denied.
    pub default: RuleCount,
    /// Verdicts that were enforced but could not be put on record.
    pub lost: u64,
    /// What names open at the moment, by address.
    #[serde(default)]
    pub names: Vec<NameReport>,
    /// What the resolver did since the start.
    #[serde(default)]
    pub resolver: ResolverReport,
    /// The peers and the paths to them.
    #[serde(default)]
    pub overlay: OverlayReport,
    /// What the proxy did since the start, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<lattice_proxy::Counters>,
    /// For how long nothing was heard from the control plane, which is asked every 15 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_seconds: Option<u64>,
}

/// An address that the agent was told for a name, and that is open for the name's rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameReport {
    /// The name.
    pub name: String,
    /// The address.
    pub address: IpAddr,
    /// How much longer, unless the agent asks again.
    pub seconds: u64,
}

/// The resolver's counters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolverReport {
    /// Messages of the agent.
    pub queries: u64,
    /// Answered without a nameserver: names of the overlay, localhost.
    pub local: u64,
    /// Answered from memory.
    pub cached: u64,
    /// Asked of nameservers.
    pub forwarded: u64,
    /// Attempts that no nameserver answered in time.
    pub timeouts: u64,
    /// Answers that were not to the question: somebody may be guessing.
    pub wrong: u64,
    /// Questions that no nameserver had an answer to.
    pub failed: u64,
    /// Messages of the agent that cannot be read.
    pub malformed: u64,
    /// Refused, by reason; reasons that never came up are left out.
    pub refused: BTreeMap<String, u64>,
}

/// What a report is made of.
pub(crate) struct Sources {
    /// What enforces the policy, in words. The fence at the calls comes with the agent.
    pub(crate) words: Arc<Mutex<String>>,
    pub(crate) live: Arc<Mutex<Live>>,
    pub(crate) enforcer: Shared,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) overlay: OverlaySources,
}

impl Sources {
    /// How things are now.
    pub(crate) fn report(&self) -> Result<Report, Failure> {
        let overlay = self.overlay.report()?;
        // First the policy, then its enforcer, as everywhere; both at once, so that the ids are those of this policy.
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let enforcer = enforce::lock(&self.enforcer);
        // The resolver and every change of the policy wait meanwhile, so each rule is looked up, not searched for.
        let counters: HashMap<RuleId, Counter> = enforcer.counters()?.into_iter().collect();
        let now = nanos(since_boot());
        let count = |id: RuleId| {
            let Counter { packets, bytes } = counters.get(&id).copied().unwrap_or_default();
            RuleCount { packets, bytes }
        };
        let policy = live.policy();
        let built_in = builtin::rules().iter().filter(|rule| count(rule.id).packets > 0);
        Ok(Report {
            enforcement: self.words.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            generation: policy.generation,
            layers: live.layers().to_vec(),
            rules: rules::summed(policy.rules().iter().chain(built_in), count),
            default: count(RuleId::NONE),
            lost: enforcer.lost()?,
            names: live
                .pinned()
                .map(|(name, address, end)| NameReport {
                    name: name.to_owned(),
                    address,
                    seconds: end.saturating_sub(now) / 1_000_000_000,
                })
                .collect(),
            resolver: counted(&self.resolver.counters()),
            overlay,
            proxy: None,
            heard_seconds: Some(self.overlay.heard.ago().as_secs()),
        })
    }
}

fn counted(counters: &Counters) -> ResolverReport {
    let refused = Why::ALL.map(|why| (why.as_str().to_owned(), counters.refused(why)));
    ResolverReport {
        queries: counters.queries,
        local: counters.local,
        cached: counters.cached,
        forwarded: counters.forwarded,
        timeouts: counters.upstream_timeouts,
        wrong: counters.upstream_wrong,
        failed: counters.failed,
        malformed: counters.malformed,
        refused: refused.into_iter().filter(|(_, count)| *count > 0).collect(),
    }
}
