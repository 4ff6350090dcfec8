//! Relay tokens: latticed says to the relays who a peer is.
//!
//! `lr-<payload>.<signature>`, both base64 for URLs (RFC 4648 section 5, no padding). The payload is the JSON of [`RelayClaims`], the
//! signature is Ed25519 by an nkey of latticed's over a label and the payload. A token is not a bearer credential: whoever shows it
//! must also prove to hold the nkey that it names ([`crate::lrp::proof_bytes`]).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use nkeys::{KeyPair, KeyPairType};
use serde::{Deserialize, Serialize};

use crate::{WgPublicKey, WorkspaceId};

/// Longest token that is looked at, in bytes.
pub const MAX_TOKEN: usize = 1024;
/// Most keys that a relay trusts: each is tried.
pub const MAX_TRUSTED: usize = 8;

const PREFIX: &str = "lr-";
/// No other Lattice signature is over bytes that begin so.
const LABEL: &[u8] = b"lattice-relay-token-v1\0";

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayClaims {
    /// Within which it may reach others.
    pub workspace: WorkspaceId,
    /// Its address on the relay.
    pub wireguard: WgPublicKey,
    /// Its NATS user nkey (`U…`), which it proves to hold.
    pub nats: String,
    /// Unix seconds at which the token ends.
    pub not_after: i64,
}

/// Why a token opens nothing. Never carries its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRelayToken {
    /// Its parts are not as they should be.
    #[error("the relay token is malformed")]
    Form,
    /// None of the trusted keys has signed it.
    #[error("the relay token is not signed by a key that this relay trusts (--trust)")]
    Signer,
    /// Its time is over.
    #[error("the relay token has expired")]
    Expired,
}

/// `GET /api/v1/relay-key`: who signs relay tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayKeys {
    /// Public nkeys; more than one while latticed changes over to another.
    pub keys: Vec<String>,
}

/// The keys whose tokens a relay accepts.
#[derive(Clone)]
pub struct TrustedKeys(Vec<KeyPair>);

/// Why keys cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTrustedKeys {
    /// One is not a public nkey.
    #[error("{0:?} is no public nkey: expected 56 characters, as latticed prints them")]
    Key(String),
    /// Nobody could ever connect, or too many would have to be tried.
    #[error("expected 1 to {MAX_TRUSTED} keys")]
    Count,
}

impl TrustedKeys {
    /// Reads public nkeys.
    ///
    /// # Errors
    /// When one is none, and when there are none or more than [`MAX_TRUSTED`].
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidTrustedKeys> {
        let mut read = Vec::new();
        for key in keys {
            if read.len() == MAX_TRUSTED {
                return Err(InvalidTrustedKeys::Count);
            }
            let quoted = || InvalidTrustedKeys::Key(key.chars().take(64).collect());
            read.push(KeyPair::from_public_key(key).map_err(|_| quoted())?);
        }
        if read.is_empty() { Err(InvalidTrustedKeys::Count) } else { Ok(Self(read)) }
    }
}

impl std::fmt::Debug for TrustedKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(KeyPair::public_key)).finish()
    }
}

/// A token for `claims`, signed by `issuer`.
///
/// # Errors
/// When `issuer` has no private half.
pub fn issue(claims: &RelayClaims, issuer: &KeyPair) -> Result<String, nkeys::error::Error> {
    // Strings and a number: this cannot fail.
    let payload = serde_json::to_vec(claims).unwrap_or_default();
    let signature = issuer.sign(&signed(&payload))?;
    Ok(format!("{PREFIX}{}.{}", URL_SAFE_NO_PAD.encode(payload), URL_SAFE_NO_PAD.encode(signature)))
}

/// What `token` says, if one of `trusted` has signed it and it is still good at `now`, in Unix seconds. Nothing of the payload is
/// looked at before its signature.
///
/// # Errors
/// See [`InvalidRelayToken`].
pub fn verify(token: &str, trusted: &TrustedKeys, now: i64) -> Result<RelayClaims, InvalidRelayToken> {
    let (payload, signature) = parts(token).ok_or(InvalidRelayToken::Form)?;
    let signed = signed(&payload);
    if !trusted.0.iter().any(|key| key.verify(&signed, &signature).is_ok()) {
        return Err(InvalidRelayToken::Signer);
    }
    let claims: RelayClaims = serde_json::from_slice(&payload).map_err(|_| InvalidRelayToken::Form)?;
    user_key(&claims.nats).ok_or(InvalidRelayToken::Form)?;
    if claims.not_after <= now { Err(InvalidRelayToken::Expired) } else { Ok(claims) }
}

