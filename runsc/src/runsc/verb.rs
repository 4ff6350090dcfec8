//! runsc's verbs and what each is told.

use std::{ffi::OsString, path::Path};

use super::command::flag;

/// What runsc is to do to one container.
#[derive(Debug, Clone, Copy)]
pub enum Verb<'a> {
    /// Creates and starts it, and stays until it ends.
    Run {
        /// With `config.json`.
        bundle: &'a Path,
        /// For the sandbox's pid.
        pid_file: &'a Path,
    },
    /// Makes its sandbox, or its place in one.
    Create {
        /// With `config.json`.
        bundle: &'a Path,
        /// For the sandbox's pid.
        pid_file: &'a Path,
        /// To which the terminal is sent.
        console: Option<&'a Path>,
    },
    /// Starts its first process.
    Start,
    /// Waits for the end of its first process, and prints it.
    Wait,
    /// Begins a further process, and stays until that ends.
    Exec {
        /// The OCI `process`.
        process: &'a Path,
        /// For the process's pid in the sandbox.
        internal_pid_file: &'a Path,
    },
    /// [`Verb::Exec`] with a terminal: a process of runsc's that is left in the background stays until that ends.
    ExecDetached {
        /// The OCI `process`.
        process: &'a Path,
        /// For the process's pid in the sandbox.
        internal_pid_file: &'a Path,
        /// For the pid of what is left.
        pid_file: &'a Path,
        /// To which the terminal is sent.
        console: &'a Path,
    },
    /// Signals.
    Kill {
        /// Its number.
        signal: u32,
        /// To whom.
        to: Target,
    },
    /// Ends and removes it.
    Delete,
    /// Prints what state it is in.
    State,
    /// Prints the pids of its processes.
    Processes,
    /// Prints what it uses.
    Events,
    /// Stops its processes.
    Pause,
    /// Continues them.
    Resume,
    /// Writes it down.
    Checkpoint {
        /// The directory to write into.
        image: &'a Path,
        /// Whether it goes on.
        leave_running: bool,
    },
    /// Starts it as it was written down.
    Restore {
        /// With `config.json`.
        bundle: &'a Path,
        /// What [`Verb::Checkpoint`] wrote.
        image: &'a Path,
    },
    /// Sets limits, read as JSON from standard input.
    Update,
}

/// Which processes of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The first.
    First,
    /// That with this pid in the sandbox.
    Process(i32),
    /// All.
    All,
}

impl Verb<'_> {
    /// As runsc names it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Run { .. } => "run",
            Self::Create { .. } => "create",
            Self::Start => "start",
            Self::Wait => "wait",
            Self::Exec { .. } | Self::ExecDetached { .. } => "exec",
            Self::Kill { .. } => "kill",
            Self::Delete => "delete",
            Self::State => "state",
            Self::Processes => "ps",
            Self::Events => "events",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Checkpoint { .. } => "checkpoint",
            Self::Restore { .. } => "restore",
            Self::Update => "update",
        }
    }

    /// What follows the name, for container `id`.
    pub(super) fn arguments(&self, id: &str) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = match *self {
            Self::Run { bundle, pid_file } => vec![flag("bundle", bundle), flag("pid-file", pid_file)],
            Self::Create { bundle, pid_file, console } => {
                let mut flags = vec![flag("bundle", bundle), flag("pid-file", pid_file)];
                flags.extend(console.map(|console| flag("console-socket", console)));
                flags
            }
            Self::Exec { process, internal_pid_file } => {
                vec![flag("process", process), flag("internal-pid-file", internal_pid_file)]
            }
            Self::ExecDetached { process, internal_pid_file, pid_file, console } => vec![
                "--detach".into(),
                flag("process", process),
                flag("internal-pid-file", internal_pid_file),
                flag("pid-file", pid_file),
                flag("console-socket", console),
            ],
            Self::Kill { to, .. } => match to {
                Target::First => vec![],
                Target::Process(pid) => vec![format!("--pid={pid}").into()],
                Target::All => vec!["--all".into()],
            },
            Self::Delete => vec!["--force".into()],
            Self::Processes => vec!["--format=json".into()],
            Self::Events => vec!["--stats".into()],
            Self::Checkpoint { image, leave_running } => {
                let mut flags = vec![flag("image-path", image)];
                if leave_running {
                    flags.push("--leave-running".into());
                }
                flags
            }
            Self::Restore { bundle, image } => {
                vec!["--detach".into(), flag("bundle", bundle), flag("image-path", image)]
            }
            Self::Update => vec!["--resources=-".into()],
            Self::Start | Self::Wait | Self::State | Self::Pause | Self::Resume => vec![],
        };
        // An id may begin with a dash.
        arguments.extend(["--".into(), id.into()]);
        if let Self::Kill { signal, .. } = self {
            arguments.push(signal.to_string().into());
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_never_taken_for_a_flag() {
        let kill = Verb::Kill { signal: 9, to: Target::All };
        assert_eq!(kill.arguments("--root=/x"), ["--all", "--", "--root=/x", "9"]);
        assert_eq!(
            Verb::Kill { signal: 15, to: Target::Process(3) }.arguments("a"),
            ["--pid=3", "--", "a", "15"]
        );
        assert_eq!(Verb::Delete.arguments("a"), ["--force", "--", "a"]);
    }

    #[test]
    fn only_a_terminal_is_sent_somewhere() {
        let of = |console| {
            Verb::Create { bundle: Path::new("/b"), pid_file: Path::new("/p"), console }.arguments("a")
        };
        assert_eq!(of(None), ["--bundle=/b", "--pid-file=/p", "--", "a"]);
        assert!(of(Some(Path::new("/s"))).contains(&"--console-socket=/s".into()));
    }
}
