//! News of a namespace's links, addresses and routes (`rtnetlink(7)`).

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
    },
};

use crate::Netns;

/// `RTMGRP_LINK`.
const LINKS: u32 = 0x1;
/// `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR`.
const ADDRESSES: u32 = 0x10 | 0x100;

/// `RTMGRP_IPV4_ROUTE` and `RTMGRP_IPV6_ROUTE`.
const ROUTES: u32 = 0x40 | 0x400;

/// Readable when something of a namespace came, went or changed.
#[derive(Debug)]
pub struct Changes(OwnedFd);

impl Changes {
    /// Links of that namespace, from now on.
    ///
    /// # Errors
    /// When it cannot be entered or gives no socket.
    pub fn of_links(netns: &Netns) -> io::Result<Self> {
        Self::of(netns, LINKS)
    }

    /// Links and addresses of that namespace, from now on.
    ///
    /// # Errors
    /// When it cannot be entered or gives no socket.
    pub fn of_links_and_addresses(netns: &Netns) -> io::Result<Self> {
        Self::of(netns, LINKS | ADDRESSES)
    }

    /// Links, addresses and routes of that namespace, from now on.
    ///
    /// # Errors
    /// When it cannot be entered or gives no socket.
    pub fn of_all(netns: &Netns) -> io::Result<Self> {
        Self::of(netns, LINKS | ADDRESSES | ROUTES)
    }

    fn of(netns: &Netns, groups: u32) -> io::Result<Self> {
        netns.run(|| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
            Ok(Self(socket))
        })?
    }

    /// Forgets what there was: whoever is told looks at everything anew. Nor does it matter when some were lost.
    pub fn drain(&self) {
        let mut buffer = [0; 8192];
        let more = |got| matches!(got, Ok(_) | Err(Errno::EINTR | Errno::ENOBUFS));
        while more(recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())) {}
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
