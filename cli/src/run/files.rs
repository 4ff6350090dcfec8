//! What a command with a view of its own may write: where it was started, what was named, and nothing that runs later in its user's name.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use lattice_bootstrap::{Failure, Kind};
use nix::unistd::{User, geteuid};

use crate::{
    args::{Isolate, Run},
    output,
};

/// The directories, by the paths that no link changes any more.
///
/// # Errors
/// When one that was named is none.
pub(super) fn writable(args: &Run) -> Result<Vec<OsString>, Failure> {
    let mut all = Vec::new();
    for dir in &args.writable {
        let failed = |why: &dyn std::fmt::Display| {
            let text = format!("--writable {}: {why}: name a directory that is there", dir.display());
            Failure::new(Kind::Usage, text)
        };
        let found = fs::canonicalize(dir).map_err(|error| failed(&error))?;
        if !found.is_dir() {
            return Err(failed(&"it is no directory"));
        }
        all.push(found);
    }
    if !args.read_only
        && let Ok(here) = env::current_dir().and_then(fs::canonicalize)
        && !all.iter().any(|named| here.starts_with(named))
    {
        if homes().iter().any(|home| home.starts_with(&here)) {
            output::warn(&format!(
                "the command may not write {}, where this user's shells and programs find what they run: start it in a directory below, or name what \
                 it may write with --writable",
                here.display()
            ));
        } else {
            all.push(here);
        }
    }
    if args.isolate == Isolate::Gvisor
        && let Some(dir) = all.iter().find(|dir| Path::new("/tmp").starts_with(dir))
    {
        let text = format!(
            "the command cannot write {}: with --isolate gvisor its /tmp is gVisor's own; name directories below, or start it in one",
            dir.display()
        );
        return Err(Failure::new(Kind::Usage, text));
    }
    Ok(all.into_iter().map(PathBuf::into_os_string).collect())
}

/// As the environment has it, and as the system does.
fn homes() -> Vec<PathBuf> {
    let told = env::var_os("HOME").map(PathBuf::from);
    let known = User::from_uid(geteuid()).ok().flatten().map(|user| user.dir);
    let all = told.into_iter().chain(known).filter(|home| home.is_absolute());
    all.filter_map(|home| fs::canonicalize(home).ok()).collect()
}
