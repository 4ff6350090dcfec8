//! `lattice shim`: makes a node ready for pods of RuntimeClass lattice.

pub(crate) mod containerd;
mod files;

use std::{path::Path, process::ExitCode};

use lattice_bootstrap::{Failure, Kind};

use crate::{
    args::{Install, ShimCommand},
    output,
};
use containerd::{Containerd, Import};

/// As containerd looks for runtime `io.containerd.lattice.v1`.
pub(crate) const PROGRAM: &str = "containerd-shim-lattice-v1";
const SHIM_TOML: &str = include_str!("../../deploy/containerd/shim.toml");

pub(crate) fn run(command: &ShimCommand) -> Result<ExitCode, Failure> {
    let ShimCommand::Install(args) = command;
    install(args).map(|()| ExitCode::SUCCESS)
}

fn install(args: &Install) -> Result<(), Failure> {
    if !args.dry_run && !nix::unistd::geteuid().is_root() {
        let text =
            "this needs root (it writes to /usr/local/bin and /etc): run it with sudo, or see --dry-run";
        return Err(Failure::new(Kind::Privilege, text));
    }
    // All that can be wrong is found before anything is written.
    let source = source(args)?;
    let containerd = Containerd::find(&args.containerd)?;
    let import = containerd.import(true)?;

    let target = args.bin_dir.join(PROGRAM);
    say(args.dry_run, &target, files::install(&source, &target, args.dry_run)?);
    let made = files::create(&args.config, SHIM_TOML, args.dry_run)?;
    say(args.dry_run, &args.config, made);
    if made {
        output::print("  name the control plane there: [lattice] server, or set network = \"plain\"");
    }
    match import {
        Import::Present => output::print(&format!("{}: names the runtime already", containerd.config())),
        Import::Written(path) => {
            containerd.import(args.dry_run)?;
            say(args.dry_run, &path, true);
            output::print("restart containerd; running pods stay: systemctl restart containerd");
        }
        Import::ByHand { why, lines } => {
            output::print(&format!(
                "{}: {why}. Add these lines to it, then restart containerd:\n\n{lines}",
                containerd.config()
            ));
        }
    }
    Ok(())
}

/// The shim to install, which must be one.
fn source(args: &Install) -> Result<std::path::PathBuf, Failure> {
    let source = match &args.from {
        Some(path) => path.clone(),
        None => std::env::current_exe()
            .map_err(|error| Failure::new(Kind::Internal, format!("cannot find this program: {error}")))?
            .with_file_name(PROGRAM),
    };
    version(&source).map_err(|reason| {
        let text =
            format!("{}: {reason}: name the shim by --from, or build it by `make install`", source.display());
        Failure::new(Kind::Input, text)
    })?;
    Ok(source)
}

/// What the shim at `path` says that it is.
pub(crate) fn version(path: &Path) -> Result<String, String> {
    let output = std::process::Command::new(path).arg("-v").output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let first = text.lines().next().unwrap_or_default();
    if output.status.success() && first.starts_with(PROGRAM) {
        Ok(first.to_owned())
    } else {
        Err(format!("it is no {PROGRAM}"))
    }
}

fn say(dry_run: bool, path: &Path, is_new: bool) {
    let what = match (is_new, dry_run) {
        (true, false) => "written",
        (true, true) => "would be written",
        (false, _) => "is there already",
    };
    output::print(&format!("{}: {what}", path.display()));
}
