//! Why there is no way out, in words that name the remedy.

use std::{io, path::PathBuf};

use super::NET_V4;
use crate::LinkError;

/// Why there is no way out.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// nft(8) is missing.
    #[error(
        "nft is not installed, and rules for destinations outside the overlay need it: apt-get install nftables"
    )]
    NoNft,
    /// nft(8) could not be run.
    #[error("cannot run {}: {source}", program.display())]
    Run {
        /// Its path.
        program: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// nft(8) failed.
    #[error(
        "nft cannot {what}: {answer}; it needs CAP_NET_ADMIN and a kernel with nf_tables, nft_masq, nft_fib_inet, nft_reject_inet and nft_connlimit"
    )]
    Nft {
        /// What it was to do.
        what: String,
        /// What it said.
        answer: String,
    },
    /// A sysctl cannot be read or written.
    #[error("cannot set {} to {value}: {source}; in a container, mount /proc/sys writable or start it with --sysctl net.ipv4.conf.all.forwarding=1", path.display())]
    Sysctl {
        /// Its file.
        path: PathBuf,
        /// What was to be written.
        value: char,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A link would have to forward whose name cannot stand in a rule.
    #[error("the interface {0:?} has a name that nft rules cannot hold: rename it")]
    OddName(String),
    /// A bridge would have to forward, and with it the bridged traffic would be judged.
    #[error(
        "the bridge {0} does not forward, and its own traffic goes through the firewall (br_netfilter): set net.ipv4.conf.{0}.forwarding=1, or net.bridge.bridge-nf-call-iptables=0"
    )]
    Bridge(String),
    /// The network for uplinks is in use for something else.
    #[error("no free addresses for an uplink: {NET_V4} is routed or in use in this network namespace")]
    NoAddress,
    /// Another start, end or repair holds the lock.
    #[error("cannot lock {}: {source}", path.display())]
    Lock {
        /// The lock.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A link, address or route.
    #[error(transparent)]
    Link(#[from] LinkError),
}
