//! Attaches the program to a link, so that it stays when this process ends.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
    },
};
use nix::net::if_::if_nametoindex;

use crate::{
    EbpfError,
    enforcer::{load_all, program},
    ioctl, pinned, probe,
};

/// How programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttachMode {
    /// TCX where the kernel has it, else clsact.
    #[default]
    Auto,
    /// TCX (Linux 6.6).
    Tcx,
    /// The clsact qdisc.
    Clsact,
}

/// How a link is policed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// By pinned TCX links: nothing inside the network namespace removes them but deleting the link itself.
    Tcx,
    /// By filters of a clsact qdisc: they stay until the link or the qdisc is deleted.
    Clsact,
}

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Ours is the first filter of the qdisc.
const PRIORITY: u16 = 1;
const HANDLE: TcHandle = TcHandle::new(0, 1);

const HOOKS: [(TcAttachType, &str); 2] =
    [(TcAttachType::Egress, "egress"), (TcAttachType::Ingress, "ingress")];

const ARPHRD_RAWIP: u16 = 519;

/// What a link's frames begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// An Ethernet header.
    Ethernet,
    /// The IP header itself, as on a TUN or WireGuard link.
    Ip,
}

impl Framing {
    /// The programs for egress and ingress.
    pub(crate) const fn programs(self) -> [&'static str; 2] {
        match self {
            Self::Ethernet => ["egress_l2", "ingress_l2"],
            Self::Ip => ["egress_l3", "ingress_l3"],
        }
    }
}

/// A link of the caller's network namespace.
pub(crate) struct Link<'a> {
    name: &'a str,
    pub(crate) index: u32,
    framing: Framing,
}

impl<'a> Link<'a> {
    pub(crate) fn find(name: &'a str) -> Result<Self, EbpfError> {
        let fail = |source: Source| EbpfError::Attach { link: name.into(), source };
        let index = if_nametoindex(name).map_err(|e| fail(io::Error::from(e).into()))?;
        let framing = match ioctl::hardware_type(name).map_err(|e| fail(e.into()))? {
            libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => Framing::Ethernet,
            libc::ARPHRD_NONE
            | ARPHRD_RAWIP
            | libc::ARPHRD_TUNNEL
            | libc::ARPHRD_TUNNEL6
            | libc::ARPHRD_SIT => Framing::Ip,
            arphrd => return Err(EbpfError::LinkType { link: name.into(), arphrd }),
        };
        Ok(Self { name, index, framing })
    }

    pub(crate) fn attach(
        &self,
        ebpf: &mut Ebpf,
        mode: AttachMode,
        pins: &Path,
    ) -> Result<Attached, EbpfError> {
        let fail = |source: Source| EbpfError::Attach { link: self.name.into(), source };
        let tcx = match mode {
            AttachMode::Auto => probe::has_tcx(),
            AttachMode::Tcx => true,
            AttachMode::Clsact => false,
        };
        if tcx {
            pinned::remove_gone(pins).map_err(|e| fail(e.into()))?;
        } else {
            add_clsact(self.name).map_err(|e| fail(e.into()))?;
        }
        // An index means a link only together with its namespace.
        let netns = fs::metadata("/proc/thread-self/ns/net").map_err(|e| fail(e.into()))?.ino();
        load_all(ebpf, &self.framing.programs())?;
        for (name, (hook, side)) in self.framing.programs().into_iter().zip(HOOKS) {
            let program: &mut SchedClassifier = program(ebpf, name)?;
            let attached = if tcx {
                let pin = pinned::path(pins, format_args!("{netns}-{}-{side}", self.index));
                attach_tcx(program, self.name, hook, &pin)
            } else {
                attach_clsact(program, self.name, hook)
            };
            attached.map_err(fail)?;
        }
        Ok(if tcx { Attached::Tcx } else { Attached::Clsact })
    }
}

fn attach_tcx(
    program: &mut SchedClassifier,
    link: &str,
    hook: TcAttachType,
    pin: &Path,
) -> Result<(), Source> {
    let (_, there) = SchedClassifier::query_tcx(link, hook)?;
    let ours = program.info()?.id();
    // A link takes the same program only once.
    if there.iter().any(|program| program.id() == ours) {
        return Ok(());
    }
    let id = program.attach_with_options(link, hook, TcAttachOptions::TcxOrder(LinkOrder::first()))?;
    pinned::replace(program.take_link(id)?.try_into()?, pin)
}

fn attach_clsact(program: &mut SchedClassifier, link: &str, hook: TcAttachType) -> Result<(), Source> {
    let options =
        || TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, handle: HANDLE, classid: None });
    let id = match program.attach_with_options(link, hook, options()) {
        Err(ProgramError::TcError(e)) if is_there(&e) => {
            program.attach_to_link(SchedClassifierLink::attached(link, hook, PRIORITY, HANDLE, None)?)?
        }
        attached => attached?,
    };
    // Dropping it would detach the filter, which is to outlive this process. It holds no descriptor.
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

fn add_clsact(link: &str) -> Result<(), TcError> {
    match tc::qdisc_add_clsact(link) {
        Err(e) if is_there(&e) => Ok(()),
        added => added,
    }
}

fn is_there(e: &TcError) -> bool {
    match e {
        TcError::AlreadyAttached => true,
        TcError::NetlinkError(e) => e.raw_os_error() == Some(libc::EEXIST),
        _ => false,
    }
}
