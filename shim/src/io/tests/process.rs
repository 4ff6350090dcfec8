//! A process with the given streams, killed with all that it started when the test ends.

use std::{
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Child, Command},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use super::{ChildEnds, Duration, within};

pub(super) struct Process(Child);

impl Process {
    pub(super) fn shell(script: &str, ends: ChildEnds) -> Self {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(ends.stdin).stdout(ends.stdout).stderr(ends.stderr);
        Self(command.process_group(0).spawn().unwrap())
    }

    /// Its status, or minus the signal that ended it.
    pub(super) async fn end(&mut self) -> Option<i32> {
        let ended = async {
            loop {
                if let Some(status) = self.0.try_wait().unwrap() {
                    return status.code().or(status.signal().map(|signal| -signal));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(ended).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}
