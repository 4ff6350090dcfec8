//! `lattice sandbox run`: a sandbox in this process, for one command, without privilege.
//!
//! ```text
//!  lattice sandbox run ── helper ── the command        with namespaces: class netns
//!    identity, device,      │                            its only link leads into this process
//!    policy, record         └ channel: descriptors,    without: class cooperative
//!                             orders, signals            its environment names a proxy in this process
//! ```
//!
//! The helper is started first, while this process has one thread and no secret in its memory. Each of the three ends with the one before it.

mod channel;
mod cooperative;
mod environment;
mod helper;
pub(crate) mod inside;
mod session;
mod supervise;
mod transparent;

use std::{path::PathBuf, process::ExitCode};

use lattice_bootstrap::{Failure, Handed, Join, Kind, Role, StateDir};
use lattice_overlay::BackendChoice;
use lattice_policy::RuleSpec;
use lattice_proxy::parse_forwards;

use crate::{
    args::{Global, Isolate, Run},
    output, places,
    sandbox::{self, private},
};
use helper::Helper;

/// What was asked for, read and found sensible.
struct Plan<'a> {
    args: &'a Run,
    join: Join,
    egress: Vec<RuleSpec>,
    audit_file: PathBuf,
    /// Where all sandboxes of this user are listed.
    state_root: PathBuf,
}

impl Plan<'_> {
    fn claim(&self) -> Result<StateDir, Failure> {
        sandbox::claim_in(&self.state_root, Role::Sandbox, &self.join.name)
    }
}

pub(crate) fn run(global: &Global, args: &Run) -> Result<ExitCode, Failure> {
    let usage = |text: String| Failure::new(Kind::Usage, text);
    if args.isolate == Isolate::Gvisor {
        let text =
            "--isolate gvisor is not there yet: use `lattice sandbox start --mode gvisor`, which takes root";
        return Err(usage(text.into()));
    }
    if args.join.wireguard == BackendChoice::Kernel {
        return Err(usage(
            "--wireguard kernel is not for `sandbox run`: WireGuard is in this process".into(),
        ));
    }
    let forwards = parse_forwards(&args.forward).map_err(|error| usage(error.to_string()))?;
    if args.isolate == Isolate::Netns && !forwards.is_empty() {
        return Err(usage(FORWARDS.into()));
    }
    let egress = sandbox::egress(&args.egress_allow)?;

    // Before there is a secret in memory, or a thread.
    let namespaces = match args.isolate {
        Isolate::None => None,
        _ => Some(isolated(args)?),
    };
    set_dumpable(false)
        .map_err(|error| Failure::new(Kind::Kernel, format!("cannot shield this process: {error}")))?;
    let join = sandbox::join(global, &args.join, Role::Sandbox)?;
    let audit_file = args.audit_file.clone().unwrap_or_else(|| lattice_audit::default_path(&join.name));
    let plan = Plan { args, join, egress, audit_file, state_root: places::state(global)? };
    match namespaces {
        Some(Ok((helper, inside))) => {
            if !forwards.is_empty() {
                return Err(usage(FORWARDS.into()));
            }
            transparent::run(plan, helper, inside)
        }
        Some(Err(reason)) if args.isolate == Isolate::Netns => {
            let text = format!(
                "--isolate netns: this host gives no network of its own to an unprivileged user: {reason}"
            );
            Err(Failure::new(Kind::Kernel, text))
        }
        other => {
            let because = match other {
                Some(Err(reason)) => reason,
                _ => "--isolate none asks for it".into(),
            };
            output::warn(&format!(
                "the command may ignore the sandbox's proxy and use this host's network (class cooperative): {because}"
            ));
            let helper = Helper::start(false, &args.command)?;
            cooperative::run(plan, helper, forwards)
        }
    }
}

const FORWARDS: &str = "--forward is of no use where the command has a network of its own, in which it is reached itself: leave it out, or add --isolate none";