impl RelayClaims {
    /// Whether the holder of [`RelayClaims::nats`] has signed `message`.
    pub fn is_signed_by_holder(&self, message: &[u8], signature: &[u8]) -> bool {
        user_key(&self.nats).is_some_and(|key| key.verify(message, signature).is_ok())
    }

    /// Whether both are of one peer: only then may the one take the other's place.
    pub fn is_same_peer(&self, other: &Self) -> bool {
        (&self.workspace, &self.wireguard, &self.nats) == (&other.workspace, &other.wireguard, &other.nats)
    }
}

fn user_key(text: &str) -> Option<KeyPair> {
    KeyPair::from_public_key(text).ok().filter(|key| key.key_pair_type() == KeyPairType::User)
}

fn parts(token: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let body = token.strip_prefix(PREFIX).filter(|_| token.len() <= MAX_TOKEN)?;
    let (payload, signature) = body.split_once('.')?;
    Some((URL_SAFE_NO_PAD.decode(payload).ok()?, URL_SAFE_NO_PAD.decode(signature).ok()?))
}

fn signed(payload: &[u8]) -> Vec<u8> {
    [LABEL, payload].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claims() -> RelayClaims {
        RelayClaims {
            workspace: WorkspaceId::from_random([1; 10]),
            wireguard: WgPublicKey([2; 32]),
            nats: KeyPair::new_user().public_key(),
            not_after: 1000,
        }
    }

    fn trust(key: &KeyPair) -> TrustedKeys {
        TrustedKeys::new([key.public_key().as_str()]).unwrap()
    }

    #[test]
    fn says_what_was_signed_until_it_ends() {
        let (issuer, claims) = (KeyPair::new_account(), claims());
        let token = issue(&claims, &issuer).unwrap();
        assert_eq!(verify(&token, &trust(&issuer), 999), Ok(claims));
        assert_eq!(verify(&token, &trust(&issuer), 1000), Err(InvalidRelayToken::Expired));
    }

    #[test]
    fn nobody_elses_signature_counts() {
        let token = issue(&claims(), &KeyPair::new_account()).unwrap();
        assert_eq!(verify(&token, &trust(&KeyPair::new_account()), 0), Err(InvalidRelayToken::Signer));
        let issuer = KeyPair::new_account();
        let payload = serde_json::to_vec(&claims()).unwrap();
        let unlabelled = URL_SAFE_NO_PAD.encode(issuer.sign(&payload).unwrap());
        let token = format!("{PREFIX}{}.{unlabelled}", URL_SAFE_NO_PAD.encode(payload));
        assert_eq!(verify(&token, &trust(&issuer), 0), Err(InvalidRelayToken::Signer));
    }

    #[test]
    fn a_key_that_is_no_users_is_no_peers() {
        let issuer = KeyPair::new_account();
        let claims = RelayClaims { nats: issuer.public_key(), ..claims() };
        let token = issue(&claims, &issuer).unwrap();
        assert_eq!(verify(&token, &trust(&issuer), 0), Err(InvalidRelayToken::Form));
    }

    #[test]
    fn trust_is_never_empty_and_never_long() {
        assert_eq!(TrustedKeys::new([]).unwrap_err(), InvalidTrustedKeys::Count);
        let keys: Vec<String> = (0..9).map(|_| KeyPair::new_account().public_key()).collect();
        assert_eq!(TrustedKeys::new(keys.iter().map(String::as_str)).unwrap_err(), InvalidTrustedKeys::Count);
        assert!(matches!(TrustedKeys::new(["A"]), Err(InvalidTrustedKeys::Key(_))));
    }

    proptest! {
        #[test]
        fn one_changed_byte_is_found(at in any::<prop::sample::Index>(), flip in 1u8..=255) {
            let issuer = KeyPair::new_account();
            let token = issue(&claims(), &issuer).unwrap();
            let mut bytes = token.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            if let Ok(text) = String::from_utf8(bytes) {
                prop_assert!(verify(&text, &trust(&issuer), 0).is_err());
            }
        }

        #[test]
        fn any_text_may_come(text in "(lr-)?[A-Za-z0-9_-]{0,40}(\\.\\PC{0,90})?") {
            let issuer = KeyPair::from_public_key(&KeyPair::new_account().public_key()).unwrap();
            prop_assert!(verify(&text, &TrustedKeys(vec![issuer]), 0).is_err());
        }
    }
}
