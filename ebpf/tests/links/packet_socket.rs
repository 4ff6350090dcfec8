//! Frames sent past the IP stack by `packet(7)`, as a workload with `CAP_NET_RAW` can.
#![allow(unsafe_code)] // sockaddr_ll has no safe form

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// Sends `frame` on the link from the caller's network namespace, and lets the sender claim its protocol.
pub(crate) fn send(link: u32, claimed: i32, frame: &[u8]) -> io::Result<()> {
    let claimed = (claimed as u16).to_be();
    // SAFETY: no pointers are passed; the result is checked.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and ours.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let to = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: claimed,
        sll_ifindex: link as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: both pointers are valid for the lengths given with them.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of_val(&to) as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// An IPv4 packet with a UDP datagram in it, without a UDP checksum.
pub(crate) fn udp4(src: Ipv4Addr, dst: Ipv4Addr, from: u16, to: u16) -> Vec<u8> {
    let mut ip = [&[0x45, 0, 0, 31, 0, 1, 0, 0, 64, 17, 0, 0][..], &src.octets(), &dst.octets()].concat();
    let sum: u32 = ip.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let folded = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&folded.to_be_bytes());
    [&ip[..], &from.to_be_bytes(), &to.to_be_bytes(), &[0, 11, 0, 0], b"raw"].concat()
}
