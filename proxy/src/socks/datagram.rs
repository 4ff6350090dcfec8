//! What stands in front of a datagram (RFC 1928 §7).

use std::net::SocketAddr;

use super::{address, write_address};
use crate::{Host, NameError, Target};

/// Why a client's datagram goes nowhere. Nobody is told; it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// No header, or one of a host that cannot be asked for.
    Malformed,
    /// A part of a datagram. Putting them together is optional, and only costs memory.
    Fragment,
}

/// Where a datagram is to go, and what it carries.
pub(crate) fn datagram(bytes: &[u8]) -> Result<(Target, &[u8]), Dropped> {
    let ([0, 0, fragment], rest) = bytes.split_first_chunk::<3>().ok_or(Dropped::Malformed)? else {
        return Err(Dropped::Malformed);
    };
    if *fragment != 0 {
        return Err(Dropped::Fragment);
    }
    let (host, port, length) = address(rest).ok_or(Dropped::Malformed)?;
    let target = |host: Result<Host, NameError>| Target::new(host?, port);
    Ok((target(host).map_err(|_| Dropped::Malformed)?, &rest[length..]))
}

/// The header of a datagram that came from `from`.
pub(crate) fn header(from: SocketAddr) -> Vec<u8> {
    let mut header = vec![0; 3];
    write_address(&mut header, from);
    header
}
