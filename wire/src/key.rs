//! WireGuard keys (Curve25519, RFC 7748) in the base64 form that `wg` prints.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Why a string is not a WireGuard key. Never carries the text: it may be a private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid WireGuard key: expected 32 bytes in base64 (44 characters)")]
pub struct InvalidKey;

fn decode(text: &str) -> Result<[u8; 32], InvalidKey> {
    let mut out = [0; 32];
    match STANDARD.decode_slice(text, &mut out) {
        Ok(32) => Ok(out),
        _ => Err(InvalidKey),
    }
}

/// A peer's public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WgPublicKey(pub [u8; 32]);

impl FromStr for WgPublicKey {
    type Err = InvalidKey;
    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        decode(text).map(Self)
    }
}

impl TryFrom<String> for WgPublicKey {
    type Error = InvalidKey;
    fn try_from(text: String) -> Result<Self, InvalidKey> {
        text.parse()
    }
}

impl From<WgPublicKey> for String {
    fn from(key: WgPublicKey) -> String {
        key.to_string()
    }
}

impl fmt::Display for WgPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for WgPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A private key. It never leaves its host: it serializes only into the credentials file, prints as `[redacted]`, and
/// is wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct WgPrivateKey([u8; 32]);

impl WgPrivateKey {
    /// A key from 32 random bytes, clamped as RFC 7748 section 5 asks.
    pub fn from_random(mut random: [u8; 32]) -> Self {
        random[0] &= 248;
        random[31] = (random[31] & 127) | 64;
        let key = Self(random);
        random.zeroize();
        key
    }

    /// The public half.
    pub fn public(&self) -> WgPublicKey {
        let secret = x25519_dalek::StaticSecret::from(self.0);
        WgPublicKey(x25519_dalek::PublicKey::from(&secret).to_bytes())
    }

    /// The raw bytes, for the device that does the handshakes.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for WgPrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Serialize for WgPrivateKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for WgPrivateKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut text = String::deserialize(deserializer)?;
        let key = decode(&text).map(Self).map_err(serde::de::Error::custom);
        text.zeroize();
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7748 section 6.1, Alice's key pair.
    #[test]
    fn public_half_matches_the_rfc() {
        let secret = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
        let key: WgPrivateKey = serde_json::from_value(secret.into()).unwrap();
        assert_eq!(key.public().to_string(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
    }

    #[test]
    fn never_prints_a_private_key() {
        let key = WgPrivateKey::from_random([9; 32]);
        assert_eq!(format!("{key:?}"), "[redacted]");
    }

    #[test]
    fn refuses_wrong_lengths() {
        for bad in ["", "AAAA", &"A".repeat(44), "not base64 at all, sorry, sorry, sorry, sorr"] {
            assert!(bad.parse::<WgPublicKey>().is_err(), "{bad}");
        }
    }
}
