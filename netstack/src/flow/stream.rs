//! What the owner does with a flow's bytes.

use std::time::Instant;

use smoltcp::socket::tcp::{RecvError, State};

use super::Flow;
use crate::Error;

impl Flow {
    /// Lets `fill` write to the buffer's next room, and say how much.
    pub(crate) fn send<R>(
        &mut self,
        now: Instant,
        fill: impl FnOnce(&mut [u8]) -> (usize, R),
    ) -> Result<R, Error> {
        let socket = self.socket_mut();
        if !socket.may_send() {
            return Err(match socket.state() {
                State::SynSent | State::SynReceived => self.blocked(),
                State::Closed => Error::Ended,
                _ => Error::ShutDown,
            });
        }
        if !socket.can_send() {
            return Err(self.blocked());
        }
        if socket.send_queue() == 0 {
            self.alive_at = now;
        }
        self.socket_mut().send(fill).map_err(|_| Error::ShutDown)
    }

    fn blocked(&mut self) -> Error {
        self.news.awaits_room = true;
        Error::WouldBlock
    }

    /// Lets `take` read what has come in next, which is empty at the end of the stream, and say how much of it is done with.
    pub(crate) fn receive_data<R>(&mut self, take: impl FnOnce(&[u8]) -> (usize, R)) -> Result<R, Error> {
        let socket = self.socket_mut();
        if socket.can_recv() {
            let (len, result) = socket
                .recv(|data| {
                    let (len, result) = take(data);
                    let len = len.min(data.len());
                    (len, (len, result))
                })
                .map_err(|_| Error::Ended)?;
            self.track.read = self.track.read.wrapping_add(len as u32);
            if !self.socket().can_recv() {
                self.news.awaits_data = true;
            }
            return Ok(result);
        }
        match socket.recv(|_| (0, ())) {
            Err(RecvError::Finished) => {
                self.news.has_read_end = true;
                Ok(take(&[]).1)
            }
            Err(RecvError::InvalidState) if socket.state() == State::Closed => Err(Error::Ended),
            _ => {
                self.news.awaits_data = true;
                Err(Error::WouldBlock)
            }
        }
    }

    /// Whether something has come in that the owner has not read.
    pub(crate) fn has_data(&self) -> bool {
        self.socket().can_recv()
    }

    /// Sends no more after what was written.
    pub(crate) fn shut_down(&mut self, now: Instant) -> Result<(), Error> {
        match self.state() {
            // smoltcp would give the connection up.
            State::SynSent => return Err(Error::WouldBlock),
            State::Closed => return Err(Error::Ended),
            _ => {}
        }
        self.alive_at = now;
        self.socket_mut().close();
        Ok(())
    }

    /// Sends also what does not fill a packet, while something is on its way (RFC 1122, 4.2.3.4).
    pub(crate) fn set_no_delay(&mut self, no_delay: bool) {
        self.socket_mut().set_nagle_enabled(!no_delay);
    }
}
