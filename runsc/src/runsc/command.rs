//! Every call of runsc starts from the same clean process: no environment, descriptors or network rights of ours.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use super::prctl;

/// A command for `runsc` that inherits nothing but what is set on it afterwards.
///
/// It dies with the thread that spawns it: spawn it from a thread that outlives it.
pub(crate) fn driver(runsc: &Path) -> Command {
    let mut command = Command::new(runsc);
    command
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::null());
    prctl::confine(&mut command);
    command
}
