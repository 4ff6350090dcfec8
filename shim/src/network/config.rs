//! The section `[lattice]` of `shim.toml`.

use serde::Deserialize;

/// What pods of this node are given.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeNetwork {}
