//! How peers reach each other where no address of their own will do: the STUN servers that say how the world sees a peer, and the
//! relays that carry what nothing else does.

use serde::{Deserialize, Serialize};

/// Most STUN servers, and most relays, that a receiver takes; what is beyond is ignored.
pub const MAX_SERVERS: usize = 8;

/// What latticed tells a peer that asks.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// `host:port` of STUN servers (RFC 8489), over UDP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stun: Vec<String>,
    /// The relays, in no order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relays: Vec<RelayServer>,
    /// Proves to each of them who the receiver is; `None` without relays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay_token: Option<String>,
    /// Unix seconds at which the token ends; ask for the next one at half of its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_not_after: Option<i64>,
}

/// One relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayServer {
    /// For people, and the same for all peers: what signals call it by.
    pub name: String,
    /// `host:port` of LRP over QUIC; at least one of the two is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quic: Option<String>,
    /// `host:port` of LRP over TLS on TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<String>,
    /// SHA-256 of its certificate in DER, in lower-case hex: nothing else proves a relay.
    pub fingerprint: String,
}

impl std::fmt::Debug for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reach")
            .field("stun", &self.stun)
            .field("relays", &self.relays)
            .finish_non_exhaustive()
    }
}
