//! What can go wrong between the loader and the kernel.

use std::{io, path::PathBuf};

use aya::{maps::MapError, programs::ProgramError};

/// Every failure of this crate. Each message says what failed, on what, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EbpfError {
    /// The kernel lets this process do no BPF.
    #[error(
        "the kernel refuses BPF to this process: {missing}; run as root, or give the process these capabilities"
    )]
    NotPermitted {
        /// What is missing, as names of capabilities.
        missing: String,
    },
    /// The kernel has no BPF.
    #[error(
        "this kernel has no bpf system call; it needs CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_BPF (Linux 6.1 or later)"
    )]
    NoBpf(#[source] io::Error),
    /// Too many own addresses.
    #[error("{0} own addresses are too many for one sandbox; at most {max} fit", max = crate::abi::MAX_OWN)]
    TooManyAddresses(usize),
    /// Too many names' addresses at a time.
    #[error(
        "{0} addresses of names are too many at a time; at most {max} fit, so wait until some of them are over",
        max = lattice_policy::Pin::MAX
    )]
    TooManyPins(usize),
    /// Too many lines for one name's address.
    #[error(
        "{lines} allow lines by name are too many for {address}; at most {max} fit, so merge their ports",
        max = lattice_policy::Pin::MAX_LINES
    )]
    PinTooLong {
        /// The address.
        address: std::net::IpAddr,
        /// How many lines.
        lines: usize,
    },
    /// The pin directory cannot be used.
    #[error(
        "cannot use the pin directory {path}: {source}; it must be a directory on a mounted bpf file system"
    )]
    PinDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process holds the pins.
    #[error(
        "the policy pinned in {0} is in use by another process; end that one, or choose another pin directory"
    )]
    InUse(PathBuf),
    /// The object file was refused as a whole.
    #[error("cannot load the policy program: {0}; `lattice doctor` names what this kernel lacks")]
    Load(#[source] Box<aya::EbpfError>),
    /// The object lacks something that the loader knows by name.
    #[error("the compiled policy program has no {0}; build it again from this source tree")]
    Object(&'static str),
    /// One program was refused.
    #[error("cannot load the program {name}: {source}; `lattice doctor` names what this kernel lacks")]
    Program {
        /// Its name.
        name: &'static str,
        /// Why.
        source: Box<ProgramError>,
    },
    /// No thread could be started to load programs on.
    #[error("cannot start a thread: {0}; is the limit of processes reached?")]
    Thread(#[source] io::Error),
    /// A map cannot be used.
    #[error("cannot {doing} in the map {map}: {source}")]
    Map {
        /// What was tried.
        doing: &'static str,
        /// On which map.
        map: &'static str,
        /// Why.
        source: Box<MapError>,
    },
    /// A link cannot be policed.
    #[error(
        "cannot attach the policy to the link {link}: {source}; check that the link exists in this network namespace"
    )]
    Attach {
        /// The link.
        link: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A cgroup cannot be policed.
    #[error(
        "cannot attach the policy to the cgroup {path}: {source}; it must be a directory of a cgroup v2 hierarchy"
    )]
    Cgroup {
        /// Its directory.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A link of a kind the program does not know.
    #[error(
        "cannot attach the policy to the link {link}: its hardware type {arphrd} is neither Ethernet nor plain IP"
    )]
    LinkType {
        /// The link.
        link: String,
        /// Its `ARPHRD_*` number.
        arphrd: u16,
    },
    /// The ring was taken before.
    #[error("the event ring has one reader, and it was taken already")]
    EventsTaken,
    /// A bpf file system cannot be mounted or unmounted.
    #[error("cannot {doing} the bpf file system {path}: {source}; this needs CAP_SYS_ADMIN")]
    Bpffs {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl EbpfError {
    pub(crate) fn map(doing: &'static str, map: &'static str) -> impl FnOnce(MapError) -> Self {
        move |source| Self::Map { doing, map, source: Box::new(source) }
    }
}
