//! ICMP echo (RFC 792) on a raw socket.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recvfrom, sendto,
            setsockopt, socket, sockopt,
        },
        time::{TimeVal, TimeValLike as _},
    },
};

const REQUEST: u8 = 8;
const REPLY: u8 = 0;
const PAYLOAD: usize = 56;

/// An open socket, whose questions carry this process's number.
pub(crate) struct Echo {
    socket: OwnedFd,
    id: u16,
}

impl Echo {
    /// Opens one in the namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Icmp)?;
        Ok(Self { socket, id: std::process::id() as u16 })
    }

    /// Asks once; the time until the answer. `TimedOut` when none comes within `limit`.
    pub(crate) fn ask(&mut self, to: Ipv4Addr, number: u16, limit: Duration) -> io::Result<Duration> {
        let begun = Instant::now();
        let address = SockaddrIn::from(std::net::SocketAddrV4::new(to, 0));
        sendto(self.socket.as_raw_fd(), &request(self.id, number), &address, MsgFlags::empty())?;
        let mut buffer = [0; 1500];
        loop {
            let left = limit.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let left = TimeVal::microseconds(left.as_micros().max(1000) as i64);
            setsockopt(&self.socket, sockopt::ReceiveTimeout, &left)?;
            match recvfrom::<SockaddrIn>(self.socket.as_raw_fd(), &mut buffer) {
                Ok((len, Some(from))) if from.ip() == to && is_reply(&buffer[..len], self.id, number) => {
                    return Ok(begun.elapsed());
                }
                Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn request(id: u16, number: u16) -> [u8; 8 + PAYLOAD] {
    let mut packet = [0; 8 + PAYLOAD];
    packet[0] = REQUEST;
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[6..8].copy_from_slice(&number.to_be_bytes());
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    packet[2..4].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    packet
}

/// Whether an IPv4 packet is the answer to that question.
fn is_reply(packet: &[u8], id: u16, number: u16) -> bool {
    let head = packet.first().map_or(0, |first| usize::from(first & 15) * 4);
    let Some([kind, _, _, _, id_a, id_b, number_a, number_b]) = packet.get(head..head + 8) else {
        return false;
    };
    *kind == REPLY
        && u16::from_be_bytes([*id_a, *id_b]) == id
        && u16::from_be_bytes([*number_a, *number_b]) == number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_answers_and_nobody_else_does() {
        let mut echo = Echo::open().expect("run as root");
        let limit = Duration::from_secs(5);
        assert!(echo.ask(Ipv4Addr::LOCALHOST, 1, limit).is_ok());
        let nobody = echo.ask(Ipv4Addr::new(127, 0, 0, 1), 2, Duration::ZERO);
        assert_eq!(nobody.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn only_the_answer_to_the_question_counts() {
        let mut packet = vec![0x45];
        packet.resize(20, 0);
        packet.extend(request(7, 9));
        assert!(!is_reply(&packet, 7, 9), "our own question");
        packet[20] = REPLY;
        assert!(is_reply(&packet, 7, 9));
        assert!(!is_reply(&packet, 7, 8) && !is_reply(&packet, 6, 9));
        assert!((0..27).all(|len| !is_reply(&packet[..len], 7, 9)));
    }
}
