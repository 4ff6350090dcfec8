//! Why a device could not be made or changed.

use std::io;

use lattice_wire::netmap::MAX_PEERS;

use crate::link::LinkError;

/// Why a device could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Not a name for a link.
    #[error("invalid network interface name {0:?}: use 1 to 15 printable ASCII characters, without / : %")]
    Name(String),
    /// A link of that name exists.
    #[error(
        "a network interface named {0:?} exists already: remove it (ip link delete {0}) or choose another name"
    )]
    Taken(String),
    /// The kernel has no WireGuard.
    #[error(
        "this kernel has no WireGuard: load the module (modprobe wireguard), or use the userspace backend instead"
    )]
    NoKernelWireGuard,
    /// A filter was asked for of the kernel's WireGuard.
    #[error(
        "the kernel's WireGuard cannot filter packets itself: use the userspace backend, or enforce the policy on its link"
    )]
    KernelFilter,
    /// The events of the filter have a reader.
    #[error("the filter events of {0} are taken already: there can be one reader")]
    EventsTaken(String),
    /// No TUN device could be made.
    #[error(
        "cannot open a TUN device: {0}; is the tun module loaded, /dev/net/tun there, and CAP_NET_ADMIN held?"
    )]
    Tun(#[source] io::Error),
    /// The underlay gave no UDP socket.
    #[error("cannot open the WireGuard UDP socket in the underlay: {0}")]
    Socket(#[source] io::Error),
    /// The underlay gave no sockets beside that of the kernel's WireGuard.
    #[error(
        "cannot open sockets beside the kernel's WireGuard in the underlay: {0}; run with CAP_NET_RAW, or use the userspace backend instead"
    )]
    KernelSocket(#[source] io::Error),
    /// A namespace could not be entered.
    #[error("cannot enter a network namespace: {0}; run as root (CAP_SYS_ADMIN)")]
    Namespace(#[source] io::Error),
    /// A step on the link failed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The kernel refused a WireGuard setting.
    #[error("cannot configure the WireGuard device {name}: {source}")]
    Configure {
        /// The link.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No stack can be made of what is configured.
    #[error("cannot start the TCP/IP stack of {name}: {source}")]
    Stack {
        /// The device.
        name: String,
        /// What is wrong.
        source: lattice_netstack::Error,
    },
    /// No thread, event descriptor or the like.
    #[error("cannot start the WireGuard device {name}: {source}")]
    Start {
        /// The link.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The device's thread has ended, as it does when somebody deletes its link.
    #[error("the WireGuard device {0} has stopped: was its link deleted? Restart to make it anew")]
    Stopped(String),
    /// More peers than one device takes.
    #[error("{0} peers are too many for one WireGuard device (at most {MAX_PEERS})")]
    TooManyPeers(usize),
}
