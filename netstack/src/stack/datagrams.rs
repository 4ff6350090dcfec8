//! UDP.

use std::{net::SocketAddr, time::Instant};

use super::Stack;
use crate::{Datagram, Error, Output, Run, ip, udp};

impl Stack {
    /// Binds a UDP socket to a port of all our addresses, or to any free one for 0, and says which.
    ///
    /// # Errors
    /// When the port is taken, and when there are as many sockets as may be.
    pub fn bind_udp(&mut self, port: u16) -> Result<u16, Error> {
        if self.sockets.len() >= self.limits.udp_sockets {
            return Err(Error::Limit("the number of UDP sockets"));
        }
        let port = match port {
            0 => self
                .ephemeral_port(|stack, port| stack.sockets.get(port).is_none())
                .ok_or(Error::PortTaken(0))?,
            port => port,
        };
        self.sockets.bind(port)?;
        Ok(port)
    }

    /// Closes a UDP socket. What it holds is lost.
    pub fn close_udp(&mut self, port: u16) {
        self.sockets.remove(port);
    }

    /// Sends a datagram from a bound port, from our first address of `remote`'s IP version.
    ///
    /// # Errors
    /// When no socket is bound to the port, `remote` cannot be reached from here, or the datagram does not fit into a packet
    /// on the way there: nothing is sent in fragments.
    pub fn send_to(
        &mut self,
        now: Instant,
        port: u16,
        remote: SocketAddr,
        payload: &[u8],
        out: &mut impl Output,
    ) -> Result<(), Error> {
        self.sockets.get(port).ok_or(Error::NotBound(port))?;
        let local = self.address_for(remote.ip()).ok_or(Error::Unreachable(remote))?;
        if remote.port() == 0 || !ip::is_host(remote.ip()) || self.addresses.contains(&remote.ip()) {
            return Err(Error::Unreachable(remote));
        }
        let headers = ip::header_len(local) + udp::HEADER;
        let most = usize::from(self.paths.to(remote.ip(), now)) - headers;
        if payload.len() > most {
            return Err(Error::TooLong { len: payload.len(), most });
        }
        let room = self.scratch.room();
        let len = udp::write(room, SocketAddr::new(local, port), remote, payload);
        out.transmit(&mut Run::single(&room[..len]));
        Ok(())
    }

    /// How long the next datagram of a port is; `None` when there is none.
    pub fn next_datagram(&mut self, port: u16) -> Option<usize> {
        self.sockets.get(port)?.next_len()
    }

    /// Reads the next datagram of a port to `buffer`; `None` when there is none, or no socket. Then
    /// [`Event::Datagrams`](crate::Event) follows.
    pub fn recv_from(&mut self, port: u16, buffer: &mut [u8]) -> Option<Datagram> {
        self.sockets.get(port)?.pop(buffer)
    }
}
