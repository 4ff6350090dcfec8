//! The network map: what the control plane tells one peer.

use std::net::SocketAddr;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::{PeerId, PeerName, WgPublicKey, WorkspaceId};

/// Most peers a receiver accepts in one map; a bigger one is refused rather than allocated for.
pub const MAX_PEERS: usize = 10_000;

/// Most endpoint candidates kept per peer.
pub const MAX_ENDPOINTS: usize = 16;

/// What one peer must know of its workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetMap {
    /// Grows by at least one with every change of this map. A receiver ignores a map that is not newer than its own.
    pub generation: u64,
    /// The receiver's workspace.
    pub workspace: WorkspaceId,
    /// The receiver's id.
    pub peer: PeerId,
    /// The receiver's overlay address (a /32 within `pool`).
    pub address: Ipv4Net,
    /// Every overlay address of this control plane lies in here.
    pub pool: Ipv4Net,
    /// The other peers of the workspace.
    pub peers: Vec<MapPeer>,
}

/// Another peer, as the receiver's WireGuard device must know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapPeer {
    /// Its id.
    pub id: PeerId,
    /// Its name; it answers to `<name>.lattice`.
    pub name: PeerName,
    /// Its key.
    pub public_key: WgPublicKey,
    /// Addresses it may use as source and is reached at. Decided by the control plane, never by the peer.
    pub allowed_ips: Vec<IpNet>,
    /// Underlay addresses to try, best first.
    pub endpoints: Vec<SocketAddr>,
    /// Heard from within the last 90 s.
    pub online: bool,
    /// Unix seconds after which the receiver must drop this peer by itself, even when latticed is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<i64>,
}
