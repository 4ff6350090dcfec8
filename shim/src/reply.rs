//! What `start` is told on standard input, and what it replies, by containerd's release. Pure.
//!
//! | containerd | writes on standard input | reads |
//! |---|---|---|
//! | 1.6 to 2.2 | the runtime's options, an `Any`; often nothing | the bare address: task API version 2 |
//! | from 2.3 | `containerd.runtime.bootstrap.v1.BootstrapParams` | `BootstrapResult`: version 3 |
//!
//! 1.6 takes nothing but the bare address, and 1.7 cannot be told from 2.2, so the older ones all get that. The two messages share
//! field numbers: what was written is a `BootstrapParams` only if it names the container that the flags name.

mod options;

use std::path::PathBuf;

use containerd_shim_protos::{
    bootstrap_api::{BootstrapParams, BootstrapResult},
    protobuf::{self, Message, well_known_types::any::Any},
};

pub use options::Options;

use crate::cli::Flags;

/// In which form the reply is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// The address and nothing else.
    Address,
    /// A `BootstrapResult`.
    Bootstrap,
}

/// What `start` is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// For the reply.
    pub protocol: Protocol,
    /// The container.
    pub id: String,
    /// containerd's namespace.
    pub namespace: String,
    /// containerd's gRPC socket.
    pub address: String,
    /// containerd's ttrpc socket, if it was said here: else it is in the environment.
    pub ttrpc_address: Option<String>,
    /// Where to put our socket.
    pub socket_dir: Option<PathBuf>,
    /// Whether to log more.
    pub debug: bool,
    /// The runtime's options.
    pub options: Options,
}

impl Request {
    /// Puts together what the flags and the standard input say. What cannot be read there is taken for nothing.
    pub fn new(flags: &Flags, input: &[u8]) -> Self {
        match BootstrapParams::parse_from_bytes(input) {
            Ok(params) if is_for(&params, flags) => Self::bootstrap(flags, params),
            _ => Self {
                protocol: Protocol::Address,
                id: flags.id.clone(),
                namespace: flags.namespace.clone(),
                address: flags.address.clone(),
                ttrpc_address: None,
                socket_dir: None,
                debug: flags.debug,
                options: Any::parse_from_bytes(input).map(|any| Options::read([&any])).unwrap_or_default(),
            },
        }
    }

    fn bootstrap(flags: &Flags, params: BootstrapParams) -> Self {
        let or_flag = |text: String, flag: &String| if text.is_empty() { flag.clone() } else { text };
        let extensions = params.extensions.iter().filter_map(|extension| extension.value.as_ref());
        Self {
            protocol: Protocol::Bootstrap,
            options: Options::read(extensions),
            // An open enum, in which what is below zero is more than "info".
            debug: flags.debug || params.log_level.value() < 0,
            id: params.instance_id,
            namespace: params.namespace,
            address: or_flag(params.containerd_grpc_address, &flags.address),
            ttrpc_address: Some(params.containerd_ttrpc_address).filter(|address| !address.is_empty()),
            socket_dir: params.socket_dir.filter(|dir| !dir.is_empty()).map(PathBuf::from),
        }
    }
}

/// Flags are said to go: without them only what no options can hold makes it such a message.
fn is_for(params: &BootstrapParams, flags: &Flags) -> bool {
    if flags.id.is_empty() && flags.namespace.is_empty() {
        return !params.containerd_ttrpc_address.is_empty() || !params.containerd_grpc_address.is_empty();
    }
    params.instance_id == flags.id && params.namespace == flags.namespace
}

/// What goes to standard output.
///
/// # Errors
/// When it cannot be encoded.
pub fn encode(protocol: Protocol, address: &str) -> protobuf::Result<Vec<u8>> {
    match protocol {
        Protocol::Address => Ok(address.as_bytes().to_vec()),
        Protocol::Bootstrap => BootstrapResult {
            version: 3,
            address: address.to_owned(),
            protocol: "ttrpc".to_owned(),
            ..BootstrapResult::default()
        }
        .write_to_bytes(),
    }
}

#[cfg(test)]
mod tests;
