//! Tokens: `<prefix>-<id>-<secret>-<crc>`. `lt-` admits peers ([`Token`]), `la-` administers ([`AdminToken`]).
//!
//! `id` (10 characters) finds the row, `secret` (39 characters, 195 bits) opens, `crc` (7 characters, CRC-32) tells a mistyped or cut token from a
//! refused one without asking the server. The alphabet is lowercase base32 (RFC 4648), which survives every shell, URL
//! and YAML file. The server keeps only SHA-256 of the secret: with this much entropy a slow hash would add nothing
//! but a way to exhaust the server.

use std::{fmt, marker::PhantomData, str::FromStr};

use sha2::{Digest, Sha256};
use zeroize::Zeroize;

const ID_LEN: usize = 10;
const SECRET_LEN: usize = 39;
const CRC_LEN: usize = 7;

/// Why a string is not a token. Never carries the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// The parts, their lengths or their alphabet are wrong.
    #[error("not an {what}: expected {prefix}-<id>-<secret>-<checksum>, as `{made_by}` printed it")]
    Form {
        /// What was expected.
        what: &'static str,
        /// How that begins.
        prefix: &'static str,
        /// Which command makes one.
        made_by: &'static str,
    },
    /// The form is right and the checksum is not: mistyped or truncated.
    #[error("{what} is damaged (its checksum does not match): copy it again from where it was created")]
    Checksum {
        /// What was expected.
        what: &'static str,
    },
}

/// What a token is for. One kind is never taken for another.
pub trait Purpose {
    /// How it begins.
    const PREFIX: &'static str;
    /// Its name in messages.
    const WHAT: &'static str;
    /// The command that makes one.
    const MADE_BY: &'static str;
}

/// Admits peers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Enrollment {}

impl Purpose for Enrollment {
    const PREFIX: &'static str = "lt";
    const WHAT: &'static str = "enrollment token";
    const MADE_BY: &'static str = "lattice token create";
}

/// Opens the administration.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Administration {}

impl Purpose for Administration {
    const PREFIX: &'static str = "la";
    const WHAT: &'static str = "admin token";
    const MADE_BY: &'static str = "latticed admin-token";
}

/// A token, in clear. Wiped when dropped, printed without its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<P> {
    id: String,
    secret: String,
    purpose: PhantomData<P>,
}

/// Admits peers to a workspace.
pub type Token = Secret<Enrollment>;

/// Opens the control plane's administration.
pub type AdminToken = Secret<Administration>;

impl<P: Purpose> Secret<P> {
    /// A new token from random bytes.
    pub fn from_random(id: [u8; 7], mut secret: [u8; 25]) -> Self {
        let mut secret_text = base32(&secret);
        secret.zeroize();
        secret_text.truncate(SECRET_LEN);
        let mut id_text = base32(&id);
        id_text.truncate(ID_LEN);
        Self { id: id_text, secret: secret_text, purpose: PhantomData }
    }

    /// The public part, by which the token is listed and revoked.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// SHA-256 of the secret part: what the server stores and compares, in constant time.
    pub fn secret_hash(&self) -> [u8; 32] {
        Sha256::digest(self.secret.as_bytes()).into()
    }

    /// The whole token in clear, to be shown once or sent over a connection that is meant for it.
    pub fn expose(&self) -> String {
        let body = format!("{}-{}-{}", P::PREFIX, self.id, self.secret);
        let crc = checksum(&body);
        format!("{body}-{crc}")
    }
}

impl<P: Purpose> FromStr for Secret<P> {
    type Err = InvalidToken;
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let form = InvalidToken::Form { what: P::WHAT, prefix: P::PREFIX, made_by: P::MADE_BY };
        let mut parts = text.split('-');
        let (Some(prefix), Some(id), Some(secret), Some(crc), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(form);
        };
        let base32 =
            |s: &str, len| s.len() == len && s.bytes().all(|c| matches!(c, b'a'..=b'z' | b'2'..=b'7'));
        if prefix != P::PREFIX || !base32(id, ID_LEN) || !base32(secret, SECRET_LEN) || !base32(crc, CRC_LEN)
        {
            return Err(form);
        }
        let mut body = format!("{prefix}-{id}-{secret}");
        let expected = checksum(&body);
        body.zeroize();
        if expected != crc {
            return Err(InvalidToken::Checksum { what: P::WHAT });
        }
        Ok(Self { id: id.to_owned(), secret: secret.to_owned(), purpose: PhantomData })
    }
}

impl<P> Drop for Secret<P> {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl<P: Purpose> fmt::Debug for Secret<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-[redacted]", P::PREFIX, self.id)
    }
}

fn base32(bytes: &[u8]) -> String {
    data_encoding::BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}

fn checksum(body: &str) -> String {
    base32(&crc32(body.as_bytes()).to_be_bytes())
}

/// CRC-32 (ISO-HDLC, reflected 0xEDB88320), bit by bit: it runs once per token.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn crc_check_value() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn debug_hides_the_secret() {
        let token = Token::from_random([1; 7], [2; 25]);
        assert!(!format!("{token:?}").contains(&token.secret));
    }

    #[test]
    fn one_kind_is_not_the_other() {
        let (enrollment, admin) =
            (Token::from_random([1; 7], [2; 25]).expose(), AdminToken::from_random([1; 7], [2; 25]).expose());
        assert!(enrollment.starts_with("lt-") && admin.starts_with("la-"));
        assert!(enrollment.parse::<AdminToken>().is_err() && admin.parse::<Token>().is_err());
        let relabelled = admin.replacen("la-", "lt-", 1);
        assert!(matches!(relabelled.parse::<Token>(), Err(InvalidToken::Checksum { .. })));
    }

    proptest! {
        #[test]
        fn round_trip(id: [u8; 7], secret: [u8; 25]) {
            let token = Token::from_random(id, secret);
            prop_assert_eq!(&token.expose().parse::<Token>().unwrap(), &token);
        }

        #[test]
        fn one_wrong_character_is_found(at in 3usize..60, by in 1u8..32) {
            let token = Token::from_random([3; 7], [4; 25]).expose();
            let mut bytes = token.clone().into_bytes();
            const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
            if let Some(i) = ALPHABET.iter().position(|c| *c == bytes[at]) {
                bytes[at] = ALPHABET[(i + usize::from(by)) % 32];
                let damaged = String::from_utf8(bytes).unwrap();
                prop_assert_eq!(damaged.parse::<Token>(), Err(InvalidToken::Checksum { what: "enrollment token" }));
            }
        }

        #[test]
        fn never_panics(text in "\\PC{0,90}") {
            let _ = text.parse::<Token>();
        }
    }
}
