//! Classic BPF on sockets (`SO_ATTACH_FILTER`, `Documentation/networking/filter.rst`): what a filter does not take is dropped before it
//! is queued and wakes nobody.
#![allow(unsafe_code)] // setsockopt(2): neither std nor nix has SO_ATTACH_FILTER.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use lattice_paths::mux::STUN_COOKIE;

/// A program; see `struct sock_filter`.
pub(super) type Program = Vec<libc::sock_filter>;

const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_IND;
const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;
const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_IND;
/// The length of the IPv4 header that begins at a place, into the index.
const INDEX_IPV4: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
const INDEX: u32 = libc::BPF_LDX | libc::BPF_W | libc::BPF_IMM;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const MORE: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
const ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// What a raw socket for UDP hands its filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begins {
    /// From the IPv4 header on (`raw(7)`).
    WithIpv4,
    /// From the UDP header on: IPv6 keeps the headers before (RFC 3542, section 3).
    WithUdp,
}

/// Takes STUN that was sent to `port`, as [`lattice_paths::mux::classify`] tells it: WireGuard is asked first.
pub(super) fn stun(begins: Begins, port: u16) -> Program {
    let index = match begins {
        Begins::WithIpv4 => INDEX_IPV4,
        Begins::WithUdp => INDEX,
    };
    let cookie = u32::from_be_bytes(STUN_COOKIE);
    vec![
        step(index, 0, 0, 0),
        step(LOAD_HALF, 2, 0, 0), // destination port
        step(EQUAL, port.into(), 0, 13),
        step(LOAD_HALF, 4, 0, 0), // length, of header and content
        step(AT_LEAST, 8 + 20, 0, 11),
        step(LOAD_WORD, 8 + 4, 0, 0),
        step(EQUAL, cookie, 0, 9),
        step(LOAD_BYTE, 8, 0, 0),
        step(ANY_BIT, 0xc0, 7, 0),
        step(LOAD_WORD, 8, 0, 0), // WireGuard's begins with 1 to 4 and three zeros
        step(ANY_BIT, 0x00ff_ffff, 4, 0),
        step(MORE, 0x0400_0000, 3, 0),
        step(EQUAL, 0, 2, 0),
        step(LOAD_HALF, 4, 0, 0),
        step(AT_LEAST, 8 + 32, 1, 0),
        step(RETURN, u32::MAX, 0, 0),
        step(RETURN, 0, 0, 0),
    ]
}

/// Takes, on a UDP socket, what comes from `port`.
pub(super) fn from_port(port: u16) -> Program {
    vec![
        step(INDEX, 0, 0, 0),
        step(LOAD_HALF, 0, 0, 0),
        step(EQUAL, port.into(), 0, 1),
        step(RETURN, u32::MAX, 0, 0),
        step(RETURN, 0, 0, 0),
    ]
}

/// An instruction; jumps count from the next one.
fn step(code: u32, operand: u32, if_true: u8, if_false: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: if_true, jf: if_false, k: operand }
}

/// Has `program` judge what comes to `socket` from now on.
///
/// # Errors
/// What the kernel says.
pub(super) fn attach(socket: &impl AsFd, mut program: Program) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let filter = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    // SAFETY: the kernel reads a sock_fprog and the `len` instructions it points to, which outlive the call, and copies them.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
