//! What Lattice's parts say to each other: messages, subjects, ids, names, tokens and credentials.
//!
//! Pure: nothing here opens a socket or a file, reads a clock or draws a random number. Every type that comes from
//! outside is validated when it is parsed, so code that holds one may trust its form.

#![forbid(unsafe_code)]

pub mod credentials;
pub mod id;
pub mod key;
pub mod lrp;
pub mod message;
pub mod name;
pub mod netmap;
pub mod reach;
pub mod relay_token;
pub mod seal;
pub mod signal;
pub mod subject;
pub mod token;
pub mod trust;
pub mod update;

pub use credentials::Credentials;
pub use id::{PeerId, WorkspaceId};
pub use key::{WgPrivateKey, WgPublicKey};
pub use name::PeerName;
pub use netmap::{Layer, MapPeer, MapPolicy, MapRule, NetMap};
pub use reach::{HostPort, Reach, RelayServer};
pub use relay_token::RelayClaims;
pub use signal::Signal;
pub use token::{AdminToken, Token};
pub use update::{Applied, MapDelta, MapRequest, MapUpdate, MapVersion};

/// UDP port of WireGuard and ICE, TCP port of NATS and TCP port of the HTTP API, unless configured otherwise.
pub mod port {
    /// WireGuard and ICE share one UDP socket.
    pub const WIREGUARD: u16 = 51820;
    /// NATS client port.
    pub const NATS: u16 = 4222;
    /// HTTP API.
    pub const HTTP: u16 = 8080;
}
