//! What keeps the keys in this process's memory from its neighbours: in pod mode an agent may run as the same user.

use lattice_bootstrap::{Failure, Kind};
use nix::sys::{
    prctl::{set_dumpable, set_no_new_privs},
    resource::{Resource, getrlimit, setrlimit},
};

/// From here on no other process of this user attaches to this one or reads its memory and environment (ptrace(2), proc(5)), no core is
/// dumped, and no program that it starts gains a privilege. To be called before there is another thread.
pub(crate) fn shield() -> Result<(), Failure> {
    set_dumpable(false)
        .and_then(|()| set_no_new_privs())
        .and_then(|()| setrlimit(Resource::RLIMIT_CORE, 0, 0))
        .map_err(|error| {
            Failure::new(Kind::Kernel, format!("cannot shield this process from others: {error}"))
        })
}

/// As many descriptors as this process may have: each connection takes two. What it starts inherits that, so not before there is a helper.
pub(crate) fn take_descriptors() {
    // Without it there are fewer connections.
    let _ = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
}
