//! The WireGuard device: one link in the namespace to protect, one UDP socket in the underlay, two backends.
//!
//! A device is created with its link down and without address or peer: nothing can use it before its owner has put the
//! policy in place. Dropping it removes the link.

mod clock;
mod commands;
pub(crate) mod core;
mod engine;
mod error;
mod filter;
pub(crate) mod gate;
mod kernel;
mod loopback;
mod paths;
mod probe;
mod ready;
mod relays;
mod tun;
mod udp;
pub(crate) mod userspace;
pub(crate) mod vnet;
mod ways;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    str::FromStr,
    sync::Arc,
    time::SystemTime,
};

use lattice_wire::{WgPrivateKey, WgPublicKey, netmap::MAX_PEERS};

use crate::{Netns, gateway::GatewayConfig, link};
pub use error::DeviceError;
pub use filter::{FilterEvents, UserFilter};
pub use lattice_paths::PathStatus;
pub use lattice_wireguard::{Drops, Path, PeerConfig};
pub use loopback::LoopbackPorts;
pub use paths::{PathFinder, PathsConfig, RelayStatus, Servers, Signals};
pub use probe::{can_create, kernel_has_wireguard, tun_usable};

/// Which implementation of WireGuard moves the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The kernel's own.
    Kernel,
    /// This process, through `/dev/net/tun`.
    UserSpace,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kernel => "kernel",
            Self::UserSpace => "userspace",
        })
    }
}

/// Which backend to take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// The kernel's where it has one and no filter is asked for, else user space. To look for peers beside the kernel's takes `CAP_NET_RAW`.
    #[default]
    Auto,
    /// The kernel's or none.
    Kernel,
    /// User space, even where the kernel has one.
    UserSpace,
}

/// Not a backend's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown WireGuard backend {0:?}: use auto, kernel or userspace")]
pub struct UnknownBackend(String);

impl FromStr for BackendChoice {
    type Err = UnknownBackend;
    fn from_str(text: &str) -> Result<Self, UnknownBackend> {
        match text {
            "auto" => Ok(Self::Auto),
            "kernel" => Ok(Self::Kernel),
            "userspace" => Ok(Self::UserSpace),
            other => Err(UnknownBackend(other.into())),
        }
    }
}

/// What a device is made from.
#[derive(Debug)]
pub struct DeviceConfig {
    /// The link's name in `inside`: 1 to 15 bytes.
    pub name: String,
    /// This peer's key.
    pub private_key: WgPrivateKey,
    /// The UDP port in `underlay`; 0 takes any, and so does a port that is taken.
    pub listen_port: u16,
    /// The link's MTU in bytes.
    pub mtu: u16,
    /// The namespace the encrypted packets leave by.
    pub underlay: Arc<Netns>,
    /// The namespace the link appears in.
    pub inside: Arc<Netns>,
    /// Has the device judge the link's packets itself; see [`Device::filter`]. Only user space can: `Auto` takes it then.
    pub filter: Option<FilterConfig>,
    /// Has the device find paths itself; see [`Device::paths`]. Otherwise it tries the endpoints that it is given.
    pub paths: Option<PathsConfig>,
}

/// What a device's filter is made from.
#[derive(Debug, Clone)]
pub struct FilterConfig {
    /// The sandbox's own addresses: the only ones it may send from, and the only ones that others reach.
    pub own: Vec<IpAddr>,
}

/// What the device knows of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its key.
    pub public_key: WgPublicKey,
    /// Where its last authenticated packet came from; a configured endpoint before the first one, if any.
    pub endpoint: Option<SocketAddr>,
    /// The path to it and how it was found, where the device finds paths.
    pub path: Option<PathStatus>,
    /// When the last handshake was completed.
    pub last_handshake: Option<SystemTime>,
    /// Bytes received from it.
    pub rx_bytes: u64,
    /// Bytes sent to it.
    pub tx_bytes: u64,
}

/// A WireGuard device. Dropping it removes its link and ends its threads.
pub trait Device: Send + Sync + fmt::Debug {
    /// Which implementation it is.
    fn backend(&self) -> Backend;

    /// Its link's name.
    fn name(&self) -> &str;

    /// The UDP port it listens on in the underlay.
    fn listen_port(&self) -> u16;

    /// Makes `peers` the device's peers: adds, changes and removes. Peers that stay keep their sessions.
    ///
    /// # Errors
    /// When there are too many, or the device is gone.
    fn set_peers(&self, peers: &[PeerConfig]) -> Result<(), DeviceError>;

    /// The peers, in no order.
    ///
    /// # Errors
    /// When the device is gone.
    fn peers(&self) -> Result<Vec<PeerStatus>, DeviceError>;

