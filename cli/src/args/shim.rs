//! The node's side of Kubernetes.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

/// Where containerd's packages have it.
const CONTAINERD_CONFIG: &str = "/etc/containerd/config.toml";

#[derive(Debug, Subcommand)]
pub(crate) enum ShimCommand {
    /// Make this node ready for pods of RuntimeClass lattice; what is there already stays
    ///
    /// Installs the shim where containerd finds it, a shim.toml when there is none, and the runtime in a file that containerd
    /// imports. config.toml itself is never written: where containerd cannot import without losing settings, the lines to
    /// add are printed. Nothing is restarted.
    Install(Install),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Install {
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The shim to install [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// A directory of containerd's PATH
    #[arg(long, default_value = "/usr/local/bin", value_name = "DIR")]
    pub(crate) bin_dir: PathBuf,
    /// The shim's own configuration
    #[arg(long, default_value = lattice_shim::config::DEFAULT_PATH, value_name = "FILE")]
    pub(crate) config: PathBuf,
    #[command(flatten)]
    pub(crate) containerd: Containerd,
}

/// Which containerd.
#[derive(Debug, ClapArgs)]
pub(crate) struct Containerd {
    /// containerd [default: the one on PATH]
    #[arg(long, value_name = "FILE")]
    pub(crate) containerd: Option<PathBuf>,
    /// Its configuration
    #[arg(long, default_value = CONTAINERD_CONFIG, value_name = "FILE")]
    pub(crate) containerd_config: PathBuf,
}
