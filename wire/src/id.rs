//! Opaque ids that latticed hands out. They appear inside NATS subjects, so their alphabet excludes every character
//! that has a meaning there (`.`, `*`, `>`, space).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a string is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {kind} id {text:?}: expected {kind}- followed by 16 lowercase base32 characters")]
pub struct InvalidId {
    kind: &'static str,
    text: String,
}

const RANDOM_BYTES: usize = 10;
const TEXT_LEN: usize = RANDOM_BYTES * 8 / 5;

fn parse(kind: &'static str, text: &str) -> Result<String, InvalidId> {
    let body = text.strip_prefix(kind).and_then(|rest| rest.strip_prefix('-'));
    match body {
        Some(b) if b.len() == TEXT_LEN && b.bytes().all(|c| matches!(c, b'a'..=b'z' | b'2'..=b'7')) => {
            Ok(text.to_owned())
        }
        _ => Err(InvalidId { kind, text: text.chars().take(64).collect() }),
    }
}

fn encode(kind: &str, random: [u8; RANDOM_BYTES]) -> String {
    let body = data_encoding::BASE32_NOPAD.encode(&random).to_ascii_lowercase();
    format!("{kind}-{body}")
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// An id from 80 random bits.
            pub fn from_random(random: [u8; RANDOM_BYTES]) -> Self {
                Self(encode($kind, random))
            }

            /// The text form, safe as one NATS subject token and as one path component.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse($kind, text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// A member of the overlay.
    PeerId, "peer"
);
id!(
    /// A tenant: peers, tokens, policies and audit belong to exactly one.
    WorkspaceId, "ws"
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn round_trip() {
        let id = PeerId::from_random([7; 10]);
        assert_eq!(id.as_str().parse::<PeerId>().unwrap(), id);
        assert!(id.as_str().starts_with("peer-"));
    }

    #[test]
    fn refuses_what_could_leave_its_subject() {
        for bad in [
            "",
            "peer-",
            "peer-*",
            "peer->",
            "peer-aaaaaaaaaaaaaaa.",
            "peer-AAAAAAAAAAAAAAAA",
            "ws-aaaaaaaaaaaaaaaa",
            "peer-aaaaaaaaaaaaaaaaa",
        ] {
            assert!(bad.parse::<PeerId>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_is_one_subject_token_and_one_path_component(
            text in "(peer-|ws-)?\\PC{0,20}|peer-[a-z2-7]{15,17}",
        ) {
            match text.parse::<PeerId>() {
                Ok(id) => {
                    prop_assert_eq!(id.as_str(), text.as_str());
                    prop_assert!(text.len() == 21 && text.bytes().all(|c| c == b'-' || c.is_ascii_alphanumeric()));
                }
                Err(error) => prop_assert!(error.to_string().len() < 1000),
            }
        }
    }
}
