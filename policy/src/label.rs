//! Labels: what an operator says about a peer, for selectors to choose by. A peer cannot set its own.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Most labels of one peer.
pub const MAX_LABELS: usize = 32;

/// Longest key and longest value, in bytes.
pub const MAX_LEN: usize = 63;

/// Keys that every peer has without being given them: its name, and `sandbox` or `node`.
pub const NAME: &str = "name";
/// See [`NAME`].
pub const KIND: &str = "kind";

/// Why something is no set of labels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// Not a key.
    #[error("invalid label key {0:?}: use 1 to {MAX_LEN} of A-Z, a-z, 0-9, '.', '_', '/' and '-'")]
    Key(String),
    /// Not a value.
    #[error(
        "invalid value {1:?} of the label {0:?}: use 1 to {MAX_LEN} of A-Z, a-z, 0-9, '.', '_', '/', '-' and '+'"
    )]
    Value(String, String),
    /// `name` or `kind`.
    #[error("the label {0:?} is given by Lattice and cannot be set; choose another key")]
    Reserved(String),
    /// The key was there before.
    #[error("the label {0:?} is given twice; give it once")]
    Twice(String),
    /// No `=`.
    #[error("{0:?} is no label; write key=value, for example role=tool")]
    Form(String),
    /// More than [`MAX_LABELS`].
    #[error("more than {MAX_LABELS} labels; give fewer")]
    TooMany,
}

/// The labels of one peer, by key. As text: `role=tool,tier=db`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Labels(BTreeMap<String, String>);

// === impl Labels ===

impl Labels {
    /// Adds a label.
    ///
    /// # Errors
    /// When key or value are none, the key is reserved or there, or there are [`MAX_LABELS`] already.
    pub fn insert(&mut self, key: &str, value: &str) -> Result<(), LabelError> {
        check_key(key)?;
        check_value(key, value)?;
        if matches!(key, NAME | KIND) {
            return Err(LabelError::Reserved(key.into()));
        }
        if self.0.contains_key(key) {
            return Err(LabelError::Twice(key.into()));
        }
        if self.0.len() == MAX_LABELS {
            return Err(LabelError::TooMany);
        }
        self.0.insert(key.into(), value.into());
        Ok(())
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Keys and values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<BTreeMap<String, String>> for Labels {
    type Error = LabelError;
    fn try_from(map: BTreeMap<String, String>) -> Result<Self, LabelError> {
        let mut labels = Self::default();
        map.iter().try_for_each(|(key, value)| labels.insert(key, value))?;
        Ok(labels)
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        labels.0
    }
}

impl FromStr for Labels {
    type Err = LabelError;
    fn from_str(text: &str) -> Result<Self, LabelError> {
        let mut labels = Self::default();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(|| LabelError::Form(shown(part)))?;
            labels.insert(key, value)?;
        }
        Ok(labels)
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (key, value)) in self.iter().enumerate() {
            write!(f, "{}{key}={value}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

pub(crate) fn check_key(key: &str) -> Result<(), LabelError> {
    if is_word(key) { Ok(()) } else { Err(LabelError::Key(shown(key))) }
}

/// Values may hold a '+', which joins ports: `ports=8080+9090`.
pub(crate) fn check_value(key: &str, value: &str) -> Result<(), LabelError> {
    let parts = value.bytes().all(|c| c == b'+' || is_in_word(c));
    if parts && (1..=MAX_LEN).contains(&value.len()) {
        return Ok(());
    }
    Err(LabelError::Value(shown(key), shown(value)))
}

fn is_word(text: &str) -> bool {
    (1..=MAX_LEN).contains(&text.len()) && text.bytes().all(is_in_word)
}

fn is_in_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'/' | b'-')
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_and_written_the_same_way() {
        let labels: Labels = "role=tool,ports=80+8000-8100,lattice.run/tier=1".parse().unwrap();
        assert_eq!(labels.get("role"), Some("tool"));
        assert_eq!(labels.to_string().parse(), Ok(labels.clone()));
        let json = serde_json::to_string(&labels).unwrap();
        assert_eq!(serde_json::from_str::<Labels>(&json).unwrap(), labels);
        assert!("".parse::<Labels>().unwrap().is_empty());
    }

    #[test]
    fn refuses() {
        let long = "x".repeat(MAX_LEN + 1);
        for bad in
            ["name=a", "kind=node", "a=1,a=2", "a", "a=", "=a", "a=b=c", "a b=c", "a=\u{e9}", "a=1,", &long]
        {
            assert!(bad.parse::<Labels>().is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<Labels>(r#"{"name":"x"}"#).is_err(), "JSON is checked too");
        let many: Vec<String> = (0..=MAX_LABELS).map(|n| format!("k{n}=v")).collect();
        assert_eq!(many.join(",").parse::<Labels>(), Err(LabelError::TooMany));
    }
}
