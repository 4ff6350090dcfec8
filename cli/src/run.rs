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
mod credentials;
mod environment;
mod files;
pub(crate) mod gvisor;
mod helper;
pub(crate) mod inside;
mod letters;
mod session;
mod supervise;
mod transparent;

use std::{net::Ipv4Addr, path::PathBuf, process::ExitCode};

use lattice_bootstrap::{Failure, Handed, Join, Kind, Role, StateDir, handed::RESOLVER_PORT};
use lattice_overlay::BackendChoice;
use lattice_policy::RuleSpec;
use lattice_proxy::{Forward, parse_forwards};
use nix::unistd::geteuid;

use crate::{
    args::{Global, Isolate, Run},
    output, places,
    sandbox::{self, private},
};
use helper::{Helper, Namespaces};

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

/// The exit code of what failed before there was a command, or beside it: as env(1) and container runtimes have it. 126 and 127 are those of a
/// command that could not be executed, or was not found; everything else is the command's.
const OURS: u8 = 125;

pub(crate) fn run(global: &Global, args: &Run) -> Result<ExitCode, Failure> {
    attempt(global, args).or_else(|failure| {
        output::failure(&failure);
        Ok(ExitCode::from(OURS))
    })
}

fn attempt(global: &Global, args: &Run) -> Result<ExitCode, Failure> {
    let usage = |text: String| Failure::new(Kind::Usage, text);
    if args.join.wireguard == BackendChoice::Kernel {
        return Err(usage(
            "--wireguard kernel is not for `sandbox run`: WireGuard is in this process".into(),
        ));
    }
    let forwards = parse_forwards(&args.forward).map_err(|error| usage(error.to_string()))?;
    if args.isolate == Isolate::None && wants_view(args) {
        return Err(usage(NO_VIEW.into()));
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
        (helper, Some(inside)) => {
            own_ports(&forwards)?;
            transparent::run(plan, helper, inside, forwards)
        }
        (helper, None) => cooperative::run(plan, helper, forwards),
    }
}

/// Where the command has a network of its own, a port of the overlay is the command's own already, and has only to be opened.
fn own_ports(forwards: &[Forward]) -> Result<(), Failure> {
    let refused = |forward: &Forward, why: &str| {
        Err(Failure::new(
            Kind::Usage,
            format!("--forward {forward}: the command has a network of its own, {why}"),
        ))
    };
    for forward in forwards {
        let port = forward.to.port();
        // Nothing leads to ::1, and of 127.0.0.0/8 to no other address (`LoopbackPorts`).
        if port != forward.port.get() || forward.to.ip() != Ipv4Addr::LOCALHOST {
            let why = format!(
                "in which peers reach it at the port where it listens: give {port}:127.0.0.1:{port} for that port, and have it listen on 127.0.0.1 or \
                 0.0.0.0; to reach a service of this host, add --isolate none"
            );
            return refused(forward, &why);
        }
        if port == RESOLVER_PORT {
            let why = "whose 127.0.0.1:53 is the resolver that Lattice gives it, and not for peers: have it serve another port";
            return refused(forward, why);
        }
    }
    Ok(())
}

const NO_VIEW: &str = "--read-only, --readable and --writable take a view of the files of the command's own, which it has with --isolate netns or gvisor only";

/// Whether it was said what the command may read or write. Without a view of its own it may whatever the user may.
fn wants_view(args: &Run) -> bool {
    args.read_only || !args.writable.is_empty() || !args.readable.is_empty()
}

/// The helper, and with namespaces what it has made in them.
fn helper(args: &Run) -> Result<(Helper, Option<Handed>), Failure> {
    let because = if args.isolate == Isolate::None {
        "--isolate none asks for it".to_owned()
    } else {
        let is_gvisor = args.isolate == Isolate::Gvisor;
        let namespaces = Namespaces { runsc: if is_gvisor { Some(gvisor::find()?) } else { None } };
        let helper = Helper::start(Some(&namespaces), &args.command)?;
        match helper.prepared() {
            Ok(inside) => return Ok((helper, Some(inside))),
            Err(reason) if is_gvisor => {
                let text = format!(
                    "--isolate gvisor: this host gives an unprivileged user no network of its own, or no gVisor in it: {reason}"
                );
                return Err(Failure::new(Kind::Kernel, text));
            }
            Err(reason) if args.isolate == Isolate::Netns => {
                let text = format!(
                    "--isolate netns: this host gives no network of its own to an unprivileged user: {reason}"
                );
                return Err(Failure::new(Kind::Kernel, text));
            }
            Err(reason) if wants_view(args) => {
                let text = format!("{NO_VIEW}; this host gives an unprivileged user neither: {reason}");
                return Err(Failure::new(Kind::Kernel, text));
            }
            Err(reason) => reason,
        }
    };
    output::warn(&format!(
        "the command may ignore the sandbox's proxy and use this host's network (class cooperative), and has all of this user's files: {because}"
    ));
    Ok((Helper::start(None, &args.command)?, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_port_of_127_0_0_1_that_is_the_commands_is_opened() {
        let refusal =
            |flag: &str| own_ports(&parse_forwards([flag]).unwrap()).map_err(|failure| failure.message);
        for flag in ["8080:127.0.0.1:8080", "udp:8080:127.0.0.1:8080"] {
            assert_eq!(refusal(flag), Ok(()), "{flag}");
        }
        for flag in ["80:127.0.0.1:8080", "8080:127.0.0.2:8080", "8080:[::1]:8080", "8080:192.0.2.1:8080"] {
            assert!(refusal(flag).unwrap_err().contains("give 8080:127.0.0.1:8080"), "{flag}");
        }
        for flag in ["53:127.0.0.1:53", "udp:53:127.0.0.1:53"] {
            assert!(refusal(flag).unwrap_err().contains("resolver"), "{flag}");
        }
    }
}
