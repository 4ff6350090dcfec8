//! Sandboxes: the flags that both modes take, and those of each.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use lattice_bootstrap::EnforcerChoice;
use lattice_overlay::BackendChoice;

use super::{Format, Inside, Run};

#[derive(Debug, Subcommand)]
pub(crate) enum SandboxCommand {
    /// Enrol or resume, and police the network of an agent
    ///
    /// In pod mode, which takes no privilege, the agent reaches the overlay by a proxy in this process, and peers reach it by port forwards;
    /// runs until SIGINT or SIGTERM, and then ends with 0.
    ///
    /// In gvisor mode, which takes root, the agent is run until it ends, and its code is passed on. It is given SIGINT, SIGTERM, SIGHUP and
    /// SIGQUIT as they come, and killed when it still runs 10 s later or at the next of them.
    ///
    /// Lattice's own failures have exit codes from 64 to 78, with one line on stderr that names cause and remedy.
    Start(Box<Start>),
    /// Run a command in a sandbox of its own, without privilege; exits with its code
    ///
    /// Where this host lets an unprivileged user make namespaces and TUN devices, the command has a network with no other way out (class netns).
    /// Elsewhere it is told of a proxy by ALL_PROXY and the like, which it may ignore (class cooperative). Signals are passed on as in gvisor mode.
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
    /// Without privilege, in one process: a proxy and port forwards
    Pod,
    /// The agent under gVisor's runsc; takes root
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
    /// Where flow records go [default: /tmp/lattice-audit-<name>.jsonl]
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) pod: PodFlags,
    #[command(flatten)]
    pub(crate) gvisor: GvisorFlags,
}

#[derive(Debug, Default, ClapArgs)]
#[command(next_help_heading = "Options of pod mode")]
pub(crate) struct PodFlags {
    /// Where SOCKS5 and HTTP CONNECT are served, as 127.0.0.1:1080; port 0 takes any
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    pub(crate) proxy_addr: Option<SocketAddr>,
    /// File of one line, USER:PASSWORD, that the proxy's clients must show; else LATTICE_PROXY_AUTH. Required when the proxy is not on
    /// loopback
    #[arg(long, value_name = "FILE")]
    pub(crate) proxy_auth_file: Option<PathBuf>,
    /// A port of the overlay that leads to a service of this host, as 8080:127.0.0.1:8080 or udp:53:127.0.0.1:5353, repeatable
    #[arg(long, value_name = "[tcp:|udp:]PORT:ADDRESS:PORT")]
    pub(crate) forward: Vec<String>,
    /// File that is there while the sandbox can be used: name, pid, address and proxy as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
    /// Where /healthz, /readyz and /metrics are served, to whoever asks
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    pub(crate) health_addr: Option<SocketAddr>,
}

#[derive(Debug, Default, ClapArgs)]
#[command(next_help_heading = "Options of gvisor mode")]
pub(crate) struct GvisorFlags {
    /// Root file system of the agent
    #[arg(long, value_name = "DIR")]
    pub(crate) agent_rootfs: Option<PathBuf>,
    /// Program to run, a path inside the root file system
    #[arg(long, value_name = "PATH")]
    pub(crate) agent_binary: Option<String>,
    /// Its arguments, separated by commas, repeatable; see also ARGS
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true, value_name = "ARGS")]
    pub(crate) agent_args: Vec<String>,
    /// A variable of its environment, repeatable; nothing is inherited
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) env: Vec<String>,
    /// Its working directory [default: /]
    #[arg(long, value_name = "PATH")]
    pub(crate) workdir: Option<String>,
    /// Run it as this user and group [default: 0:0]
    #[arg(long, value_name = "UID[:GID]")]
    pub(crate) user: Option<String>,
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
    /// runsc to use [default: LATTICE_RUNSC, else the one on PATH]
    #[arg(long, value_name = "PATH")]
    pub(crate) runsc: Option<PathBuf>,
    /// runsc platform: systrap, ptrace, kvm [default: systrap where it runs, else ptrace]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// What enforces the policy: ebpf, nftables, userspace, or auto for the first that works here [default: auto]
    #[arg(long, value_name = "ENFORCER")]
    pub(crate) enforcer: Option<EnforcerChoice>,
    /// How the eBPF program is attached [default: auto]
    #[arg(long, value_enum, value_name = "MODE")]
    pub(crate) attach: Option<Attach>,
    /// Further arguments of the agent, after '--'
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) rest: Vec<String>,
}

impl PodFlags {
    /// The first of these flags that was given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        first(&[
            ("--proxy-addr", self.proxy_addr.is_some()),
            ("--proxy-auth-file", self.proxy_auth_file.is_some()),
            ("--forward", !self.forward.is_empty()),
            ("--ready-file", self.ready_file.is_some()),
            ("--health-addr", self.health_addr.is_some()),
        ])
    }
}

impl GvisorFlags {
    /// The first of these flags that was given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        first(&[
            ("--agent-rootfs", self.agent_rootfs.is_some()),
            ("--agent-binary", self.agent_binary.is_some()),
            ("--agent-args", !self.agent_args.is_empty()),
            ("--env", !self.env.is_empty()),
            ("--workdir", self.workdir.is_some()),
            ("--user", self.user.is_some()),
            ("--memory", self.memory.is_some()),
            ("--cpus", self.cpus.is_some()),
            ("--pids-limit", self.pids_limit.is_some()),
            ("--read-only", self.read_only),
            ("--runsc", self.runsc.is_some()),
            ("--platform", self.platform.is_some()),
            ("--enforcer", self.enforcer.is_some()),
            ("--attach", self.attach.is_some()),
            ("ARGS after '--'", !self.rest.is_empty()),
        ])
    }
}

fn first(flags: &[(&'static str, bool)]) -> Option<&'static str> {
    flags.iter().find(|(_, given)| *given).map(|(name, _)| *name)
}

/// An address and a port: nothing is resolved, so that what is listened on is what was read.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected ADDRESS:PORT, such as 127.0.0.1:1080 or [::1]:1080".to_owned())
}
