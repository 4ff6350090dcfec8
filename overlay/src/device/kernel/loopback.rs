//! The peers' loopback addresses: where the kernel sends what is for a peer that has no direct path, and where what comes for it by a
//! relay seems to come from.
//!
//! Each peer has an address of 127.64.0.0/10, its home, so that one socket serves them all: its addresses tell the peers apart.
//! Only the kernel's WireGuard is heard: what another port of this host sends is dropped by a filter.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
};

use super::socket_filter;
use crate::device::udp::{Udp, Way};

/// Where homes begin, and how many there are.
const FIRST: u32 = Ipv4Addr::new(127, 64, 0, 0).to_bits();
const HOMES: u32 = 1 << 22;

/// Which home.
pub(super) type Slot = u32;

/// The homes, at one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Homes {
    pub(super) port: u16,
}

impl Homes {
    pub(super) fn at(self, slot: Slot) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::from_bits(FIRST + slot), self.port))
    }

    /// The slot after another; after the last comes the first.
    pub(super) fn after(slot: Slot) -> Slot {
        (slot + 1) % HOMES
    }

    /// Whether it is somebody's.
    pub(super) fn has(self, address: SocketAddr) -> bool {
        address.port() == self.port && slot(address.ip()).is_some()
    }
}

/// Whose home an address is.
fn slot(address: IpAddr) -> Option<Slot> {
    let IpAddr::V4(address) = address else { return None };
    address.to_bits().checked_sub(FIRST).filter(|slot| *slot < HOMES)
}

/// The socket.
#[derive(Debug)]
pub(super) struct Loopback {
    udp: Udp,
    homes: Homes,
    kernel: SocketAddr,
}

impl Loopback {
    /// For the kernel's WireGuard on `port`, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel gives no UDP socket.
    pub(super) fn open(port: u16) -> io::Result<Self> {
        let udp = Udp::bind_loopback()?;
        socket_filter::attach(&udp, socket_filter::from_port(port))?;
        let homes = Homes { port: udp.port()? };
        Ok(Self { udp, homes, kernel: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) })
    }

    pub(super) fn homes(&self) -> Homes {
        self.homes
    }

    /// The next datagrams of the kernel into `buffer`: for whom, how many bytes, and of how many bytes each but the last.
    /// `WouldBlock` when there are none.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(Slot, usize, usize)> {
        let received = self.udp.receive(buffer)?;
        let slot = received.from.local.and_then(slot).ok_or(io::ErrorKind::InvalidData)?;
        // There was no filter yet when the socket was bound.
        if received.from.remote.port() != self.kernel.port() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok((slot, received.len, received.segment))
    }

    /// Hands the kernel a datagram of the peer whose home is `slot`, at the latest with [`Self::flush`].
    pub(super) fn push(&mut self, slot: Slot, datagram: &[u8]) {
        let way = Way { remote: self.kernel, local: Some(self.homes.at(slot).ip()) };
        self.udp.push(way, datagram.len(), |room| room.copy_from_slice(datagram));
    }

    pub(super) fn flush(&mut self) {
        self.udp.flush();
    }

    /// Datagrams that the kernel did not take.
    pub(super) fn failed(&self) -> u64 {
        self.udp.failed()
    }
}

impl AsFd for Loopback {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.udp.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::UdpSocket,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::{Netns, link};

    fn received(loopback: &mut Loopback, buffer: &mut [u8]) -> Vec<(Slot, Vec<u8>)> {
        let mut all = Vec::new();
        let begun = Instant::now();
        while all.is_empty() && begun.elapsed() < Duration::from_secs(30) {
            while let Ok((slot, len, segment)) = loopback.receive(buffer) {
                all.extend(buffer[..len].chunks(segment).map(|datagram| (slot, datagram.to_vec())));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        all
    }

    #[test]
    fn each_peer_has_a_home_where_nobody_but_the_kernel_is_heard() {
        let netns = Netns::create().unwrap();
        link::set_up(&netns, "lo").unwrap();
        let open = || {
            let kernel = UdpSocket::bind("0.0.0.0:0").unwrap();
            let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
            let port = kernel.local_addr().unwrap().port();
            (kernel, stranger, Loopback::open(port).unwrap())
        };
        let (kernel, stranger, mut loopback) = netns.run(open).unwrap();
        kernel.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let homes = loopback.homes();
        let mut buffer = vec![0; 1 << 16];
        let last = HOMES - 1;
        for slot in [0, 1, 300, last] {
            stranger.send_to(b"lies", homes.at(slot)).unwrap();
            kernel.send_to(b"out", homes.at(slot)).unwrap();
            assert_eq!(received(&mut loopback, &mut buffer), [(slot, b"out".to_vec())]);
            // Two of one length make a run, which the kernel must cut again.
            for datagram in [b"first.", b"second"] {
                loopback.push(slot, datagram);
            }
            loopback.flush();
            for datagram in [b"first.", b"second"] {
                let (len, from) = kernel.recv_from(&mut buffer).unwrap();
                assert_eq!((&buffer[..len], from), (&datagram[..], homes.at(slot)));
            }
        }
        assert_eq!((loopback.failed(), Homes::after(last)), (0, 0));
        assert!(!homes.has(SocketAddr::from((Ipv4Addr::LOCALHOST, homes.port))));
        assert!(homes.has(homes.at(last)) && !homes.has(SocketAddr::new(homes.at(1).ip(), homes.port ^ 1)));
    }
}
