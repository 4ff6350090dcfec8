//! A TUN device (`Documentation/networking/tuntap.rst`): the kernel's end of a layer 3 link, read and written as packets,
//! each behind a [`Header`] that says what the kernel left to do, or may leave undone.
#![allow(unsafe_code)] // ioctl(2): neither std nor nix has TUNSETIFF.

use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice, Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    os::unix::fs::OpenOptionsExt,
};

use super::vnet::Header;
use libc::{
    IFF_NO_PI, IFF_TUN, IFF_VNET_HDR, TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_USO4, TUN_F_USO6, c_short,
};

/// Fail when a device of that name exists, rather than attach to it.
const IFF_TUN_EXCL: c_short = 0x8000_u16 as c_short;

/// TCP that is marked by ECN comes cut by the kernel (no `TUN_F_TSO_ECN`).
const TCP: u32 = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;

/// From Linux 6.2 on, which is also when it began to take datagrams put together.
const DATAGRAMS: u32 = TCP | TUN_F_USO4 | TUN_F_USO6;

nix::ioctl_readwrite_bad!(tun_set_iff, libc::TUNSETIFF, libc::ifreq);
nix::ioctl_write_int_bad!(tun_set_offload, libc::TUNSETOFFLOAD);

/// An open TUN device. Its link goes away with it.
#[derive(Debug)]
pub(super) struct Tun {
    file: File,
    takes_datagrams: bool,
}

impl Tun {
    /// Makes the device `name` in the network namespace of the calling thread: that of the opener decides.
    ///
    /// # Errors
    /// `ENOENT` without `/dev/net/tun`, `EPERM` without `CAP_NET_ADMIN`, `EBUSY` when the name is taken.
    pub(super) fn open(name: &str) -> io::Result<Self> {
        let file = Self::driver()?;
        let flags = (IFF_TUN | IFF_NO_PI | IFF_VNET_HDR) as c_short | IFF_TUN_EXCL;
        let mut request = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags },
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
        Ok(Self::from_file(file))
    }

    /// Whether there is a driver that this user may open. Costs no link, whose end takes the kernel some 30 ms.
    ///
    /// # Errors
    /// As of [`Tun::open`], but that `CAP_NET_ADMIN` is not asked for.
    pub(super) fn offered() -> io::Result<()> {
        Self::driver().map(drop)
    }

    fn driver() -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")
    }

    /// Takes over a device that [`Tun::open`] made, here or in another process.
    pub(super) fn handed(device: OwnedFd) -> Self {
        Self::from_file(device.into())
    }

    fn from_file(file: File) -> Self {
        let offers = |offload: u32| {
            // SAFETY: TUNSETOFFLOAD takes a number.
            unsafe { tun_set_offload(file.as_raw_fd(), offload as _) }.is_ok()
        };
        let takes_datagrams = offers(DATAGRAMS);
        // Without any, the kernel cuts and sums itself what we read.
        let _ = takes_datagrams || offers(TCP) || offers(TUN_F_CSUM);
        Self { file, takes_datagrams }
    }

    /// Whether several UDP datagrams may be written as one.
    pub(super) fn takes_datagrams(&self) -> bool {
        self.takes_datagrams
    }

    /// Reads a [`Header`] and a packet; `WouldBlock` when there is none.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.file.read(buffer) {
            // A packet that the kernel has no header for, and has dropped. No header of ours is as short.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(0),
            done => done,
        }
    }

    /// Writes one packet.
    pub(super) fn write(&mut self, header: Header, packet: &[u8]) -> io::Result<()> {
        let header = header.to_bytes();
        let slices = [IoSlice::new(&header), IoSlice::new(packet)];
        self.file.write_vectored(&slices).map(drop)
    }
}

impl From<Tun> for OwnedFd {
    fn from(tun: Tun) -> Self {
        tun.file.into()
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
