//! What a peer keeps after enrolment. The file itself (0600, written by rename) is handled where there is I/O.

use std::fmt;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::{PeerId, PeerName, WgPrivateKey, WorkspaceId, message::TlsTrust};

/// The version this code writes.
pub const VERSION: u32 = 1;

/// A peer's secrets and what it was granted with them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// Format version; a reader refuses one it does not know.
    pub version: u32,
    /// Name under which the peer enrolled.
    pub name: PeerName,
    /// Its id.
    pub peer: PeerId,
    /// Its workspace.
    pub workspace: WorkspaceId,
    /// Its overlay address.
    pub address: Ipv4Net,
    /// The server it enrolled with.
    pub server_url: String,
    /// Where NATS was at that time; several servers are separated by commas.
    pub nats_url: String,
    /// How NATS proves who it is, pinned when the peer enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nats_tls: Option<TlsTrust>,
    /// PEM of the authority that the HTTP server's certificate must come from, when it is not one that the host trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_ca: Option<String>,
    /// NATS user JWT.
    pub nats_jwt: String,
    /// NATS user seed (`SU…`): secret.
    pub nats_seed: String,
    /// WireGuard private key: secret.
    pub wireguard_private_key: WgPrivateKey,
    /// UDP port of the WireGuard socket, kept so that a restart keeps its endpoint.
    pub listen_port: u16,
}

impl Drop for Credentials {
    fn drop(&mut self) {
        self.nats_seed.zeroize();
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("name", &self.name)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}
