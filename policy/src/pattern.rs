//! Patterns of DNS names: `api.example.com`, or `*.example.com` for everything below it.
//!
//! Compared label by label in one canonical form: lower case ASCII without a trailing dot. Nothing is decoded: a name in other
//! letters is its punycode (RFC 5891), as it is on the wire.

mod error;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

pub use error::NameError;

/// Longest name in its canonical form, in bytes (RFC 1035, 2.3.4).
pub const MAX_NAME: usize = 253;

/// Longest label, in bytes.
pub const MAX_LABEL: usize = 63;

/// The zone of the overlay's own names, which no rule opens: they stand for peers, and peers have addresses.
const OVERLAY: &str = "lattice";

/// What a rule by name names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamePattern {
    /// Canonical; of a wildcard, what stands behind `*.`.
    name: String,
    wildcard: bool,
}

// === impl NamePattern ===

impl NamePattern {
    /// Whether it stands for all names below one, which itself is not among them.
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// The canonical name; of a wildcard, the one that it is below.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether `name` is meant. Any text may be asked for; what is no name fits nothing.
    pub fn fits(&self, name: &str) -> bool {
        canonical(name).is_ok_and(|name| self.fits_canonical(&name))
    }

    /// Whether every name that `other` means is meant.
    pub fn covers(&self, other: &Self) -> bool {
        match (self.wildcard, other.wildcard) {
            (false, _) => self == other,
            (true, false) => self.fits_canonical(&other.name),
            (true, true) => self.name == other.name || self.fits_canonical(&other.name),
        }
    }

    /// The names that both mean. Patterns nest or have nothing in common, so it is one of the two.
    pub(crate) fn common<'a>(&'a self, other: &'a Self) -> Option<&'a Self> {
        if self.covers(other) {
            Some(other)
        } else if other.covers(self) {
            Some(self)
        } else {
            None
        }
    }

    fn fits_canonical(&self, name: &str) -> bool {
        if !self.wildcard {
            return self.name == name;
        }
        let labels = name.strip_suffix(&self.name).and_then(|front| front.strip_suffix('.'));
        labels.is_some_and(|labels| !labels.is_empty())
    }
}

impl FromStr for NamePattern {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (name, wildcard) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
        if name.contains('*') {
            return Err(NameError::Star);
        }
        let name = canonical(name).map_err(|error| match error {
            NameError::OneLabel(label) if wildcard && label != OVERLAY => NameError::WideStar(label),
            other => other,
        });
        match name {
            Ok(name) if name.rsplit('.').next() == Some(OVERLAY) => Err(NameError::Overlay),
            Err(NameError::OneLabel(label)) if label == OVERLAY => Err(NameError::Overlay),
            Ok(name) => Ok(Self { name, wildcard }),
            Err(error) => Err(error),
        }
    }
}

impl TryFrom<String> for NamePattern {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<NamePattern> for String {
    fn from(pattern: NamePattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.wildcard { "*." } else { "" }, self.name)
    }
}

/// The canonical form of a name with at least two labels.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn canonical(name: &str) -> Result<String, NameError> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.len() > MAX_NAME {
        return Err(NameError::TooLong);
    }
    name.split('.').try_for_each(check_label)?;
    let name = name.to_ascii_lowercase();
    if ends_in_number(&name) {
        return Err(NameError::Number(name));
    }
    if name.contains('.') { Ok(name) } else { Err(NameError::OneLabel(name)) }
}

/// Whether some program would read `text` as an IPv4 address: the URL standard's "ends in a number".
pub(crate) fn ends_in_number(text: &str) -> bool {
    let last = text.strip_suffix('.').unwrap_or(text).rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    hex.map_or(last.bytes().all(|c| c.is_ascii_digit()), |hex| hex.bytes().all(|c| c.is_ascii_hexdigit()))
}

/// Letters, digits and hyphens (RFC 1123, 2.1), and a leading underscore for what is not a host (RFC 8552).
fn check_label(label: &str) -> Result<(), NameError> {
    let host = label.strip_prefix('_').unwrap_or(label);
    if let Some(odd) = host.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '-') {
        return Err(NameError::Character(odd));
    }
    match label.len() {
        _ if host.is_empty() => Err(NameError::EmptyLabel),
        _ if host.starts_with('-') || host.ends_with('-') => Err(NameError::Hyphen),
        1..=MAX_LABEL => Ok(()),
        _ => Err(NameError::LongLabel),
    }
}

#[cfg(test)]
mod tests;
