//! A TUN device (`Documentation/networking/tuntap.rst`): the kernel's end of a layer 3 link, read and written as packets.
#![allow(unsafe_code)] // ioctl(2): neither std nor nix has TUNSETIFF.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    os::unix::fs::OpenOptionsExt,
};

use libc::{IFF_NO_PI, IFF_TUN, c_short};

/// Fail when a device of that name exists, rather than attach to it.
const IFF_TUN_EXCL: c_short = 0x8000_u16 as c_short;

nix::ioctl_readwrite_bad!(tun_set_iff, libc::TUNSETIFF, libc::ifreq);

/// An open TUN device. Its link goes away with it.
#[derive(Debug)]
pub(super) struct Tun(File);

impl Tun {
    /// Makes the device `name` in the network namespace of the calling thread: that of the opener decides.
    ///
    /// # Errors
    /// `ENOENT` without `/dev/net/tun`, `EPERM` without `CAP_NET_ADMIN`, `EBUSY` when the name is taken.
    pub(super) fn open(name: &str) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")?;
        let mut request = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_flags: IFF_TUN as c_short | IFF_NO_PI as c_short | IFF_TUN_EXCL,
            },
        };
        if name.len() >= libc::IFNAMSIZ {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        // SAFETY: TUNSETIFF reads and writes an ifreq, which outlives the call; the name in it ends in NUL, being
        // shorter than the zeroed field.
        unsafe { tun_set_iff(file.as_raw_fd(), &raw mut request) }?;
        Ok(Self(file))
    }

    /// Reads one packet; `WouldBlock` when there is none.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }

    /// Writes one packet.
    pub(super) fn write(&mut self, packet: &[u8]) -> io::Result<()> {
        self.0.write(packet).map(drop)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
