//! Which sockets a confined program may have: `seccomp(2)`.
//!
//! A network namespace holds the sockets of IP. Those of a file system path, of a virtual machine's host and others lead elsewhere: a program
//! with a user's rights reaches that user's D-Bus, display, containers and name service by them, and has those speak to the world.
#![allow(unsafe_code)] // seccomp(2): neither std nor nix has it

use std::{io, mem::offset_of};

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JUMP, BPF_K, BPF_LD, BPF_RET, BPF_STMT, BPF_W,
    SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, c_int, seccomp_data, sock_filter,
};
use nix::errno::Errno;

/// `AUDIT_ARCH_*` of `linux/audit.h`: the machine's own calls. Those of its 32-bit mode have other numbers.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// `__X32_SYSCALL_BIT`: the calls of x32, which report themselves as the machine's own.
const X32: u32 = 0x4000_0000;

/// io_uring opens and connects sockets without a call that a filter sees; the keyrings of the user hold what is not the command's.
const MISSING: [libc::c_long; 4] =
    [libc::SYS_io_uring_setup, libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key];

/// IP, and what tells a program of its links and addresses.
const FAMILIES: [c_int; 3] = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// A pair of datagram sockets can send to any path, and these cannot.
const PAIRS: [c_int; 2] = [libc::SOCK_STREAM, libc::SOCK_SEQPACKET];

/// `SOCK_TYPE_MASK` of `linux/net.h`.
const SOCKET_TYPE: u32 = 0xf;

/// They type at the terminal that the command shares with the user's shell.
const TYPING: [u32; 2] = [libc::TIOCSTI as u32, libc::TIOCLINUX as u32];

/// Has the calling thread, and all that it starts, open sockets of IP and netlink only, and pairs of connected ones (`EAFNOSUPPORT` otherwise). It also takes what would
/// be ways around that, and what types at a terminal for its user or signals the process group that it came with. `PR_SET_NO_NEW_PRIVS` must be set. There is no way back.
///
/// # Errors
/// `EACCES` without `PR_SET_NO_NEW_PRIVS`; `EINVAL` where the kernel has no seccomp.
pub fn refuse_ways_around() -> io::Result<()> {
    let mut filter = filter();
    let length = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its instructions outlive the call, which copies them.
    let done =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    Errno::result(done)?;
    Ok(())
}

fn filter() -> Vec<sock_filter> {
    let mut all = vec![load(offset_of!(seccomp_data, arch)), skip_unless(BPF_JEQ, ARCHITECTURE, 1, 0)];
    all.extend([fail(libc::ENOSYS), load(offset_of!(seccomp_data, nr))]);
    all.extend([skip_unless(BPF_JGE, X32, 0, 1), fail(libc::ENOSYS)]);
    for number in MISSING {
        all.extend([skip_unless(BPF_JEQ, number as u32, 0, 1), fail(libc::ENOSYS)]);
    }
    let mut family = vec![argument(0)];
    family.extend(any_of(&FAMILIES.map(|family| family as u32), allow(), fail(libc::EAFNOSUPPORT)));
    let mut pair = vec![argument(0), skip_unless(BPF_JEQ, libc::AF_UNIX as u32, 1, 0)];
    pair.extend([fail(libc::EAFNOSUPPORT), argument(1), mask(SOCKET_TYPE)]);
    pair.extend(any_of(&PAIRS.map(|kind| kind as u32), allow(), fail(libc::EAFNOSUPPORT)));
    let mut request = vec![argument(1)];
    request.extend(any_of(&TYPING, fail(libc::EPERM), allow()));
    // The caller's process group, which has members outside its PID namespace: whoever started it.
    let group = vec![argument(0), skip_unless(BPF_JEQ, 0, 0, 1), fail(libc::EPERM), allow()];
    for (call, checks) in [
        (libc::SYS_socket, family),
        (libc::SYS_socketpair, pair),
        (libc::SYS_ioctl, request),
        (libc::SYS_kill, group),
    ] {
        all.push(skip_unless(BPF_JEQ, call as u32, 0, checks.len()));
        all.extend(checks);
    }
    all.push(allow());
    all
}

/// Ends in `then` when what was loaded is one of `values`, in `otherwise` when not.
fn any_of(values: &[u32], then: sock_filter, otherwise: sock_filter) -> Vec<sock_filter> {
    let each = values.iter().flat_map(|value| [skip_unless(BPF_JEQ, *value, 0, 1), then]);
    each.chain([otherwise]).collect()
}

