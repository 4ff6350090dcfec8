//! Phase one for a pod: in the namespace that CNI made, from the node's namespace.

pub mod config;

use std::{collections::HashMap, path::PathBuf};

use lattice_bootstrap::{Failure, Ready};
use zeroize::Zeroizing;

use crate::{config::Config, place::PodPlace};

/// A pod, as its first container's spec tells of it.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Kubernetes' namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
    /// Its unique id.
    pub uid: String,
    /// The path of its network namespace.
    pub netns: PathBuf,
    /// `lattice.io/*` and what else containerd passes on.
    pub annotations: HashMap<String, String>,
    /// The `resolv.conf` that kubelet made for it.
    pub resolv_conf: Option<PathBuf>,
}

/// A pod's network, as long as this value lives.
pub struct Network {}

impl Network {
    /// Whether phase one can begin without a pod's own token: the node has one, or credentials are kept.
    ///
    /// # Errors
    /// When the annotations or `shim.toml` are wrong.
    pub fn needs_token(_config: &Config, _pod: &Pod) -> Result<bool, Failure> {
        todo!()
    }

    /// Runs phase one. Blocks for some 0.1 s, at most for the bound of each step; call it on a thread of its own.
    ///
    /// # Errors
    /// The first step that failed; all earlier ones are undone.
    pub fn start(
        _config: &Config,
        _pod: &Pod,
        _place: &PodPlace,
        _token: Option<Zeroizing<String>>,
    ) -> Result<Self, Failure> {
        todo!()
    }

    /// What phase two takes.
    pub fn ready(&self) -> &Ready {
        todo!()
    }

    /// The name under which state is claimed, for [`crate::place::Record::peer`].
    pub fn peer(&self) -> &str {
        todo!()
    }

    /// The file to mount at `/etc/resolv.conf`.
    pub fn resolv_conf(&self) -> PathBuf {
        todo!()
    }

    /// Undoes phase one, and says what could not be undone. Blocks, at most some seconds.
    pub fn stop(self) -> Vec<String> {
        todo!()
    }
}

/// Undoes what a killed shim's phase one left on the host for `peer`; in a second, without the network.
///
/// # Errors
/// What is left.
pub fn clean_up(_config: &Config, _peer: &str) -> Result<(), Failure> {
    todo!()
}

/// The name that a pod will have in the overlay and claim on this host.
///
/// # Errors
/// When annotations ask for one that is none.
pub fn peer_name(_config: &Config, _pod: &Pod) -> Result<String, Failure> {
    todo!()
}
