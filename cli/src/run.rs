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
use nix::unistd::geteuid;

use crate::{
    args::{Global, Isolate, Run},
    output, places,
    sandbox::{self, private},
};
use helper::Helper;

/// What was asked for, read and found sensible.
struct Plan<'a> {
    global: &'a Global,
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

    if geteuid().is_root() && args.isolate != Isolate::None {
        let text = "as root the command would own this host's files and /proc/sys, in whatever namespaces: run it as another user, \
                    or use `lattice sandbox start --mode gvisor`";
        return Err(Failure::new(Kind::Privilege, text));
    }
    let helper = helper(args)?;
    // From here on there are secrets in memory, and threads.
    private::shield()?;
    private::take_descriptors();
    let join = sandbox::join(global, &args.join, Role::Sandbox)?;
    let audit_file = args.audit_file.clone().unwrap_or_else(|| lattice_audit::default_path(&join.name));
    let plan = Plan { global, args, join, egress, audit_file, state_root: places::state(global)? };
    match helper {
        (_, Some(_)) if !forwards.is_empty() => Err(usage(FORWARDS.into())),
        (helper, Some(inside)) => transparent::run(plan, helper, inside),
        (helper, None) => cooperative::run(plan, helper, forwards),
    }
}

/// The helper, and with namespaces what it has made in them.
fn helper(args: &Run) -> Result<(Helper, Option<Handed>), Failure> {
    let because = if args.isolate == Isolate::None {
        "--isolate none asks for it".to_owned()
    } else {
        let helper = Helper::start(true, &args.command)?;
        match helper.prepared() {
            Ok(inside) => return Ok((helper, Some(inside))),
            Err(reason) if args.isolate == Isolate::Netns => {
                let text = format!(
                    "--isolate netns: this host gives no network of its own to an unprivileged user: {reason}"
                );
                return Err(Failure::new(Kind::Kernel, text));
            }
            Err(reason) => reason,
        }
    };
    output::warn(&format!(
        "the command may ignore the sandbox's proxy and use this host's network (class cooperative): {because}"
    ));
    Ok((Helper::start(false, &args.command)?, None))
}

const FORWARDS: &str = "--forward is of no use where the command has a network of its own, in which it is reached itself: leave it out, or add --isolate none";
