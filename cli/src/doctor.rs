//! `lattice doctor`: what this host lacks, and how to get it.

use std::process::ExitCode;

use lattice_bootstrap::{Failure, Kind, Role, StateDir, failure::chain, state};
use serde::Serialize;
use serde_json::json;

use crate::{
    args::{Doctor, Format, Global},
    output,
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
    let root = nix::unistd::geteuid().is_root();
    vec![
        Check::new("root", true, if root { Ok("yes".into()) } else { Err("no: run with sudo".into()) }),
        Check::new(
            "runsc",
            true,
            lattice_shim::Runsc::find(None, None)
                .map(|runsc| format!("{} {} ({})", runsc.path.display(), runsc.version, runsc.platform))
                .map_err(|error| chain(&error)),
        ),
        Check::new("eBPF", true, lattice_bootstrap::enforcement().map_err(|failure| failure.message)),
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
            "nats-server",
            false,
            on_path("nats-server").ok_or("no: only latticed needs it; apt-get install nats-server".into()),
        ),
    ]
}

fn on_path(program: &str) -> Option<String> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())?;
    Some(found.display().to_string())
}

/// Finds, and with `fix` removes, what killed peers left.
fn leftovers(global: &Global, fix: bool) -> Check {
    let dead: Vec<_> = state::list(&global.state_dir).into_iter().filter(|(_, _, _, alive)| !alive).collect();
    let names: Vec<String> = dead.iter().map(|(_, name, _, _)| name.to_string()).collect();
    let result = if dead.is_empty() {
        Ok("none".into())
    } else if fix {
        dead.iter()
            .try_for_each(|(role, name, _, _)| remove(global, *role, name))
            .map(|()| format!("removed: {}", names.join(", ")))
            .map_err(|failure| failure.message)
    } else {
        Err(format!("of killed peers: {}; run lattice doctor --fix", names.join(", ")))
    };
    Check::new("leftovers", false, result)
}

fn remove(global: &Global, role: Role, name: &lattice_wire::PeerName) -> Result<(), Failure> {
    let state: StateDir = crate::sandbox::claim(global, role, name)?;
    state.remove();
    Ok(())
}
