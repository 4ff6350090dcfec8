//! Requests and replies over NATS (JSON) and the HTTP documents that lead there.

use std::net::SocketAddr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{PeerId, PeerName, WgPublicKey, WorkspaceId};

/// Largest request or reply that either side accepts, in bytes.
pub const MAX_MESSAGE: usize = 4 << 20;

/// How often a peer says that it is alive, in seconds.
pub const HEARTBEAT_SECS: u64 = 30;

/// After how many seconds without a heartbeat a peer counts as offline.
pub const OFFLINE_SECS: u64 = 90;

/// How often a peer asks for its map as the safety net below the push, in seconds.
pub const REFRESH_SECS: u64 = 15;

/// `GET /api/v1/signaling`: where NATS is, and a credential for one enrolment.
#[derive(Clone, Serialize, Deserialize)]
pub struct Signaling {
    /// `nats://host:port`, as the caller can reach it; several servers of a cluster are separated by commas.
    pub nats_url: String,
    /// A short-lived user that may publish [`crate::subject::ENROLL`] and read its own inbox, nothing else.
    pub bootstrap: BootstrapUser,
    /// How NATS proves who it is. Pinned in the credentials at enrolment. `None`: by a certificate that the host trusts
    /// anyway (`tls://`), or not at all (`nats://`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nats_tls: Option<TlsTrust>,
}

/// A certificate authority to trust, and it alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsTrust {
    /// PEM of its certificate.
    pub ca: String,
    /// The name in the server's certificate when it is not the host of the URL. Only sound because the authority signs for
    /// this control plane and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The NATS user of one enrolment.
#[derive(Clone, Serialize, Deserialize)]
pub struct BootstrapUser {
    /// User JWT.
    pub jwt: String,
    /// nkey seed (`SU…`) of that JWT.
    pub seed: String,
    /// Inbox prefix that the JWT allows.
    pub inbox: String,
}

/// What kind of member asks to join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerKind {
    /// An agent.
    Sandbox,
    /// A host (`lattice up`).
    Node,
}

/// A request to join a workspace.
#[derive(Clone, Serialize, Deserialize)]
pub struct EnrollRequest {
    /// Name within the workspace.
    pub name: PeerName,
    /// Kind of member.
    pub kind: PeerKind,
    /// The enrollment token in clear.
    pub token: String,
    /// The peer's WireGuard public key.
    pub wireguard_public_key: WgPublicKey,
    /// The peer's NATS user nkey (`U…`).
    pub nats_public_key: String,
    /// Underlay endpoints at which the peer's WireGuard socket may be reached.
    #[serde(default)]
    pub endpoints: Vec<SocketAddr>,
    /// A preset that the peer puts on itself where its token says none: one that only narrows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// base64 of the signature by the private half of `nats_public_key` over [`EnrollRequest::signed_bytes`].
    pub proof: String,
}

impl EnrollRequest {
    /// What `proof` signs: every field that decides what is granted, each preceded by its length, under a label that
    /// no other Lattice signature uses.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let kind = match self.kind {
            PeerKind::Sandbox => "sandbox",
            PeerKind::Node => "node",
        };
        let key = self.wireguard_public_key.to_string();
        let mut out = b"lattice-enroll-v1".to_vec();
        let always = [self.name.as_str(), kind, &self.token, &key, &self.nats_public_key];
        for field in always.into_iter().chain(self.preset.as_deref()) {
            out.extend((field.len() as u32).to_be_bytes());
            out.extend(field.as_bytes());
        }
        out
    }
}

/// What an admitted peer is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollGrant {
    /// Its id.
    pub peer: PeerId,
    /// The workspace it joined.
    pub workspace: WorkspaceId,
    /// Its overlay address.
    pub address: Ipv4Net,
    /// User JWT for the key that it proved to hold.
    pub nats_jwt: String,
    /// Unix seconds at which the membership ends unless it is renewed; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<i64>,
}

/// What a renewal grants ([`crate::subject::PeerVerb::Renew`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewGrant {
    /// User JWT in place of the former one.
    pub nats_jwt: String,
    /// As in [`EnrollGrant::not_after`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<i64>,
}

