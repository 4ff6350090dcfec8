//! The overlay's data plane: the WireGuard device with its two backends, and the network namespaces it joins.
//!
//! ```text
//!   device ── create, set_peers, peers
//!     ├─ kernel      wireguard-control + link
//!     └─ userspace   core: gate (the policy, where asked for) ─ wireguard (pure state) ─ udp, relays; and inside
//!         ├─ a link      engine: poll ─ tun ─ vnet (many packets in one)
//!         └─ stack       engine: a task ─ netstack (pure state) ─ sockets for other tasks
//!   gateway   the way of a link's flows to addresses outside the overlay: a stack, whose streams the owner takes on
//!   relay     a lasting connection to a relay
//!   link      links, addresses, routes of a namespace
//!   uplink    an agent's way out of the overlay: veth, NAT, forwarding
//!   userns    a user namespace, its network and its mounts, for those who are not root
//!   endpoint  the underlay addresses a peer can be tried at
//! ```

pub mod device;
mod endpoint;
pub mod fuzz;
pub mod gateway;
pub mod link;
pub mod netns;
pub mod relay;
pub mod stack;
pub mod uplink;
pub mod userns;

pub use device::{
    Backend, BackendChoice, Device, DeviceConfig, DeviceError, Drops, FilterConfig, FilterEvents,
    LoopbackPorts, Path, PathFinder, PathStatus, PathsConfig, PeerConfig, PeerStatus, RelayStatus, Servers,
    Signals, UserFilter, can_create, create, create_on, kernel_has_wireguard, open_link, tun_usable,
};
pub use endpoint::endpoints;
pub use lattice_paths::address::{canonical, may_be_probed};
pub use link::{Link, LinkError};
pub use netns::Netns;
pub use relay::{RelayDrops, RelayState};
pub use uplink::{Uplink, UplinkConfig, UplinkError, UplinkId};
