//! Presets: ready-made limits for a peer, by a name that an operator can remember. What they mean is in [`crate::layer`].

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A ready-made limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Opens flows to the workspace's tools only; nobody opens one to it.
    Sandboxed,
    /// Opens what policies and flags allow; the workspace's sandboxes may open flows to it.
    Coordinator,
    /// Opens only what a policy names by address and port; nobody opens a flow to it.
    Isolated,
}

/// Not a preset's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown preset {0:?}: use sandboxed, coordinator or isolated")]
pub struct UnknownPreset(String);

impl Preset {
    /// Every preset.
    pub const ALL: [Self; 3] = [Self::Sandboxed, Self::Coordinator, Self::Isolated];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sandboxed => "sandboxed",
            Self::Coordinator => "coordinator",
            Self::Isolated => "isolated",
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Preset {
    type Err = UnknownPreset;
    fn from_str(text: &str) -> Result<Self, UnknownPreset> {
        let known = Self::ALL.into_iter().find(|preset| preset.as_str() == text);
        known.ok_or_else(|| UnknownPreset(text.chars().take(80).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preset_has_one_name_in_text_and_json() {
        for preset in Preset::ALL {
            assert_eq!(preset.to_string().parse(), Ok(preset));
            assert_eq!(serde_json::to_string(&preset).unwrap(), format!("\"{preset}\""));
        }
        assert!("Sandboxed".parse::<Preset>().is_err());
    }
}
