//! What a peer is made from.

use std::net::SocketAddr;

use ipnet::IpNet;
use lattice_wire::WgPublicKey;

/// A peer as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its key.
    pub public_key: WgPublicKey,
    /// What it may send from and is reached at. Of two peers that list the same network, the later gets it.
    pub allowed_ips: Vec<IpNet>,
    /// Where to try it, best first; those beyond [`MAX_ENDPOINTS`](lattice_wire::netmap::MAX_ENDPOINTS) are ignored.
    pub endpoints: Vec<SocketAddr>,
    /// Seconds between keepalives, which also make the device connect at once; `None` sends none.
    pub keepalive: Option<u16>,
}
