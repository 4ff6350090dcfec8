//! The command line. Flag names are the documented ones.

mod control_plane;
mod run;
mod servers;
mod shim;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use lattice_bootstrap::{EnforcerChoice, credentials, state};
use lattice_overlay::BackendChoice;

pub(crate) use control_plane::{
    Admin, AdminTokenCommand, EventCommand, Login, PeerCommand, PolicyAdd, PolicyCommand, PolicyExplain,
    Role, TokenCommand, TokenCreate, Way, WorkspaceCommand,
};
pub(crate) use run::{Inside, Isolate, Run};
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
    /// Where credentials are kept
    #[arg(
        long,
        global = true,
        env = "LATTICE_CONFIG_DIR",
        default_value = credentials::DEFAULT_DIR,
        value_name = "DIR"
    )]
    pub(crate) config_dir: PathBuf,
    /// Where running peers are listed
    #[arg(
        long,
        global = true,
        env = "LATTICE_STATE_DIR",
        default_value = state::DEFAULT_ROOT,
        value_name = "DIR"
    )]
    pub(crate) state_dir: PathBuf,
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

#[derive(Debug, Subcommand)]
pub(crate) enum SandboxCommand {
    /// Enrol or resume, police the network, then run the agent until it ends; exits with its code
    ///
    /// The agent is given SIGINT, SIGTERM, SIGHUP and SIGQUIT as they come, and killed when it still runs 10 s later or
    /// at the next of them. Lattice's own failures have exit codes from 64 to 78, with one line on stderr that names
    /// cause and remedy.
    Start(Box<Start>),
    /// Run a command in a sandbox of its own, without privilege; exits with its code
    ///
    /// Where this host lets an unprivileged user make namespaces and TUN devices, the command has a network with no other way out (class netns).
    /// Elsewhere it is told of a proxy by ALL_PROXY and the like, which it may ignore (class cooperative). Signals are passed on as with `start`.
    Run(Box<Run>),
    #[command(hide = true)]
    Inside(Inside),
    /// The policy that a running sandbox enforces, and what each rule decided about
    Rules {
        /// Name of the sandbox
        name: String,
        /// How to print
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
    },
}

/// Where a sandbox runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Zero privilege, everything in one process (not there yet)
    Pod,
    /// The agent under gVisor's runsc
    Gvisor,
}

/// How the policy program is attached to the agent's links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attach {
    /// tcx where the kernel has it
    Auto,
    /// Linux 6.6 and newer
    Tcx,
    /// Every kernel
    Clsact,
}

/// How a peer finds its control plane and proves that it may join.
#[derive(Debug, ClapArgs)]
pub(crate) struct Join {
    /// Name of this peer: letters a-z, digits and '-'
    #[arg(long)]
    pub(crate) name: String,
    /// The control plane
    #[arg(long, env = "LATTICE_SERVER_URL", default_value = "http://localhost:8080", value_name = "URL")]
    pub(crate) server_url: String,
    /// The authority that certifies the server, in PEM, when it is not a public one
    #[arg(long, env = "LATTICE_SERVER_CA", value_name = "FILE")]
    pub(crate) server_ca: Option<PathBuf>,
    /// Enrollment token; visible to every user of this host, prefer --token-file or LATTICE_TOKEN
    #[arg(long, conflicts_with = "token_file")]
    pub(crate) token: Option<String>,
    /// File that holds the enrollment token; '-' is stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// UDP port of the WireGuard socket; another one is taken when it is in use
    #[arg(long, default_value_t = lattice_wire::port::WIREGUARD, value_name = "PORT")]
    pub(crate) listen_port: u16,
    /// WireGuard of the kernel, or in this process: auto, kernel, userspace
    #[arg(long, default_value = "auto", value_name = "BACKEND")]
    pub(crate) wireguard: BackendChoice,
    /// Largest inner packet, in bytes
    #[arg(long, default_value_t = 1420, value_parser = clap::value_parser!(u16).range(1280..=1420))]
    pub(crate) mtu: u16,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Start {
    #[command(flatten)]
    pub(crate) join: Join,
    /// Isolation
    #[arg(long, value_enum, default_value = "pod")]
    pub(crate) mode: Mode,
    /// What the agent may reach, [proto:]target[:ports], repeatable; without it, nothing. The target is a network, an
    /// address, or a DNS name such as api.example.com or *.example.com
    #[arg(long, value_name = "RULE")]
    pub(crate) egress_allow: Vec<String>,
    /// Accepted and already true: everything that no rule allows is denied
    #[arg(long)]
    pub(crate) egress_default_deny: bool,
    /// Root file system of the agent (gvisor mode)
    #[arg(long, value_name = "DIR")]
    pub(crate) agent_rootfs: Option<PathBuf>,
    /// Program to run, a path inside the root file system (gvisor mode)
    #[arg(long, value_name = "PATH")]
    pub(crate) agent_binary: Option<String>,
    /// Its arguments, separated by commas, repeatable; see also ARGS
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true, value_name = "ARGS")]
    pub(crate) agent_args: Vec<String>,
    /// A variable of its environment, repeatable; nothing is inherited
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) env: Vec<String>,
    /// Its working directory
    #[arg(long, default_value = "/", value_name = "PATH")]
    pub(crate) workdir: String,
    /// Run it as this user and group
    #[arg(long, default_value = "0:0", value_name = "UID[:GID]")]
    pub(crate) user: String,
    /// Limit of its memory, in bytes or with K, M, G
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Limit of its CPU time, in cores
    #[arg(long, value_name = "CORES")]
    pub(crate) cpus: Option<f64>,
    /// Limit of its processes and threads
    #[arg(long, value_name = "N")]
    pub(crate) pids_limit: Option<u32>,
    /// Refuse writes to the root file system, instead of discarding them at the end
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Where flow records go [default: /tmp/lattice-audit-<name>.jsonl]
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_file: Option<PathBuf>,
    /// runsc to use [default: the one on PATH]
    #[arg(long, env = "LATTICE_RUNSC", value_name = "PATH")]
    pub(crate) runsc: Option<PathBuf>,
    /// runsc platform: systrap, ptrace, kvm [default: systrap where it runs, else ptrace]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// What enforces the policy: ebpf, nftables, userspace, or auto for the first that works here
    #[arg(long, default_value = "auto", value_name = "ENFORCER")]
    pub(crate) enforcer: EnforcerChoice,
    /// How the eBPF program is attached
    #[arg(long, value_enum, default_value = "auto", value_name = "MODE")]
    pub(crate) attach: Attach,
    /// Address of the SOCKS5 proxy (pod mode)
    #[arg(long, value_name = "ADDR")]
    pub(crate) proxy_addr: Option<String>,
    /// Overlay port to local address (pod mode)
    #[arg(long, value_name = "PORT:ADDR")]
    pub(crate) forward: Vec<String>,
    /// Further arguments of the agent, after '--'
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) rest: Vec<String>,
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
