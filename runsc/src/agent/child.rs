//! `runsc run` as our child, held by a thread of its own.
//!
//! The kernel's parent-death signal is tied to the *thread* that forked, not to its process. Were runsc spawned from a
//! thread of some pool, the end of that thread would kill the agent. So one thread spawns it, and stays until it ends.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    process::{Command, ExitStatus},
    sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Child {
    pid: u32,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Running,
    Ended(ExitStatus),
    /// The status was taken by someone else's wait for any child.
    Lost,
}

impl Child {
    /// Spawns `command`; `on_end` is called once when it has ended.
    pub(super) fn spawn(
        mut command: Command,
        name: &str,
        on_end: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::new(State::Running), ended: Condvar::new() });
        let (tell, told) = mpsc::channel();
        let held = Arc::clone(&shared);
        thread::Builder::new().name(format!("runsc-{name}")).spawn(move || {
            let spawned = command.spawn();
            // Our copies of the child's ends of its pipes: while they are open, no reader sees the end.
            drop(command);
            match spawned {
                Ok(child) => {
                    drop(tell.send(Ok(child.id())));
                    held.hold(child);
                    on_end();
                }
                Err(error) => drop(tell.send(Err(error))),
            }
        })?;
        let pid = told.recv().map_err(|_| io::Error::other("the thread that spawns runsc ended"))??;
        Ok(Self { pid, shared })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn has_ended(&self) -> bool {
        !matches!(*self.shared.lock(), State::Running)
    }

    /// Kills it; whether it was still there.
    pub(super) fn kill(&self) -> bool {
        // While the lock is held and the state is Running, the child is not reaped: the number is still its own.
        let state = self.shared.lock();
        matches!(*state, State::Running) && kill(pid(self.pid), Signal::SIGKILL).is_ok()
    }

    /// Waits for its end; 128 + n when signal n killed it.
    pub(super) fn wait(&self) -> io::Result<i32> {
        let running = |state: &mut State| matches!(state, State::Running);
        let state = self.shared.ended.wait_while(self.shared.lock(), running);
        match *state.unwrap_or_else(PoisonError::into_inner) {
            State::Ended(status) => {
                Ok(status.code().or_else(|| status.signal().map(|n| 128 + n)).unwrap_or(i32::MAX))
            }
            State::Running | State::Lost => Err(io::Error::other("its exit status was lost")),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, mut child: std::process::Child) {
        let unreaped = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        while waitid(Id::Pid(pid(child.id())), unreaped) == Err(Errno::EINTR) {}
        let mut state = self.lock();
        *state = child.wait().map_or(State::Lost, State::Ended);
        self.ended.notify_all();
    }
}

fn pid(raw: u32) -> Pid {
    Pid::from_raw(raw.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_a_shells() {
        for (script, code) in [("exit 7", 7), ("kill -TERM $$", 143)] {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            let child = Child::spawn(command, "t", || ()).unwrap();
            assert_eq!(child.wait().unwrap(), code);
            assert!(child.has_ended() && !child.kill());
        }
    }

    #[test]
    fn a_missing_program_is_an_error_of_the_start() {
        assert!(Child::spawn(Command::new("/nonexistent"), "t", || ()).is_err());
    }
}