/// A heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Current underlay endpoints; at most [`crate::netmap::MAX_ENDPOINTS`] are kept.
    pub endpoints: Vec<SocketAddr>,
    /// Generation of the network map that is applied.
    pub generation: u64,
}

/// A peer stops.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {
    /// It will not come back: it is to be removed, as an administrator would.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub for_good: bool,
}

/// An empty reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {}

/// Every reply: `{"ok": …}` or `{"error": …}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply<T> {
    /// Granted.
    Ok(T),
    /// Refused, and why.
    Error(Refusal),
}

/// Why latticed refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people: what failed, on what, what to do.
    pub message: String,
}

/// The kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// No such token, or its secret is wrong.
    TokenUnknown,
    /// Its time is over.
    TokenExpired,
    /// Its uses are spent.
    TokenUsed,
    /// It was revoked.
    TokenRevoked,
    /// Another peer of the workspace has the name.
    NameTaken,
    /// A living peer has the WireGuard key already.
    KeyTaken,
    /// The token does not admit this name.
    NameRefused,
    /// The token is for another preset, or the preset is none that a peer may choose for itself.
    PresetRefused,
    /// The signature does not match.
    ProofInvalid,
    /// No overlay address is free.
    PoolExhausted,
    /// The peer was removed or never existed.
    PeerUnknown,
    /// The request cannot be read.
    Malformed,
    /// Too many requests.
    RateLimited,
    /// latticed cannot do it for now: the same request may be granted later.
    Unavailable,
    /// latticed failed; its log says how.
    Internal,
    /// A code that this version does not know.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn proof_covers_field_borders() {
        let request = |name: &str, token: &str| EnrollRequest {
            name: name.parse().unwrap(),
            kind: PeerKind::Sandbox,
            token: token.into(),
            wireguard_public_key: WgPublicKey([1; 32]),
            nats_public_key: "U".into(),
            endpoints: vec![],
            preset: None,
            proof: String::new(),
        };
        assert_ne!(request("ab", "c").signed_bytes(), request("a", "bc").signed_bytes());
    }

    #[test]
    fn unknown_codes_are_read() {
        let text = r#"{"error":{"code":"from_the_future","message":"x"}}"#;
        let reply: Reply<Ack> = serde_json::from_str(text).unwrap();
        assert!(matches!(reply, Reply::Error(Refusal { code: RefusalCode::Unknown, .. })));
    }

    /// A map as latticed sends it, to be damaged.
    const MAP: &str = r#"{"ok":{"epoch":3,"generation":7,"workspace":"ws-aaaaaaaaaaaaaaaa","peer":"peer-aaaaaaaaaaaaaaaa",
        "address":"10.42.0.2/32","pool":"10.42.0.0/16","prefix":"fd12:3456:789a::/48","peers":[{"id":"peer-bbbbbbbbbbbbbbbb","name":"b",
        "public_key":"hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=","allowed_ips":["10.42.0.3/32"],
        "endpoints":["192.0.2.1:51820"],"online":true,"not_after":9}]}}"#;

    proptest! {
        #[test]
        fn damaged_messages_are_refused_or_read_and_never_worse(
            at in 0..MAP.len(),
            cut in 0usize..8,
            put in prop::collection::vec(any::<u8>(), 0..8),
        ) {
            let mut bytes = MAP.as_bytes().to_vec();
            bytes.splice(at..(at + cut).min(MAP.len()), put);
            if let Ok(Reply::Ok(map)) = serde_json::from_slice::<Reply<crate::NetMap>>(&bytes) {
                let again = serde_json::to_vec(&Reply::Ok(map.clone())).unwrap();
                prop_assert_eq!(serde_json::from_slice::<Reply<crate::NetMap>>(&again).unwrap(), Reply::Ok(map));
            }
        }

        #[test]
        fn any_bytes_may_come(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = serde_json::from_slice::<EnrollRequest>(&bytes);
            let _ = serde_json::from_slice::<Heartbeat>(&bytes);
            let _ = serde_json::from_slice::<Signaling>(&bytes);
            let _ = serde_json::from_slice::<Reply<EnrollGrant>>(&bytes);
        }
    }
}
