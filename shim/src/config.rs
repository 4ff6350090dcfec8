//! `shim.toml`: what the operator of a node decides for its pods.

use std::path::{Path, PathBuf};

use lattice_runsc::Platform;
use serde::Deserialize;

use crate::{
    error::{Error, Result},
    network::config::NodeNetwork,
};

/// Where it is unless containerd's runtime options name another.
pub const DEFAULT_PATH: &str = "/etc/lattice/shim.toml";

/// More than any such file holds.
const MAX_FILE: u64 = 1 << 20;

/// Which network pods get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkKind {
    /// Phase one in the pod's namespace: an identity, WireGuard, the policy.
    #[default]
    Lattice,
    /// What CNI made, and no more: a gVisor shim.
    Plain,
    /// gVisor's `--network=none`: loopback only.
    None,
}

/// The file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Which network.
    pub network: NetworkKind,
    /// runsc; the first on `PATH` unless given.
    pub runsc: Option<PathBuf>,
    /// Its platform; what this machine can unless given.
    pub platform: Option<Platform>,
    /// Further flags of runsc, `name = value`.
    pub runsc_flags: std::collections::BTreeMap<String, String>,
    /// Where state is kept while pods run.
    pub state_dir: PathBuf,
    /// What to log: a tracing filter.
    pub log: String,
    /// For [`NetworkKind::Lattice`].
    pub lattice: NodeNetwork,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            network: NetworkKind::default(),
            runsc: None,
            platform: None,
            runsc_flags: std::collections::BTreeMap::new(),
            state_dir: lattice_bootstrap::state::DEFAULT_ROOT.into(),
            log: "info".into(),
            lattice: NodeNetwork::default(),
        }
    }
}

impl Config {
    /// Reads `path`, else [`DEFAULT_PATH`]. Without a file there is no network but Lattice's, and that lacks its server: a
    /// pod is refused with the remedy.
    ///
    /// # Errors
    /// [`Error::Invalid`] with path, line and remedy.
    pub fn read(path: Option<&Path>) -> Result<Self> {
        use std::io::Read as _;
        let shown = path.unwrap_or(Path::new(DEFAULT_PATH));
        let fail = |error: &dyn std::fmt::Display| Error::Invalid(format!("{}: {error}", shown.display()));
        let mut text = String::new();
        match std::fs::File::open(shown) {
            Ok(file) => {
                file.take(MAX_FILE).read_to_string(&mut text).map_err(|error| fail(&error))?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && path.is_none() => {}
            Err(error) => return Err(fail(&error)),
        }
        Self::parse(&text).map_err(|error| fail(&error))
    }

    /// Reads the text of such a file.
    ///
    /// # Errors
    /// Line, column and what is wrong.
    pub fn parse(text: &str) -> std::result::Result<Self, toml::de::Error> {
        toml::from_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = Config::parse("netwrok = \"plain\"").unwrap_err().to_string();
        assert!(error.contains("netwrok"), "{error}");
    }

    #[test]
    fn lattice_is_the_default() {
        assert_eq!(Config::parse("").unwrap().network, NetworkKind::Lattice);
        assert_eq!(Config::parse("network = \"plain\"").unwrap().network, NetworkKind::Plain);
    }
}