    /// Packets dropped so far, by reason. The kernel's WireGuard tells fewer reasons apart, and does not count what is not authentic.
    ///
    /// # Errors
    /// When the device is gone.
    fn drops(&self) -> Result<Drops, DeviceError>;

    /// Path finding, where it was asked for in the [`DeviceConfig`] and the backend has it.
    fn paths(&self) -> Option<&PathFinder> {
        None
    }

    /// The filter that was asked for in the [`DeviceConfig`], which lets nothing pass until it is given a policy. It judges
    /// this link's packets and no others: that there is no other link in the namespace is its owner's care.
    fn filter(&self) -> Option<&UserFilter> {
        None
    }
}

/// Creates a device: its link is in `inside`, down and without address; its UDP socket is in `underlay`.
///
/// # Errors
/// When the name is invalid or taken, or the chosen backend cannot run here or cannot filter.
pub fn create(config: DeviceConfig, choice: BackendChoice) -> Result<Box<dyn Device>, DeviceError> {
    check_name(&config.name)?;
    let kernel = match choice {
        BackendChoice::Auto => {
            config.filter.is_none() && kernel_has_wireguard() && kernel::can_find_paths(&config.underlay)
        }
        BackendChoice::Kernel if config.filter.is_some() => return Err(DeviceError::KernelFilter),
        BackendChoice::Kernel if !kernel_has_wireguard() => return Err(DeviceError::NoKernelWireGuard),
        BackendChoice::Kernel => true,
        BackendChoice::UserSpace => false,
    };
    let (name, inside) = (config.name.clone(), Arc::clone(&config.inside));
    let device: Box<dyn Device> = if kernel {
        Box::new(kernel::KernelDevice::create(config)?)
    } else {
        Box::new(userspace::UserSpaceDevice::create(config)?)
    };
    // Otherwise the kernel's own router solicitations would be the first packets that the policy sees.
    link::set_no_link_local(&inside, &name)?;
    Ok(device)
}

/// Makes a link for [`create_on`] in the network namespace of the calling thread: down, without address. It goes when all copies of the descriptor are closed.
///
/// # Errors
/// When the name is invalid or taken, there is no `/dev/net/tun` for this user, or no `CAP_NET_ADMIN`.
pub fn open_link(name: &str) -> Result<OwnedFd, DeviceError> {
    check_name(name)?;
    let tun = userspace::open(name)?;
    let here = Netns::current().map_err(DeviceError::Namespace)?;
    link::set_no_link_local(&here, name)?;
    Ok(tun.into())
}

/// Creates a device in user space whose link was made by [`open_link`], in a namespace that this process need not be able to enter: `inside` is not
/// used, and the link's MTU is its owner's care. With a `gateway`, which takes a filter, what the filter lets out to other addresses than
/// the overlay's goes there. Ports of `loopback` are those of the host behind the link. `ended` is called when the device does no more, by itself or because it was dropped.
///
/// # Errors
/// When the name is invalid, or there is no socket or thread left.
pub fn create_on(
    config: DeviceConfig,
    link: OwnedFd,
    gateway: Option<GatewayConfig>,
    loopback: Option<LoopbackPorts>,
    ended: impl FnOnce() + Send + 'static,
) -> Result<Box<dyn Device>, DeviceError> {
    check_name(&config.name)?;
    let device =
        userspace::UserSpaceDevice::on(config, tun::Tun::handed(link), gateway, loopback, Box::new(ended))?;
    Ok(Box::new(device))
}

/// The kernel's `dev_valid_name`, less `%`, which it takes for a pattern.
fn check_name(name: &str) -> Result<(), DeviceError> {
    let valid = (1..libc::IFNAMSIZ).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%'));
    if valid { Ok(()) } else { Err(DeviceError::Name(name.into())) }
}

fn check_count(peers: &[PeerConfig]) -> Result<(), DeviceError> {
    if peers.len() > MAX_PEERS { Err(DeviceError::TooManyPeers(peers.len())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_kernel_would_refuse_or_expand_are_refused() {
        for good in ["wg0", "wf0", "a", "abcdefghijklmno"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "a:b", "wg%d", "abcdefghijklmnop", "wg\n", "wg\u{e9}"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn backends_are_named() {
        assert_eq!("auto".parse(), Ok(BackendChoice::Auto));
        assert_eq!(Backend::UserSpace.to_string().parse(), Ok(BackendChoice::UserSpace));
        assert_eq!(Backend::Kernel.to_string().parse(), Ok(BackendChoice::Kernel));
        assert!("Kernel".parse::<BackendChoice>().is_err());
    }
}
