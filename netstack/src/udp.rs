//! UDP sockets (RFC 768) and what waits in them.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
};

use crate::{Error, checksum, ip};

pub(crate) const HEADER: usize = 8;

/// What a datagram that waits is counted for, beyond its bytes.
const OVERHEAD: usize = 40;

/// A datagram that has come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it.
    pub remote: SocketAddr,
    /// To which of our addresses.
    pub local: IpAddr,
    /// Its length in bytes. What did not fit into the buffer is lost.
    pub len: usize,
}

/// One port's.
#[derive(Debug)]
pub(crate) struct Socket {
    waiting: VecDeque<Datagram>,
    /// Their bytes, one after another.
    bytes: VecDeque<u8>,
    /// The owner has read everything, and waits.
    awaits: bool,
}

impl Socket {
    /// Keeps a datagram if there is room: says whether the owner is to be told, or `None` if there is none.
    pub(crate) fn push(
        &mut self,
        remote: SocketAddr,
        local: IpAddr,
        payload: &[u8],
        most: usize,
    ) -> Option<bool> {
        let taken = self.bytes.len() + self.waiting.len() * OVERHEAD;
        if taken + payload.len() + OVERHEAD > most {
            return None;
        }
        self.waiting.push_back(Datagram { remote, local, len: payload.len() });
        self.bytes.extend(payload);
        Some(std::mem::take(&mut self.awaits))
    }

    /// How long the oldest is.
    pub(crate) fn next_len(&self) -> Option<usize> {
        self.waiting.front().map(|datagram| datagram.len)
    }

    /// Takes the oldest.
    pub(crate) fn pop(&mut self, buffer: &mut [u8]) -> Option<Datagram> {
        let Some(datagram) = self.waiting.pop_front() else {
            self.awaits = true;
            return None;
        };
        let copied = datagram.len.min(buffer.len());
        let (first, second) = self.bytes.as_slices();
        let split = copied.min(first.len());
        buffer[..split].copy_from_slice(&first[..split]);
        buffer[split..copied].copy_from_slice(&second[..copied - split]);
        self.bytes.drain(..datagram.len);
        Some(datagram)
    }
}

/// All sockets, by their ports.
#[derive(Debug, Default)]
pub(crate) struct Sockets(HashMap<u16, Socket>);

impl Sockets {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&mut self, port: u16) -> Option<&mut Socket> {
        self.0.get_mut(&port)
    }

    /// # Errors
    /// When the port is taken.
    pub(crate) fn bind(&mut self, port: u16) -> Result<(), Error> {
        if self.0.contains_key(&port) {
            return Err(Error::PortTaken(port));
        }
        self.0.insert(port, Socket { waiting: VecDeque::new(), bytes: VecDeque::new(), awaits: true });
        Ok(())
    }

    pub(crate) fn remove(&mut self, port: u16) {
        self.0.remove(&port);
    }
}

/// The ports and the data of a datagram of a packet; `None` when it cannot be one.
pub(crate) fn read<'a>(packet: &'a [u8], header: &ip::Header) -> Option<(u16, u16, &'a [u8])> {
    let datagram = &packet[header.transport..header.len];
    let fixed: &[u8; HEADER] = datagram.first_chunk()?;
    let word = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
    let payload = datagram.get(HEADER..usize::from(word(4)))?;
    (word(0) != 0 && word(2) != 0).then_some((word(0), word(2), payload))
}

/// Whether a datagram's checksum is right, or none where there need be none (RFC 8200, 8.1).
pub(crate) fn checksum_is_right(packet: &[u8], header: &ip::Header) -> bool {
    let has_none = packet[header.transport + 6..][..2] == [0, 0];
    if has_none {
        return header.source.is_ipv4();
    }
    // The datagram may be shorter than the packet says.
    let len = usize::from(u16::from_be_bytes([packet[header.transport + 4], packet[header.transport + 5]]));
    ip::Header { len: header.transport + len, ..*header }.checksum_is_right(packet)
}

/// Writes a packet with a datagram and says how long it is. It fits.
pub(crate) fn write(room: &mut [u8], local: SocketAddr, remote: SocketAddr, payload: &[u8]) -> usize {
    let len = HEADER + payload.len();
    let at = ip::write(room, local.ip(), remote.ip(), ip::UDP, len);
    let datagram = &mut room[at..at + len];
    datagram[..2].copy_from_slice(&local.port().to_be_bytes());
    datagram[2..4].copy_from_slice(&remote.port().to_be_bytes());
    datagram[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    datagram[6..8].fill(0);
    datagram[HEADER..].copy_from_slice(payload);
    let sum = checksum::pseudo_header(local.ip(), remote.ip(), ip::UDP, len);
    let sum = match checksum::finish(sum + checksum::sum(datagram)) {
        [0, 0] => [0xff, 0xff],
        sum => sum,
    };
    datagram[6..8].copy_from_slice(&sum);
    at + len
}
