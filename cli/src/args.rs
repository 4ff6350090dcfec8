//! The command line. Flag names are the documented ones.

mod control_plane;
mod run;
mod sandbox;
mod servers;
mod shim;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
pub(crate) use control_plane::{
    Admin, AdminTokenCommand, EventCommand, Login, PeerCommand, PolicyAdd, PolicyCommand, PolicyExplain,
    Role, TokenCommand, TokenCreate, Way, WorkspaceCommand,
};
pub(crate) use run::{Inside, Isolate, Run};
pub(crate) use sandbox::{Attach, GvisorFlags, Join, Mode, PodFlags, SandboxCommand, Start};
pub(crate) use servers::{Relay, StartCommand, Turn};
pub(crate) use shim::{Containerd, Install, ShimCommand};

/// Run untrusted AI agents with one network identity, a default-deny egress policy and a record of every verdict.
#[derive(Debug, Parser)]
#[command(name = "lattice", version, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Where credentials are kept [default: /etc/lattice where this user may write, else ~/.local/state/lattice]
    #[arg(long, global = true, env = "LATTICE_CONFIG_DIR", value_name = "DIR")]
    pub(crate) config_dir: Option<PathBuf>,
    /// Where running peers are listed [default: /run/lattice where this user may write, else $XDG_RUNTIME_DIR/lattice, else
    /// /tmp/lattice-<uid>]
    #[arg(long, global = true, env = "LATTICE_STATE_DIR", value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// What to log to stderr: error, warn, info, debug or a tracing filter
    #[arg(long, global = true, env = "LATTICE_LOG", default_value = "warn", value_name = "FILTER")]
    pub(crate) log: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run an agent in a sandbox
    #[command(subcommand)]
    Sandbox(SandboxCommand),
    /// Run a server that helps peers to reach each other
    #[command(subcommand)]
    Start(StartCommand),
    /// Join this host to the overlay, until interrupted
    Up(Up),
    /// Begin to administer a control plane: exchange its one-time token for an API token, and keep that
    Login(Login),
    /// Revoke and forget the API token of `lattice login`
    Logout(Admin),
    /// Say whose API token is used
    Whoami(Admin),
    /// API tokens of the control plane
    #[command(subcommand)]
    AdminToken(AdminTokenCommand),
    /// Workspaces of the control plane
    #[command(subcommand)]
    Workspace(WorkspaceCommand),
    /// Enrollment tokens of the control plane
    #[command(subcommand)]
    Token(TokenCommand),
    /// Peers of the control plane
    #[command(subcommand)]
    Peer(PeerCommand),
    /// Named policies of the control plane
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Security events of the control plane
    #[command(subcommand)]
    Event(EventCommand),
    /// What runs on this host; with a name, that one's peers and the paths to them
    Status(StatusArgs),
    /// Ask a peer whether it is there, and say by which path
    Ping(Ping),
    /// Flow records
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Name what is missing on this host, and the remedy
    Doctor(Doctor),
    /// This host as a node whose pods run in sandboxes
    #[command(subcommand)]
    Shim(ShimCommand),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) join: Join,
    /// Name of the WireGuard link
    #[arg(long, default_value = "wf0", value_name = "NAME")]
    pub(crate) interface: String,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct StatusArgs {
    /// Show the peers of this one, which runs on this host
    pub(crate) name: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Ping {
    /// The peer's name or overlay address
    pub(crate) peer: String,
    /// Which node or sandbox of this host asks, when several run; a sandbox's policy applies
    #[arg(long, value_name = "NAME")]
    pub(crate) from: Option<String>,
    /// By IPv6; an IPv6 address says so itself
    #[arg(short = '6', long)]
    pub(crate) ipv6: bool,
    /// How many times, one second apart
    #[arg(short, long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) count: u16,
    /// Seconds to wait for each answer
    #[arg(short = 'W', long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub(crate) timeout: u64,
}

impl Ping {
    pub(crate) fn timeout(&self) -> std::time::Duration {
        std::time::Duration::from_secs(self.timeout)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Print flow records, newest last
    Tail {
        /// Name of the sandbox
        #[arg(long, required_unless_present = "file")]
        name: Option<String>,
        /// The audit file, when it is not the default one
        #[arg(long)]
        file: Option<PathBuf>,
        /// How many
        #[arg(short = 'n', long, default_value_t = 20)]
        lines: usize,
        /// Only denied flows
        #[arg(long)]
        denied: bool,
        /// How to print
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
    },
    /// Prove that no flow record was changed, reordered or cut out
    Verify {
        /// The audit file
        file: PathBuf,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Doctor {
    /// Remove what killed sandboxes left behind
    #[arg(long)]
    pub(crate) fix: bool,
    /// Also what a node of Kubernetes needs, whose containerd runs pods by Lattice's shim
    #[arg(long)]
    pub(crate) node: bool,
    #[command(flatten)]
    pub(crate) containerd: Containerd,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
}
