//! Questions to `bpf(2)` that aya does not ask.
#![allow(unsafe_code)] // bpf(2)

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// Numbers of `enum bpf_cmd`, `enum bpf_link_type` and `enum bpf_attach_type` in `<linux/bpf.h>`.
const OBJ_GET: libc::c_long = 7;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;
const LINK_TYPE_CGROUP: u32 = 3;
const LINK_TYPE_TCX: u32 = 11;
const CGROUP_INET4_CONNECT: u32 = 10;

/// The head of `struct bpf_link_info`.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    pad: u32,
    /// `tcx.ifindex` in the first half, or `cgroup.cgroup_id`.
    target: [u32; 2],
}

/// Whether the pinned link at `path` was attached to something that has gone, and now does nothing.
pub(crate) fn is_gone(path: &Path) -> io::Result<bool> {
    let link = get(path)?;
    let mut info = LinkInfo::default();
    #[repr(C)]
    struct Attr {
        fd: u32,
        length: u32,
        info: u64,
    }
    let mut attr = Attr {
        fd: number(link.as_fd()),
        length: size_of::<LinkInfo>() as u32,
        info: (&raw mut info).addr() as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut attr)?;
    let [low, high] = info.target;
    Ok(match info.kind {
        LINK_TYPE_TCX => low == 0,
        LINK_TYPE_CGROUP => low == 0 && high == 0,
        _ => false,
    })
}

/// Whether programs can police the calls of this cgroup.
pub(crate) fn has_cgroup_hooks(cgroup: BorrowedFd<'_>) -> bool {
    #[repr(C)]
    struct Attr {
        target: u32,
        hook: u32,
        flags: u32,
        attach_flags: u32,
        programs: u64,
        count: u32,
        pad: u32,
    }
    let hook = CGROUP_INET4_CONNECT;
    let mut attr =
        Attr { target: number(cgroup), hook, flags: 0, attach_flags: 0, programs: 0, count: 0, pad: 0 };
    bpf(PROG_QUERY, &mut attr).is_ok()
}

fn get(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    #[repr(C)]
    struct Attr {
        path: u64,
        fd: u32,
        flags: u32,
    }
    let mut attr = Attr { path: path.as_ptr().addr() as u64, fd: 0, flags: 0 };
    let fd = bpf(OBJ_GET, &mut attr)?;
    // SAFETY: the kernel has made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// Every `attr` above is a prefix of `union bpf_attr` without implicit padding; the kernel takes what is left out for
/// zeros.
fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: `attr` is valid for its size, and so is the memory that it points to for the length that it says.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, attr as *mut T, size_of::<T>()) };
    libc::c_int::try_from(done).ok().filter(|&done| done >= 0).ok_or_else(io::Error::last_os_error)
}
