//! Questions about network links by `netdevice(7)` ioctls, which answer for the caller's network namespace. `/sys` would
//! answer for the namespace it was mounted in.
#![allow(unsafe_code)] // ioctl(2)

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// The link's hardware type, an `ARPHRD_*` number of `<linux/if_arp.h>`.
pub(crate) fn hardware_type(link: &str) -> io::Result<u16> {
    let socket: OwnedFd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        // SAFETY: all zero bytes are a valid `sockaddr`, which the union holds.
        ifr_ifru: unsafe { std::mem::zeroed() },
    };
    if link.is_empty() || link.len() >= libc::IFNAMSIZ || link.contains('\0') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the name of a link"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(link.bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: SIOCGIFHWADDR reads the terminated name and writes a `sockaddr` into the union, both inside `request`.
    let done =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR as libc::Ioctl, &raw mut request) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has filled in `ifr_hwaddr`; before, it was zero.
    Ok(unsafe { request.ifr_ifru.ifru_hwaddr.sa_family })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_loopback_and_nonsense_is_refused() {
        assert_eq!(hardware_type("lo").unwrap(), libc::ARPHRD_LOOPBACK);
        assert!(hardware_type("no-such-link").is_err());
        assert!(hardware_type("a-name-longer-than-any-link").is_err());
    }
}
