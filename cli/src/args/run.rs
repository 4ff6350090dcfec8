//! `lattice sandbox run`.

use std::{ffi::OsString, os::fd::RawFd, path::PathBuf, time::Duration};

use clap::{Args as ClapArgs, ValueEnum};

use super::Join;

/// How a command is kept to its sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Isolate {
    /// netns where this host lets an unprivileged user, else none
    Auto,
    /// A network of its own with no other way out (class netns)
    Netns,
    /// By proxy variables, which the command may ignore (class cooperative)
    None,
    /// Likewise, and under gVisor without root: its system calls reach no kernel of the host (class netns)
    Gvisor,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) join: Join,
    /// What the command may reach, [proto:]target[:ports], repeatable; without it, nothing
    #[arg(long, value_name = "RULE")]
    pub(crate) egress_allow: Vec<String>,
    /// Where flow records go [default: /tmp/lattice-audit-<name>.jsonl]
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_file: Option<PathBuf>,
    /// How the command is kept to the sandbox
    #[arg(long, value_enum, default_value = "auto", value_name = "HOW")]
    pub(crate) isolate: Isolate,
    /// A port of the overlay that leads to a service, as 8080:127.0.0.1:8080, repeatable; with namespaces the same port of the command's own
    /// 127.0.0.1
    #[arg(long, value_name = "[tcp:|udp:]PORT:ADDRESS:PORT")]
    pub(crate) forward: Vec<String>,
    /// A file or directory of another program's secrets that the command may read all the same, as ~/.ssh, repeatable; / for all of them. Without, it
    /// sees neither keys of SSH and GnuPG, nor credentials of clouds, clusters, registries and Git, nor profiles of browsers
    #[arg(long, value_name = "PATH")]
    pub(crate) readable: Vec<PathBuf>,
    /// A directory that the command may write, beside the working directory and a /tmp of its own, repeatable; / for all that this user may
    #[arg(long, value_name = "DIR")]
    pub(crate) writable: Vec<PathBuf>,
    /// The command may not write the working directory either
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Seconds within which the sandbox must be ready
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    ready_timeout: u64,
    /// The command and its arguments, after '--'
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

impl Run {
    pub(crate) fn ready_timeout(&self) -> Duration {
        Duration::from_secs(self.ready_timeout)
    }
}

/// What `lattice sandbox run` starts between itself and the command.
#[derive(Debug, ClapArgs)]
pub(crate) struct Inside {
    /// The socket of whoever started this
    #[arg(long)]
    pub(crate) channel: RawFd,
    /// Make namespaces for the command
    #[arg(long)]
    pub(crate) namespaces: bool,
    /// Run it there under this runsc
    #[arg(long, requires = "namespaces")]
    pub(crate) runsc: Option<PathBuf>,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<OsString>,
}
