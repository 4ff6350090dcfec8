//! `lattice doctor`: what this host lacks, and how to get it.

mod node;

use std::process::ExitCode;

use lattice_bootstrap::{EnforcerChoice, Failure, Kind, failure::chain};
use serde::Serialize;
use serde_json::json;

use crate::{
    args::{Doctor, Format, Global},
    output,
    places::{self, Found},
    privilege,
    run::gvisor,
};

#[derive(Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    /// Without it nothing runs; otherwise something else takes its place.
    needed: bool,
    found: String,
}

impl Check {
    fn new(name: &'static str, needed: bool, result: Result<String, String>) -> Self {
        let ok = result.is_ok();
        let found = result.unwrap_or_else(|reason| reason);
        Self { name, ok, needed, found }
    }
}

pub(crate) fn run(global: &Global, args: &Doctor) -> Result<ExitCode, Failure> {
    let mut checks = host();
    if args.node {
        checks.extend(node::checks(&args.containerd));
    }
    checks.push(leftovers(global, args.fix));
    if args.output == Format::Json {
        output::print(&json!({ "version": 1, "checks": checks }).to_string());
    } else {
        let row = |check: &Check| {
            let state = match (check.ok, check.needed) {
                (true, _) => "ok",
                (false, true) => "MISSING",
                (false, false) => "absent",
            };
            vec![state.into(), check.name.into(), check.found.clone()]
        };
        output::table(&["", "WHAT", "FOUND"], &checks.iter().map(row).collect::<Vec<_>>());
    }
    match checks.iter().filter(|check| check.needed && !check.ok).count() {
        0 => Ok(ExitCode::SUCCESS),
        missing => Err(Failure::new(
            Kind::Kernel,
            format!("{missing} needed things are missing; the table names the remedies"),
        )),
    }
}

fn host() -> Vec<Check> {
    vec![
        Check::new(
            "root",
            true,
            privilege::require(privilege::SANDBOX)
                .map(|()| "yes, with the capabilities it takes".into())
                .map_err(|failure| failure.message),
        ),
        Check::new(
            "runsc",
            true,
            lattice_runsc::Runsc::find(None, None)
                .map(|runsc| format!("{} {} ({})", runsc.path.display(), runsc.version, runsc.platform))
                .map_err(|error| chain(&error)),
        ),
        Check::new("runsc without root", false, without_root()),
        Check::new(
            "enforcer",
            true,
            lattice_bootstrap::enforcement(EnforcerChoice::Auto).map_err(|failure| failure.message),
        ),
        enforcer("enforcer eBPF", EnforcerChoice::Ebpf),
        Check::new("eBPF at the agent's calls", false, calls()),
        enforcer("enforcer nftables", EnforcerChoice::Nftables),
        Check::new(
            "WireGuard in the kernel",
            false,
            if lattice_overlay::kernel_has_wireguard() {
                Ok("yes".into())
            } else {
                Err("no: WireGuard runs in user space; `modprobe wireguard` makes it faster".into())
            },
        ),
        Check::new("/dev/net/tun", true, lattice_overlay::tun_usable().map(|()| "usable".into())),
        Check::new(
            "nft",
            false,
            lattice_bootstrap::uplink::found()
                .map(|path| format!("{}: rules may name what is outside the overlay", path.display()))
                .map_err(|_| "no: agents reach the overlay alone; apt-get install nftables".into()),
        ),
        Check::new(
            "nats-server",
            false,
            on_path("nats-server").ok_or("no: only latticed needs it; apt-get install nats-server".into()),
        ),
    ]
}

/// One of several: without it, another takes its place.
fn enforcer(name: &'static str, choice: EnforcerChoice) -> Check {
    Check::new(name, false, lattice_bootstrap::enforcement(choice).map_err(|failure| failure.message))
}

/// What `lattice sandbox run --isolate gvisor` takes.
fn without_root() -> Result<String, String> {
    if nix::unistd::geteuid().is_root() {
        return Err(
            "not tried as root: ask as the user who runs `lattice sandbox run --isolate gvisor`".into()
        );
    }
    let runsc = gvisor::find().map_err(|failure| failure.message)?;
    gvisor::works(&runsc).map(|()| "it runs programs, for `lattice sandbox run --isolate gvisor`".into())
}

/// The hooks at the calls of a cgroup, a second fence beside the one at the links.
fn calls() -> Result<String, String> {
    match lattice_ebpf::probe() {
        Ok(support) if support.cgroup => Ok("the cgroup hooks are there".into()),
        Ok(_) => Err("no: no cgroup v2 with hooks is mounted; the links are policed all the same".into()),
        Err(error) => Err(chain(&error)),
    }
}

pub(crate) fn on_path(program: &str) -> Option<String> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())?;
    Some(found.display().to_string())
}

/// Finds, and with `fix` removes, what killed peers left.
fn leftovers(global: &Global, fix: bool) -> Check {
    let find = || -> Result<String, String> {
        let all = places::list(global).map_err(|failure| failure.message)?;
        let dead: Vec<_> = all.into_iter().filter(|found| !found.peer.alive).collect();
        let names = dead.iter().map(|found| found.peer.name.to_string()).collect::<Vec<_>>().join(", ");
        if dead.is_empty() {
            return Ok("none".into());
        }
        if !fix {
            return Err(format!("of killed peers: {names}; run lattice doctor --fix"));
        }
        // All of them, also when one cannot be removed.
        let failed: Vec<_> = dead.iter().filter_map(|found| remove(found).err()).collect();
        match failed.as_slice() {
            [] => Ok(format!("removed: {names}")),
            failed => Err(failed.iter().map(|f| f.message.as_str()).collect::<Vec<_>>().join("; ")),
        }
    };
    Check::new("leftovers", false, find())
}

fn remove(Found { root, peer }: &Found) -> Result<(), Failure> {
    match crate::sandbox::claim_in(root, peer.role, &peer.name) {
        Ok(state) => state.remove(),
        // Another doctor is at it, or a start that removes them itself.
        Err(failure) if failure.kind == Kind::Taken => Ok(()),
        Err(failure) => Err(failure),
    }
}
