//! A user namespace (`user_namespaces(7)`), in which a process without any privilege may make a network of its own and hide files.
//!
//! ```text
//!  lattice sandbox run                        the namespaces' own
//!  ┌──────────────────┐   fork, exec   ┌───────────────┐   fork   ┌───────────────┐   spawn   ┌───────────┐
//!  │ identity, device ├───────────────►│ enter(), then │─────────►│ process 1:    │──────────►│ the       │
//!  │ policy, record   │◄──── TUN ──────│ only waits    │          │ network, then │           │ command   │
//!  └──────────────────┘  (rights.rs)   └───────────────┘          │ confine       │           └───────────┘
//!                                                                 └───────────────┘
//! ```
//!
//! Whoever is inside has no rights outside, and after [`confine::drop_privileges`] none inside either. What leads out of a namespace that holds no link but
//! a TUN of ours is files and sockets that are none of the network: [`sockets::refuse_ways_around`] sees to the latter.

mod attributes;
pub mod confine;
mod fork;
pub mod hide;
mod mounts;
pub mod rights;
pub mod sockets;

use std::{fs, io};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
};

pub use fork::{Forked, fork};

/// Why a process cannot have namespaces of its own.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}: {source}")]
pub struct UsernsError {
    /// What was asked of the kernel, in words.
    pub action: String,
    /// Its answer.
    pub source: io::Error,
}

/// For `map_err`: names the action that failed.
pub fn failed<E: Into<io::Error>>(action: impl Into<String>) -> impl FnOnce(E) -> UsernsError {
    move |error| UsernsError { action: action.into(), source: error.into() }
}

/// What the one user and the one group of a namespace are called in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownAs {
    /// As outside.
    Itself,
    /// 0, for programs that ask for it. It has no more rights than by another number.
    Root,
}

/// Moves the calling process, which must have one thread, to new namespaces of users, networks, mounts, IPC and host names, and its future children to a new one of
/// processes. It keeps its user and group, by whatever number, and is given every capability over what is made there. No mount made later is seen elsewhere.
///
/// # Errors
/// `EPERM` or `ENOSPC` where the host forbids unprivileged user namespaces.
pub fn enter(known_as: KnownAs) -> Result<(), UsernsError> {
    let (uid, gid) = (geteuid(), getegid());
    let (inside, inside_group) = match known_as {
        KnownAs::Itself => (uid.as_raw(), gid.as_raw()),
        KnownAs::Root => (0, 0),
    };
    unshare(
        CloneFlags::CLONE_NEWUSER
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWPID,
    )
    .map_err(failed("make a user namespace"))?;
    // Without this first, an unprivileged process may not map its group (user_namespaces(7)).
    let maps = [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{inside} {uid} 1")),
        ("gid_map", format!("{inside_group} {gid} 1")),
    ];
    for (file, text) in maps {
        fs::write(format!("/proc/self/{file}"), text)
            .map_err(failed(format!("write the {file} of a user namespace")))?;
    }
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(failed("keep mounts of a user namespace from the host's"))
}
