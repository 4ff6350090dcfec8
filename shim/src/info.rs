//! `-info` and `-v`: what this runtime is.

use containerd_shim_protos::{
    protobuf::{self, Message as _, MessageField, well_known_types::any::Any},
    types::introspection::{RuntimeInfo, RuntimeVersion},
};

/// As pods' RuntimeClass leads to it.
pub const NAME: &str = "io.containerd.lattice.v1";
/// The `Any` in which containerd looks for features (OCI runtime specification, `features.md`).
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// A `RuntimeInfo`, bare: what containerd reads from standard output.
///
/// # Errors
/// When it cannot be encoded.
pub fn info() -> protobuf::Result<Vec<u8>> {
    let features = serde_json::json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.1.0",
        "linux": { "mountExtensions": { "idmap": { "enabled": false } } },
    });
    RuntimeInfo {
        name: NAME.to_owned(),
        version: MessageField::some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..RuntimeVersion::default()
        }),
        features: MessageField::some(Any {
            type_url: FEATURES.to_owned(),
            value: features.to_string().into_bytes(),
            ..Any::default()
        }),
        ..RuntimeInfo::default()
    }
    .write_to_bytes()
}

/// For a person.
pub fn version() -> String {
    format!("containerd-shim-lattice-v1 {}\ntask API 2 and 3, {NAME}\n", env!("CARGO_PKG_VERSION"))
}
