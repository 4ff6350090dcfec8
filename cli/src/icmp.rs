//! ICMP echo on a raw socket, of IPv4 (RFC 792) and IPv6 (RFC 4443).

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recvfrom, sendto,
            setsockopt, socket, sockopt,
        },
        time::{TimeVal, TimeValLike as _},
    },
};

const PAYLOAD: usize = 56;

/// An open socket, whose questions carry this process's number.
pub(crate) struct Echo {
    socket: OwnedFd,
    to: IpAddr,
    id: u16,
}

impl Echo {
    /// Opens one in the namespace of the calling thread, for questions to `to`.
    pub(crate) fn open(to: IpAddr) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (family, protocol) = match to {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let socket = socket(family, SockType::Raw, flags, protocol)?;
        Ok(Self { socket, to, id: std::process::id() as u16 })
    }

    /// Asks once; the time until the answer. `TimedOut` when none comes within `limit`.
    pub(crate) fn ask(&mut self, number: u16, limit: Duration) -> io::Result<Duration> {
        let begun = Instant::now();
        let address = SockaddrStorage::from(SocketAddr::new(self.to, 0));
        let question = request(kinds(self.to).0, self.id, number);
        sendto(self.socket.as_raw_fd(), &question, &address, MsgFlags::empty())?;
        let mut buffer = [0; 1500];
        loop {
            let left = limit.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let left = TimeVal::microseconds(left.as_micros().max(1000) as i64);
            setsockopt(&self.socket, sockopt::ReceiveTimeout, &left)?;
            match recvfrom::<SockaddrStorage>(self.socket.as_raw_fd(), &mut buffer) {
                Ok((len, Some(from))) if self.is_from(&from) && self.is_reply(&buffer[..len], number) => {
                    return Ok(begun.elapsed());
                }
                Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn is_from(&self, from: &SockaddrStorage) -> bool {
        let v4 = from.as_sockaddr_in().map(|from| IpAddr::from(from.ip()));
        v4.or_else(|| from.as_sockaddr_in6().map(|from| from.ip().into())) == Some(self.to)
    }

    fn is_reply(&self, packet: &[u8], number: u16) -> bool {
        is_reply(self.to, packet, self.id, number)
    }
}

/// The kinds of a question and of its answer.
fn kinds(to: IpAddr) -> (u8, u8) {
    if to.is_ipv4() { (8, 0) } else { (128, 129) }
}

/// A question. Its checksum is that of IPv4; the kernel writes the one of IPv6 itself (RFC 3542, 3.1).
fn request(kind: u8, id: u16, number: u16) -> [u8; 8 + PAYLOAD] {
    let mut packet = [0; 8 + PAYLOAD];
    packet[0] = kind;
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[6..8].copy_from_slice(&number.to_be_bytes());
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    packet[2..4].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    packet
}

/// Whether what a raw socket received is the answer to that question: of IPv4 a whole packet, of IPv6 without its header.
fn is_reply(to: IpAddr, packet: &[u8], id: u16, number: u16) -> bool {
    let head = if to.is_ipv4() { packet.first().map_or(0, |first| usize::from(first & 15) * 4) } else { 0 };
    let Some([kind, _, _, _, id_a, id_b, number_a, number_b]) = packet.get(head..head + 8) else {
        return false;
    };
    *kind == kinds(to).1
        && u16::from_be_bytes([*id_a, *id_b]) == id
        && u16::from_be_bytes([*number_a, *number_b]) == number
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    #[test]
    fn loopback_answers_and_nobody_else_does() {
        for to in [V4, V6] {
            let mut echo = Echo::open(to).expect("run as root");
            assert!(echo.ask(1, Duration::from_secs(5)).is_ok(), "{to}");
            let nobody = echo.ask(2, Duration::ZERO);
            assert_eq!(nobody.unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
    }

    #[test]
    fn only_the_answer_to_the_question_counts() {
        for (to, head) in [(V4, 20), (V6, 0)] {
            let mut packet = vec![0x45; head];
            packet.extend(request(kinds(to).0, 7, 9));
            assert!(!is_reply(to, &packet, 7, 9), "our own question");
            packet[head] = kinds(to).1;
            assert!(is_reply(to, &packet, 7, 9));
            assert!(!is_reply(to, &packet, 7, 8) && !is_reply(to, &packet, 6, 9));
            assert!((0..head + 7).all(|len| !is_reply(to, &packet[..len], 7, 9)));
        }
    }
}