fn instruction(code: u32, value: u32) -> sock_filter {
    // SAFETY: it only fills the structure in.
    unsafe { BPF_STMT(code as u16, value) }
}

/// Skips `hit` instructions where the comparison holds, else `miss`.
fn skip_unless(comparison: u32, value: u32, hit: usize, miss: usize) -> sock_filter {
    // SAFETY: it only fills the structure in.
    unsafe { BPF_JUMP((BPF_JMP | comparison | BPF_K) as u16, value, hit as u8, miss as u8) }
}

fn load(offset: usize) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, offset as u32)
}

/// The lower half of an argument: the kernel takes no more of these.
fn argument(index: usize) -> sock_filter {
    let lower = if cfg!(target_endian = "little") { 0 } else { 4 };
    load(offset_of!(seccomp_data, args) + 8 * index + lower)
}

fn mask(bits: u32) -> sock_filter {
    instruction(BPF_ALU | BPF_AND | BPF_K, bits)
}

fn allow() -> sock_filter {
    instruction(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
}

fn fail(errno: c_int) -> sock_filter {
    instruction(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | errno as u32)
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, UdpSocket},
        os::unix::net::{UnixDatagram, UnixListener, UnixStream},
        thread,
    };

    use super::*;

    fn confined<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        let confined = || {
            nix::sys::prctl::set_no_new_privs().unwrap();
            refuse_ways_around().unwrap();
            work()
        };
        thread::spawn(confined).join().unwrap()
    }

    fn socket(family: c_int) -> Errno {
        // SAFETY: takes integers only.
        let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        Errno::result(fd).err().unwrap_or(Errno::from_raw(0))
    }

    #[test]
    fn sockets_of_paths_are_refused_and_those_of_ip_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _bus = UnixListener::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        confined(move || {
            let refused = UnixStream::connect(&path).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EAFNOSUPPORT));
            UnixStream::pair().unwrap();
            assert!(UnixDatagram::pair().is_err(), "it could send to a path");
            UdpSocket::bind("127.0.0.1:0").unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            nix::ifaddrs::getifaddrs().unwrap();
            for family in [libc::AF_VSOCK, libc::AF_ALG, libc::AF_PACKET, libc::AF_UNIX, libc::AF_BLUETOOTH] {
                assert_eq!(socket(family), Errno::EAFNOSUPPORT, "{family}");
            }
        });
    }

    #[test]
    fn nothing_goes_round_the_filter_or_types_at_the_terminal() {
        confined(|| {
            for call in MISSING {
                // SAFETY: with a null pointer and zeroes none of them does anything.
                let done = unsafe { libc::syscall(call, 0, 0, 0, 0, 0) };
                assert_eq!(Errno::result(done), Err(Errno::ENOSYS), "{call}");
            }
            let byte = b'x';
            for request in TYPING {
                // SAFETY: both would read one byte.
                let done = unsafe { libc::ioctl(0, libc::Ioctl::from(request), &raw const byte) };
                assert_eq!(Errno::result(done), Err(Errno::EPERM));
            }
        });
    }

    /// By `int 0x80`, as a 32-bit program would.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn calls_of_other_numbers_are_refused() {
        let socket_of_32_bits = || -> i64 {
            let done: i64;
            // SAFETY: socket(2) by its old number, 359, takes integers only. rbx is the compiler's own and is put back.
            unsafe {
                std::arch::asm!(
                    "xchg {family:r}, rbx", "int 0x80", "xchg {family:r}, rbx",
                    family = inout(reg) i64::from(libc::AF_UNIX) => _,
                    inlateout("rax") 359_i64 => done,
                    in("rcx") i64::from(libc::SOCK_STREAM), in("rdx") 0_i64,
                    out("r8") _, out("r9") _, out("r10") _, out("r11") _,
                );
            }
            done
        };
        let x32 = || {
            // SAFETY: takes integers only.
            let done = unsafe {
                libc::syscall(libc::SYS_socket | i64::from(X32), libc::AF_UNIX, libc::SOCK_STREAM, 0)
            };
            Errno::result(done)
        };
        confined(move || {
            assert_eq!(socket_of_32_bits() as i32, -libc::ENOSYS);
            assert_eq!(x32(), Err(Errno::ENOSYS));
        });
    }
}
