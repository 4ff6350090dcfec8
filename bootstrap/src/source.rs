//! From which address this network namespace sends.

use std::{
    io,
    net::{IpAddr, UdpSocket},
};

/// The source that the kernel takes for what the caller's namespace sends to `to`. Nothing is sent.
pub(crate) fn source_to(to: IpAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0))?;
    // The port of the service "discard".
    socket.connect((to, 9))?;
    Ok(socket.local_addr()?.ip())
}
