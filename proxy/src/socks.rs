//! The messages of SOCKS version 5 (RFC 1928, RFC 1929) and the header of its datagrams. Each reader takes the bytes that are there, and says
//! what it read and how long that was, or that more is needed, or what is wrong; it says the last as soon as it can be known.

mod datagram;

use std::net::{IpAddr, SocketAddr};

use crate::{Host, NameError, Target, http::Exchange};
pub(crate) use datagram::{Dropped, datagram, header};

pub(crate) const VERSION: u8 = 5;
/// Version of the password's negotiation (RFC 1929 §2).
const PASSWORD_VERSION: u8 = 1;

/// METHOD (RFC 1928 §3).
pub(crate) const NO_AUTHENTICATION: u8 = 0;
pub(crate) const PASSWORD: u8 = 2;
pub(crate) const NOT_ACCEPTABLE: u8 = 0xff;

/// REP (RFC 1928 §6), as far as no [`Refusal`](crate::Refusal) stands for it.
pub(crate) const GENERAL_FAILURE: u8 = 1;
pub(crate) const COMMAND_NOT_SUPPORTED: u8 = 7;
pub(crate) const ADDRESS_TYPE_NOT_SUPPORTED: u8 = 8;

/// What SOCKS version 4 is told: refused (0x5b), whatever it wanted.
pub(crate) const VERSION_4_REFUSED: [u8; 8] = [0, 0x5b, 0, 0, 0, 0, 0, 0];

/// A message and how many bytes it has; none while it is not complete.
pub(crate) type Read<T, E> = Result<Option<(T, usize)>, E>;

/// Not the message that belongs here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    Connect(Target),
    /// With the address from which the datagrams will come, if it said so.
    Associate(Option<SocketAddr>),
    /// One HTTP request, which no SOCKS client asks for.
    Exchange(Exchange),
}

/// The client's methods, of which the one in question is there or not.
pub(crate) fn greeting(bytes: &[u8], method: u8) -> Read<bool, Malformed> {
    if bytes.first().is_some_and(|version| *version != VERSION) {
        return Err(Malformed);
    }
    let Some(methods) = bytes.get(1).and_then(|count| bytes.get(2..2 + usize::from(*count))) else {
        return Ok(None);
    };
    Ok(Some((methods.contains(&method), 2 + methods.len())))
}

/// User name and password (RFC 1929 §2).
pub(crate) fn password(bytes: &[u8]) -> Read<(&[u8], &[u8]), Malformed> {
    if bytes.first().is_some_and(|version| *version != PASSWORD_VERSION) {
        return Err(Malformed);
    }
    let read = || {
        let (user, rest) = counted(bytes.get(1..)?)?;
        let (password, _) = counted(rest)?;
        Some(((user, password), 3 + user.len() + password.len()))
    };
    Ok(read())
}

/// The answer to that.
pub(crate) fn password_status(admitted: bool) -> [u8; 2] {
    [PASSWORD_VERSION, u8::from(!admitted)]
}

/// The request (RFC 1928 §4). The error is REP of the reply.
pub(crate) fn request(bytes: &[u8]) -> Read<Request, u8> {
    let is = |place: usize, right: fn(u8) -> bool, wrong: u8| match bytes.get(place) {
        Some(byte) if !right(*byte) => Err(wrong),
        _ => Ok(()),
    };
    is(0, |version| version == VERSION, GENERAL_FAILURE)?;
    // BIND, which would let strangers begin a connection to the agent, is not supported.
    is(1, |command| matches!(command, 1 | 3), COMMAND_NOT_SUPPORTED)?;
    is(2, |reserved| reserved == 0, GENERAL_FAILURE)?;
    is(3, |kind| matches!(kind, 1 | 3 | 4), ADDRESS_TYPE_NOT_SUPPORTED)?;
    let Some((host, port, length)) = bytes.get(3..).and_then(address) else { return Ok(None) };
    let request = if bytes[1] == 1 {
        let target = host.and_then(|host| Target::new(host, port)).map_err(|_| GENERAL_FAILURE)?;
        Request::Connect(target)
    } else {
        Request::Associate(match host {
            Ok(Host::Address(ip)) if port != 0 => Some(SocketAddr::new(ip, port)),
            _ => None,
        })
    };
    Ok(Some((request, 3 + length)))
}

/// A reply to a request. `bound` is where the proxy listens for datagrams; of a connection it says nothing.
pub(crate) fn reply(code: u8, bound: Option<SocketAddr>) -> Vec<u8> {
    let mut reply = vec![VERSION, code, 0];
    write_address(&mut reply, bound.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))));
    reply
}

/// ATYP, address and port, and how many bytes they have. Only the first byte has been looked at, if it has.
fn address(bytes: &[u8]) -> Option<(Result<Host, NameError>, u16, usize)> {
    let (kind, rest) = bytes.split_first()?;
    let (host, rest) = match kind {
        1 => {
            let (octets, rest) = rest.split_first_chunk::<4>()?;
            (Ok(Host::Address(IpAddr::from(*octets))), rest)
        }
        4 => {
            let (octets, rest) = rest.split_first_chunk::<16>()?;
            (Ok(Host::Address(IpAddr::from(*octets).to_canonical())), rest)
        }
        3 => {
            let (name, rest) = counted(rest)?;
            (Host::read(name), rest)
        }
        _ => return None,
    };
    let (port, rest) = rest.split_first_chunk()?;
    Some((host, u16::from_be_bytes(*port), bytes.len() - rest.len()))
}

fn write_address(to: &mut Vec<u8>, address: SocketAddr) {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => {
            to.push(1);
            to.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            to.push(4);
            to.extend(ip.octets());
        }
    }
    to.extend(address.port().to_be_bytes());
}

/// One byte of length, so many bytes, and the rest.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

#[cfg(test)]
mod tests;
