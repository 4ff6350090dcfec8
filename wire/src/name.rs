//! Peer names: one DNS label (RFC 1123), because a peer answers to `<name>.lattice`, and because a name becomes a
//! path component and part of a container id.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a string is not a peer name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid name {0:?}: use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit")]
pub struct InvalidName(String);

/// The name of a peer within its workspace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerName(String);

impl PeerName {
    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PeerName {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let ok = (1..=63).contains(&text.len())
            && text.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && !text.starts_with('-')
            && !text.ends_with('-');
        if ok { Ok(Self(text.to_owned())) } else { Err(InvalidName(text.chars().take(80).collect())) }
    }
}

impl TryFrom<String> for PeerName {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<PeerName> for String {
    fn from(name: PeerName) -> String {
        name.0
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepts_labels() {
        for good in ["a", "demo-agent", "agent-001", "0", &"a".repeat(63)] {
            assert!(good.parse::<PeerName>().is_ok(), "{good}");
        }
    }

    #[test]
    fn refuses_paths_wildcards_and_controls() {
        for bad in
            ["", "a/b", "..", "*", ">", "a.b", "a b", "a\n", "a\0", "-a", "a-", "A", "ä", &"a".repeat(64)]
        {
            assert!(bad.parse::<PeerName>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_is_harmless(text in "\\PC{0,80}") {
            if let Ok(name) = text.parse::<PeerName>() {
                prop_assert!(!name.as_str().contains(['/', '.', '*', '>', ' ', '\0']));
                prop_assert_eq!(name.as_str(), text);
            }
        }
    }
}
