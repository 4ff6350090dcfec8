//! What a client shows to be let in: user name and password (RFC 1929, RFC 7617), or the password as a bearer token (RFC 6750).

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Shortest password, in bytes. Nothing limits how often one may be tried but this.
const MIN_PASSWORD: usize = 16;
/// Longest user name and password, in bytes (RFC 1929 §2).
const MAX: usize = 255;

/// A user name and a password, of which only digests are kept. They are compared in a time that depends on the length of what the
/// client shows, and on nothing of ours.
#[derive(Clone)]
pub struct Credentials {
    user: [u8; 32],
    password: [u8; 32],
}

/// Why a text is not a pair of credentials. Never carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCredentials {
    /// No colon.
    #[error("not credentials: expected USER:PASSWORD")]
    Form,
    /// The user name does not fit into a handshake.
    #[error(
        "the user name of the credentials must have 1 to 255 characters, none of them a control character"
    )]
    User,
    /// Nor does the password, or it is guessed too easily.
    #[error(
        "the password of the credentials must have 16 to 255 characters, none of them a control character: \
         make one with `openssl rand -hex 16`"
    )]
    Password,
}

// === impl Credentials ===

impl Credentials {
    /// Whether these are the user name and the password.
    pub(crate) fn admit(&self, user: &[u8], password: &[u8]) -> bool {
        (digest(user).ct_eq(&self.user) & digest(password).ct_eq(&self.password)).into()
    }

    /// Whether this is what belongs in the field `Proxy-Authorization`.
    pub(crate) fn admit_field(&self, value: &[u8]) -> bool {
        let Some(space) = value.iter().position(|c| *c == b' ') else { return false };
        let (scheme, shown) = (&value[..space], value[space..].trim_ascii());
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return digest(shown).ct_eq(&self.password).into();
        }
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return false;
        }
        let Ok(pair) = STANDARD.decode(shown).map(Zeroizing::new) else { return false };
        let Some(colon) = pair.iter().position(|c| *c == b':') else { return false };
        self.admit(&pair[..colon], &pair[colon + 1..])
    }
}

impl FromStr for Credentials {
    type Err = InvalidCredentials;

    /// Reads `USER:PASSWORD`; the first colon separates them.
    fn from_str(text: &str) -> Result<Self, InvalidCredentials> {
        let (user, password) = text.split_once(':').ok_or(InvalidCredentials::Form)?;
        let fits = |part: &str, shortest| {
            (shortest..=MAX).contains(&part.len()) && !part.chars().any(char::is_control)
        };
        if !fits(user, 1) {
            return Err(InvalidCredentials::User);
        }
        if !fits(password, MIN_PASSWORD) {
            return Err(InvalidCredentials::Password);
        }
        Ok(Self { user: digest(user.as_bytes()), password: digest(password.as_bytes()) })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &str = "correct:horse battery";

    fn ours() -> Credentials {
        format!("merlin:{PASSWORD}").parse().unwrap()
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    #[test]
    fn only_the_very_pair_is_admitted() {
        assert!(ours().admit(b"merlin", PASSWORD.as_bytes()));
        for (user, password) in [
            ("merlin", ""),
            ("", PASSWORD),
            ("Merlin", PASSWORD),
            ("merlin", "correct:horse batter"),
            ("merlin", "correct:horse battery "),
            (PASSWORD, "merlin"),
            ("merlin:correct", "horse battery"),
        ] {
            assert!(!ours().admit(user.as_bytes(), password.as_bytes()), "{user} {password}");
        }
    }

    #[test]
    fn fields_are_basic_or_bearer() {
        let good = basic(&format!("merlin:{PASSWORD}"));
        for value in [good.clone(), good.replace("Basic", "bAsIC  "), format!("Bearer {PASSWORD}")] {
            assert!(ours().admit_field(value.as_bytes()), "{value}");
        }
        for value in [
            String::new(),
            "Basic".into(),
            "Basic ".into(),
            "Basic !!!".into(),
            "Bearer ".into(),
            basic("merlin"),
            basic("merlin:"),
            format!("Bearer merlin:{PASSWORD}"),
            format!("Digest {PASSWORD}"),
            good.replace("Basic ", ""),
            format!("{good}, {good}"),
        ] {
            assert!(!ours().admit_field(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn weak_and_odd_ones_are_refused() {
        for (text, error) in [
            ("", InvalidCredentials::Form),
            ("merlin", InvalidCredentials::Form),
            (":0123456789abcdef", InvalidCredentials::User),
            ("me\nrlin:0123456789abcdef", InvalidCredentials::User),
            ("merlin:", InvalidCredentials::Password),
            ("merlin:0123456789abcde", InvalidCredentials::Password),
            ("merlin:0123456789abcdef\n", InvalidCredentials::Password),
            (&format!("merlin:{}", "x".repeat(256)), InvalidCredentials::Password),
        ] {
            assert_eq!(text.parse::<Credentials>().unwrap_err(), error, "{text:?}");
        }
        assert!("merlin:0123456789abcdef".parse::<Credentials>().is_ok());
        assert_eq!(format!("{:?}", ours()), "Credentials(…)");
    }
}
