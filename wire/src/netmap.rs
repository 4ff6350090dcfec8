//! The network map: what the control plane tells one peer.

use std::net::SocketAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::{PeerId, PeerName, WgPublicKey, WorkspaceId};

/// Most peers a receiver accepts in one map; a bigger one is refused rather than allocated for.
pub const MAX_PEERS: usize = 10_000;

/// Most layers of a policy, and most rules of a layer and direction, that a receiver accepts.
pub const MAX_LAYERS: usize = 8;
/// See [`MAX_LAYERS`].
pub const MAX_LAYER_RULES: usize = 20_000;

/// Most endpoint candidates kept per peer.
pub const MAX_ENDPOINTS: usize = 16;

/// What one peer must know of its workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetMap {
    /// The history that [`NetMap::generation`] counts in: a random number that a database gets when it is made and whenever it is
    /// restored. Generations of different epochs do not compare.
    pub epoch: u64,
    /// Grows by at least one with every change of this map. A receiver ignores a map of its epoch that is not newer than its own.
    pub generation: u64,
    /// The receiver's workspace.
    pub workspace: WorkspaceId,
    /// Its name, which never changes: `<peer>.<name>.lattice` is a peer's name too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_name: Option<String>,
    /// The receiver's id.
    pub peer: PeerId,
    /// The receiver's overlay address (a /32 within `pool`).
    pub address: Ipv4Net,
    /// Every overlay address of this control plane lies in here.
    pub pool: Ipv4Net,
    /// The workspace's own, a /48 (RFC 4193). Each peer has, beside every address that it leases of `pool`, the one of this prefix that ends in
    /// it. So no IPv6 address is sent, none needs a lease of its own, and none can belong to two peers or to another than its IPv4 address.
    pub prefix: Ipv6Net,
    /// The other peers of the workspace.
    pub peers: Vec<MapPeer>,
    /// Unix seconds after which the receiver itself is no member any more. A renewal moves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<i64>,
    /// What the control plane allows the receiver; its own flags narrow it. `None` leaves it to the flags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<MapPolicy>,
}

impl NetMap {
    /// Whether the receiver's own time is over at `now`, in Unix seconds: it is no member any more until a newer map says otherwise.
    pub fn is_over(&self, now: i64) -> bool {
        self.not_after.is_some_and(|at| at <= now)
    }
}

/// What the control plane allows one peer: a flow passes when *every* layer allows it. Grows older and newer with its map:
/// [`NetMap::generation`] is its generation too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapPolicy {
    /// At most [`MAX_LAYERS`].
    pub layers: Vec<Layer>,
}

/// One reason for limits: a preset, or the policies of the workspace. What no rule allows is denied; a deny rule wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// For people: `preset sandboxed`, `policies`.
    pub name: String,
    /// For flows that the peer opens; the rules' networks are destinations.
    #[serde(default)]
    pub egress: Vec<MapRule>,
    /// For flows that others open to the peer; the rules' networks are sources, their ports the peer's own.
    #[serde(default)]
    pub ingress: Vec<MapRule>,
}

/// A rule of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapRule {
    /// Whether it allows; it denies otherwise.
    pub allow: bool,
    /// `[proto:]net[:ports]`, in the grammar of the policy crate.
    pub rule: String,
    /// The named policy that it comes from, for verdicts and `explain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
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
    /// Addresses of the pool that it may use as source and is reached at; those of [`NetMap::prefix`] follow. Decided by the control plane, never by the peer.
    pub allowed_ips: Vec<IpNet>,
    /// Underlay addresses to try, best first.
    pub endpoints: Vec<SocketAddr>,
    /// Heard from within the last 90 s.
    pub online: bool,
    /// Unix seconds after which the receiver must drop this peer by itself, even when latticed is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<i64>,
}
