//! Phase one's step `policy`: from an enforcer at work to a policy in force whose verdicts are written down.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use lattice_audit::AuditFile;
use lattice_policy::{Local, Policy};
use lattice_wire::PeerName;

use crate::{
    Failure, Kind,
    enforce::{self, Shared, Started},
    failure::chain,
    generations::Generations,
    live::{Closed, Live},
    recorder::{Recorder, Teller},
    steps::Undo,
};

/// A policy in force.
pub(crate) struct Policed {
    pub(crate) enforcer: Shared,
    pub(crate) live: Arc<Mutex<Live>>,
    pub(crate) teller: Teller,
    /// The texts of rules, for whoever tells a verdict.
    pub(crate) generations: Generations,
    /// What enforces it, in words.
    pub(crate) words: String,
}

/// Puts the first policy in force and starts to record verdicts. The undo writes the last of them down, then takes the
/// policy away.
pub(crate) fn begin(
    started: Started,
    local: Local,
    policy: Arc<Policy>,
    closed: Closed,
    audit_file: &Path,
    agent: &PeerName,
) -> Result<(Policed, Undo, String), Failure> {
    let Started { enforcer, verdicts, class, words, undo } = started;
    let begin = || {
        enforce::lock(&enforcer).apply(&policy, &policy.compile(), &[])?;
        let generations = Generations::default();
        generations.add(policy.clone());
        let file = AuditFile::open(audit_file, agent.as_str(), class).map_err(|error| {
            Failure::new(Kind::Input, format!("{}; choose another --audit-file", chain(&error)))
        })?;
        let recorder = Recorder::start(enforcer.clone(), verdicts, generations.clone(), file)?;
        Ok((generations, recorder))
    };
    let (generations, recorder) = match begin() {
        Ok(begun) => begun,
        Err(failure) => {
            let _ = undo();
            return Err(failure);
        }
    };
    let detail = format!("{words}, {} rules, default deny", policy.rules().len());
    let live = Live::new(local, policy, generations.clone(), enforcer.clone(), closed);
    let live = Arc::new(Mutex::new(live));
    let policed = Policed { enforcer, live, teller: recorder.teller(), generations, words };
    let undo = move || {
        let recorded = recorder.finish();
        undo().and(recorded)
    };
    Ok((policed, Box::new(undo), detail))
}
