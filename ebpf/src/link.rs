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

use crate::{EbpfError, enforcer::program, ioctl, pinned, probe};

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

const ARPHRD_RAWIP: u16 = 519;

pub(crate) fn attach(
    ebpf: &mut Ebpf,
    link: &str,
    mode: AttachMode,
    pins: &Path,
) -> Result<Attached, EbpfError> {
    let fail = |source: Source| EbpfError::Attach { link: link.into(), source };
    let index = if_nametoindex(link).map_err(|e| fail(io::Error::from(e).into()))?;
    let programs = match ioctl::hardware_type(link).map_err(|e| fail(e.into()))? {
        libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => ["egress_l2", "ingress_l2"],
        libc::ARPHRD_NONE | ARPHRD_RAWIP | libc::ARPHRD_TUNNEL | libc::ARPHRD_TUNNEL6 | libc::ARPHRD_SIT => {
            ["egress_l3", "ingress_l3"]
        }
        arphrd => return Err(EbpfError::LinkType { link: link.into(), arphrd }),
    };
    let tcx = match mode {
        AttachMode::Auto => probe::has_tcx(),
        AttachMode::Tcx => true,
        AttachMode::Clsact => false,
    };
    if tcx {
        pinned::remove_gone(pins).map_err(|e| fail(e.into()))?;
    } else {
        add_clsact(link).map_err(|e| fail(e.into()))?;
    }
    // An index means a link only together with its namespace.
    let netns = fs::metadata("/proc/thread-self/ns/net").map_err(|e| fail(e.into()))?.ino();
    for (name, hook, side) in
        [(programs[0], TcAttachType::Egress, "egress"), (programs[1], TcAttachType::Ingress, "ingress")]
    {
        let program = program(ebpf, name)?;
        let attached = if tcx {
            let pin = pinned::path(pins, format_args!("{netns}-{index}-{side}"));
            attach_tcx(program, link, hook, &pin)
        } else {
            attach_clsact(program, link, hook)
        };
        attached.map_err(fail)?;
    }
    Ok(if tcx { Attached::Tcx } else { Attached::Clsact })
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
