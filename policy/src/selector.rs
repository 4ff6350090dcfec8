//! Selectors: which peers are meant, by their labels. The equality form of Kubernetes: `role=tool,tier!=db,env,!old`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::label::{self, LabelError, MAX_LABELS};

/// Longest text of a selector, in bytes.
pub const MAX_TEXT: usize = 1024;

/// Why a text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectorError {
    /// Nothing between two commas.
    #[error("a requirement is empty; write for example role=tool,tier!=db,env,!old")]
    Empty,
    /// More than [`MAX_TEXT`] bytes.
    #[error("the selector is longer than {MAX_TEXT} bytes")]
    TooLong,
    /// More than [`MAX_LABELS`] requirements.
    #[error("the selector has more than {MAX_LABELS} requirements")]
    TooMany,
    /// A bad key or value.
    #[error(transparent)]
    Label(#[from] LabelError),
}

/// One condition on the labels of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Requirement {
    /// `key=value`.
    Is(String, String),
    /// `key!=value`; a peer without the key fits.
    IsNot(String, String),
    /// `key`.
    Has(String),
    /// `!key`.
    HasNot(String),
}

/// Chooses the peers that fit all its requirements; without one, every peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector(Vec<Requirement>);

// === impl Selector ===

impl Selector {
    /// Whether a peer fits, of which `label` tells the value of a key.
    pub(crate) fn fits<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::Is(key, value) => label(key) == Some(value.as_str()),
            Requirement::IsNot(key, value) => label(key) != Some(value.as_str()),
            Requirement::Has(key) => label(key).is_some(),
            Requirement::HasNot(key) => label(key).is_none(),
        })
    }
}

impl FromStr for Selector {
    type Err = SelectorError;
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        if text.len() > MAX_TEXT {
            return Err(SelectorError::TooLong);
        }
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let requirements: Vec<Requirement> = text.split(',').map(requirement).collect::<Result<_, _>>()?;
        if requirements.len() > MAX_LABELS { Err(SelectorError::TooMany) } else { Ok(Self(requirements)) }
    }
}

impl TryFrom<String> for Selector {
    type Error = SelectorError;
    fn try_from(text: String) -> Result<Self, SelectorError> {
        text.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.to_string()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.0.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { "," })?;
            match requirement {
                Requirement::Is(key, value) => write!(f, "{key}={value}")?,
                Requirement::IsNot(key, value) => write!(f, "{key}!={value}")?,
                Requirement::Has(key) => f.write_str(key)?,
                Requirement::HasNot(key) => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

fn requirement(text: &str) -> Result<Requirement, SelectorError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(SelectorError::Empty);
    }
    let checked_key = |key: &str| label::check_key(key).map(|()| key.to_owned());
    if let Some(key) = text.strip_prefix('!') {
        return Ok(Requirement::HasNot(checked_key(key.trim())?));
    }
    let Some((key, value)) = text.split_once('=') else { return Ok(Requirement::Has(checked_key(text)?)) };
    let (key, differs) = key.strip_suffix('!').map_or((key, false), |key| (key, true));
    // Kubernetes writes `==` too.
    let value = if differs { value } else { value.strip_prefix('=').unwrap_or(value) };
    let (key, value) = (checked_key(key.trim())?, value.trim());
    label::check_value(&key, value)?;
    let make = if differs { Requirement::IsNot } else { Requirement::Is };
    Ok(make(key, value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Labels;

    #[test]
    fn chooses_by_labels() {
        let fits = |selector: &str, labels: &str| {
            let labels: Labels = labels.parse().unwrap();
            selector.parse::<Selector>().unwrap().fits(|key| labels.get(key))
        };
        for (selector, labels, expected) in [
            ("", "", true),
            ("role=tool", "role=tool", true),
            ("role==tool", "role=tool", true),
            ("role=tool", "role=db", false),
            ("role=tool", "", false),
            ("role!=tool", "role=db", true),
            ("role!=tool", "", true),
            ("role!=tool", "role=tool", false),
            ("env", "env=x", true),
            ("env", "", false),
            ("!env", "", true),
            ("!env", "env=x", false),
            (" role=tool , !env ", "role=tool", true),
            ("role=tool,!env", "role=tool,env=x", false),
        ] {
            assert_eq!(fits(selector, labels), expected, "{selector:?} {labels:?}");
        }
    }

    #[test]
    fn refuses() {
        let many = vec!["a"; MAX_LABELS + 1].join(",");
        for bad in ["a,", ",a", "!", "=", "a=", "!=b", "a!b", "a=b=c", "a b", "!!a", "{a}", "a in (b)", &many]
        {
            assert!(bad.parse::<Selector>().is_err(), "{bad}");
        }
    }
}
