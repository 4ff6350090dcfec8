//! A process with the given streams, killed with all that it started when the test ends.

use std::{os::unix::process::CommandExt as _, process::Command};

use nix::{
    sys::{
        signal::{Signal, killpg},
        wait::waitpid,
    },
    unistd::Pid,
};

use super::{ChildEnds, Reaper, within};
use crate::reaper::Awaited;

pub(super) struct Process(Awaited);

impl Process {
    pub(super) fn shell(reaper: &Reaper, script: &str, ends: ChildEnds) -> Self {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(ends.stdin).stdout(ends.stdout).stderr(ends.stderr);
        Self(reaper.spawn(command.process_group(0)).unwrap())
    }

    pub(super) fn pid(&self) -> Pid {
        self.0.pid()
    }

    pub(super) async fn end(&mut self) -> u32 {
        within(self.0.exit()).await.status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = killpg(self.pid(), Signal::SIGKILL);
        // Fails when the reaper was there first.
        let _ = waitpid(self.pid(), None);
    }
}
