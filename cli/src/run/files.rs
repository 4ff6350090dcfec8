//! What a command with a view of its own may write: where it was started, what was named, and nothing that runs later in its user's name.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use lattice_bootstrap::{Failure, Kind};
use lattice_overlay::userns::hide::Found;
use nix::unistd::{User, geteuid};

use crate::{
    args::{Isolate, Run},
    output,
};

/// The directories, as they are now: somebody who may write above one could put a link in its place before it is mounted.
///
/// # Errors
/// When one that was named is none.
pub(super) fn writable(args: &Run) -> Result<Vec<Found>, Failure> {
    let mut all = Vec::new();
    for dir in &args.writable {
        let failed = |why: &dyn std::fmt::Display| {
            let text = format!("--writable {}: {why}: name a directory that is there", dir.display());
            Failure::new(Kind::Usage, text)
        };
        all.push(Found::at(dir).map_err(|error| failed(&error))?);
    }
    if !args.read_only
        && let Ok(here) = Found::at(Path::new("."))
        && !all.iter().any(|named| here.path.starts_with(&named.path))
    {
        if runs_later(&here.path, &homes()) {
            output::warn(&format!(
                "the command may not write {}, where this user's shells and programs find what they run: start it in a directory below, or name what \
                 it may write with --writable",
                here.path.display()
            ));
        } else {
            all.push(here);
        }
    }
    if args.isolate == Isolate::Gvisor
        && let Some(dir) = all.iter().find(|dir| Path::new("/tmp").starts_with(&dir.path))
    {
        let text = format!(
            "the command cannot write {}: with --isolate gvisor its /tmp is gVisor's own; name directories below, or start it in one",
            dir.path.display()
        );
        return Err(Failure::new(Kind::Usage, text));
    }
    Ok(all)
}

/// Whether programs of this user's find there what they run or obey: above and in a home, and in what begins with a dot there, as `~/.config` and
/// `~/.local/bin`.
fn runs_later(dir: &Path, homes: &[PathBuf]) -> bool {
    let is_dotted = |below: &Path| below.as_os_str().as_encoded_bytes().starts_with(b".");
    // Also where no home is known.
    dir == Path::new("/")
        || homes.iter().any(|home| home.starts_with(dir) || dir.strip_prefix(home).is_ok_and(is_dotted))
}

/// As the environment has it, and as the system does.
pub(super) fn homes() -> Vec<PathBuf> {
    let told = env::var_os("HOME").map(PathBuf::from);
    let known = User::from_uid(geteuid()).ok().flatten().map(|user| user.dir);
    let all = told.into_iter().chain(known).filter(|home| home.is_absolute());
    all.filter_map(|home| fs::canonicalize(home).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_later_is_not_writable_of_itself() {
        let homes = [PathBuf::from("/home/me")];
        for dir in ["/", "/home", "/home/me", "/home/me/.config", "/home/me/.local/bin"] {
            assert!(runs_later(Path::new(dir), &homes), "{dir}");
        }
        for dir in ["/home/me/work", "/home/me/work/.git", "/home/.other", "/srv"] {
            assert!(!runs_later(Path::new(dir), &homes), "{dir}");
        }
        assert!(runs_later(Path::new("/"), &[]), "whoever has no home");
    }
}
