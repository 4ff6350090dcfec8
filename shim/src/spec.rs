//! What of a container's OCI spec is changed before runsc sees it. Pure.

use std::path::Path;

use oci_spec::runtime::{Process, Spec};

use crate::{annotations::Role, config::NetworkKind, error::Result};

/// The environment variable in which a pod may bring its token. The agent never sees it.
pub const TOKEN_VARIABLE: &str = "LATTICE_TOKEN";

/// What is asked of [`edit`].
#[derive(Debug)]
pub struct Edit<'a> {
    /// Root container or member.
    pub role: Role,
    /// Which network.
    pub network: NetworkKind,
    /// containerd's bundle, to which relative paths of the spec refer.
    pub bundle: &'a Path,
    /// What to mount at `/etc/resolv.conf`, if not kubelet's.
    pub resolv_conf: Option<&'a Path>,
}

/// Makes `spec` what runsc is given: absolute paths, no capability that reaches the network or the kernel, the pod's limits,
/// our resolver; refuses the host's network namespace.
///
/// # Errors
/// [`crate::error::Error::Invalid`] for what cannot be run safely, with the remedy.
pub fn edit(_spec: &mut Spec, _edit: &Edit<'_>) -> Result<()> {
    todo!()
}

/// Takes capabilities away from the process of an exec, as [`edit`] does for a container's.
pub fn edit_exec(_process: &mut Process) {
    todo!()
}

/// Takes the pod's token out of the environment, every occurrence; the last one counts.
pub fn take_token(_process: &mut Process) -> Option<zeroize::Zeroizing<String>> {
    todo!()
}
