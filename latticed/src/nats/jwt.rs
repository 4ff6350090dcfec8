//! Encodes NATS JWTs (version 2, Ed25519 by nkey), as `nats-server` and `nsc` write and read them.

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use nkeys::KeyPair;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha512_256};

/// Base64 of `{"typ":"JWT","alg":"ed25519-nkey"}`.
const HEADER: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ";

/// Why a JWT could not be made.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    /// The signing key is not one.
    #[error("cannot sign a NATS JWT: {0}")]
    Key(#[from] nkeys::error::Error),
    /// The claims cannot be written.
    #[error("cannot encode a NATS JWT: {0}")]
    Json(#[from] serde_json::Error),
}

/// What a JWT says.
#[derive(Debug)]
pub(super) struct Claims<'a> {
    /// Name for people.
    pub(super) name: &'a str,
    /// Public key that it is about.
    pub(super) subject: &'a str,
    /// Unix seconds.
    pub(super) issued_at: i64,
    /// Unix seconds.
    pub(super) expires_at: Option<i64>,
    /// What depends on the kind: its `type`, `version`, limits and permissions.
    pub(super) nats: Value,
}

/// The fields that every kind has, in the order of the reference implementation: `jti` is a hash of their text.
#[derive(Serialize)]
struct Registered<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    iat: i64,
    iss: &'a str,
    name: &'a str,
    sub: &'a str,
}

#[derive(Serialize)]
struct Payload<'a> {
    #[serde(flatten)]
    registered: Registered<'a>,
    nats: &'a Value,
}

/// The JWT of `claims`, signed by `issuer`.
///
/// # Errors
/// When `issuer` has no private half.
pub(super) fn encode(issuer: &KeyPair, claims: &Claims<'_>) -> Result<String, JwtError> {
    let public_key = issuer.public_key();
    let mut registered = Registered {
        exp: claims.expires_at,
        jti: None,
        iat: claims.issued_at,
        iss: &public_key,
        name: claims.name,
        sub: claims.subject,
    };
    registered.jti = Some(BASE32_NOPAD.encode(&Sha512_256::digest(serde_json::to_vec(&registered)?)));
    let payload = serde_json::to_vec(&Payload { registered, nats: &claims.nats })?;
    let signed = format!("{HEADER}.{}", BASE64URL_NOPAD.encode(&payload));
    let signature = issuer.sign(signed.as_bytes())?;
    Ok(format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature)))
}

#[cfg(test)]
pub(super) mod tests {
    use nkeys::KeyPairType;
    use serde_json::json;

    use super::*;

    /// The claims of a JWT, unverified.
    pub(in crate::nats) fn claims(jwt: &str) -> Value {
        let payload = jwt.split('.').nth(1).unwrap();
        serde_json::from_slice(&BASE64URL_NOPAD.decode(payload.as_bytes()).unwrap()).unwrap()
    }

    /// Made by github.com/nats-io/jwt/v2 v2.5.0 from the same keys, claims and time.
    const REFERENCE: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.eyJqdGkiOiIyQVVTSlJTVVpUSkUyTEJUN0xVNEJMRllUNVFZTlNQNFpFRk5WTVBFTDdZR0RXVUVDTDRBIiwiaWF0IjoxNzk1MzEyOTk3LCJpc3MiOiJPQTVXVUo1NFoyM0tJTExDVU9VTkFLVFBCVlpXS01RVk80TzZFUTVHSExBRVJJTUxMSE5DU0tURSIsIm5hbWUiOiJMQVRUSUNFIiwic3ViIjoiT0E1V1VKNTRaMjNLSUxMQ1VPVU5BS1RQQlZaV0tNUVZPNE82RVE1R0hMQUVSSU1MTEhOQ1NLVEUiLCJuYXRzIjp7InN5c3RlbV9hY2NvdW50IjoiQUNGSVJZNjVPUUU3REZQNUtMTlMyUEYyTFZaTVVaWUpYNE9aSUVRMzZOMklRQU5VQjVYVllZT1UiLCJ0eXBlIjoib3BlcmF0b3IiLCJ2ZXJzaW9uIjoyfX0.6T6DsZbToPiuR4NEAecum3PZdtjMDzXsMnpst76WYvDHDC0GC1uNEJvtKBjywi8Axzo67PHAizyzPHyNTVZTBQ";

    #[test]
    fn equals_the_reference_implementation() {
        let operator = KeyPair::new_from_raw(KeyPairType::Operator, [0; 32]).unwrap();
        let account = KeyPair::new_from_raw(KeyPairType::Account, [1; 32]).unwrap();
        let claims = Claims {
            name: "LATTICE",
            subject: &operator.public_key(),
            issued_at: 1_795_312_997,
            expires_at: None,
            nats: json!({"system_account": account.public_key(), "type": "operator", "version": 2}),
        };
        assert_eq!(encode(&operator, &claims).unwrap(), REFERENCE);
    }

    #[test]
    fn an_expiry_is_part_of_the_id() {
        let key = KeyPair::new_account();
        let jwt = |expires_at| {
            let claims = Claims { name: "x", subject: "U", issued_at: 1, expires_at, nats: json!({}) };
            super::tests::claims(&encode(&key, &claims).unwrap())
        };
        let without = jwt(None);
        assert!(without.get("exp").is_none());
        assert_eq!(jwt(Some(2))["exp"], 2);
        assert_ne!(jwt(Some(2))["jti"], without["jti"]);
    }
}
