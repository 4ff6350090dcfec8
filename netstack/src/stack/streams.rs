//! What the owner does with flows. What is to be sent goes out with the next [`Stack::poll`].

use std::time::Instant;

use super::Stack;
use crate::{Error, FlowId, flow::Flow};

impl Stack {
    /// Writes to a flow as much of `data` as there is room for, and says how much.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] when there is no room, or no connection yet: [`Event::Writable`](crate::Event) or
    /// [`Event::Established`](crate::Event) follows. Otherwise the flow takes no more.
    pub fn send(&mut self, now: Instant, id: FlowId, mut data: &[u8]) -> Result<usize, Error> {
        let all = data.len();
        // The room may be in two pieces, at the end of the buffer and at its beginning.
        while !data.is_empty() {
            let fill = |room: &mut [u8]| {
                let len = room.len().min(data.len());
                room[..len].copy_from_slice(&data[..len]);
                (len, len)
            };
            match self.send_with(now, id, fill) {
                Ok(len) => data = &data[len..],
                Err(Error::WouldBlock) if data.len() < all => break,
                Err(error) => return Err(error),
            }
        }
        Ok(all - data.len())
    }

    /// As [`Stack::send`], without a copy: `fill` writes to the room it gets, for example from a socket, and says how many
    /// bytes. The room may be only a part of what there is.
    ///
    /// # Errors
    /// As of [`Stack::send`].
    pub fn send_with<R>(
        &mut self,
        now: Instant,
        id: FlowId,
        fill: impl FnOnce(&mut [u8]) -> (usize, R),
    ) -> Result<R, Error> {
        self.with_flow(id, |flow| flow.send(now, fill))
    }

    /// Reads from a flow to `buffer`, and says how much; 0 is the end of the stream.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] when there is nothing: [`Event::Readable`](crate::Event) or
    /// [`Event::PeerClosed`](crate::Event) follows. Otherwise the flow has ended.
    pub fn recv(&mut self, id: FlowId, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut all = 0;
        // It may be in two pieces. The end of the stream is for a call of its own.
        while all < buffer.len() && (all == 0 || self.flows.get(id).is_some_and(|flow| flow.has_data())) {
            let room = &mut buffer[all..];
            let take = |data: &[u8]| {
                let len = data.len().min(room.len());
                room[..len].copy_from_slice(&data[..len]);
                (len, len)
            };
            match self.recv_with(id, take) {
                Ok(0) => break,
                Ok(len) => all += len,
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// As [`Stack::recv`], without a copy: `take` gets what is there, or a part of it, and says how many bytes it is done
    /// with. It gets nothing at the end of the stream.
    ///
    /// # Errors
    /// As of [`Stack::recv`].
    pub fn recv_with<R>(&mut self, id: FlowId, take: impl FnOnce(&[u8]) -> (usize, R)) -> Result<R, Error> {
        self.with_flow(id, |flow| flow.receive_data(take))
    }

    /// Tells the peer that nothing comes after what was written. What it sends can still be read.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] when there is no connection yet; otherwise when the flow has ended.
    pub fn shutdown_write(&mut self, now: Instant, id: FlowId) -> Result<(), Error> {
        self.with_flow(id, |flow| flow.shut_down(now))
    }

    /// Sends also what does not fill a packet, while something is on its way: for what waits for answers. Without, much
    /// small data makes fewer packets (Nagle's algorithm).
    ///
    /// # Errors
    /// When the flow has ended.
    pub fn set_no_delay(&mut self, id: FlowId, no_delay: bool) -> Result<(), Error> {
        self.with_flow(id, |flow| {
            flow.set_no_delay(no_delay);
            Ok(())
        })
    }

    /// Leaves a flow: what was written is still sent, what still comes in is answered with a reset. Nothing more is told of
    /// it.
    pub fn close(&mut self, now: Instant, id: FlowId) {
        let _ = self.with_flow(id, |flow| {
            flow.close(now);
            Ok(())
        });
    }

    /// Ends a flow with a reset, before which the peer is sent what was written and it has room for: as a kernel does for a program that leaves
    /// what it was sent unread. Nothing more is told of it.
    pub fn reset(&mut self, id: FlowId) {
        let _ = self.with_flow(id, |flow| {
            flow.reset();
            Ok(())
        });
    }

    /// Ends a flow at once with a reset to its peer. Nothing more is told of it.
    pub fn abort(&mut self, id: FlowId) {
        let _ = self.with_flow(id, |flow| {
            flow.is_orphan = true;
            flow.abort();
            Ok(())
        });
    }

    /// [`Stack::abort`] of every flow, those included that the owner has closed.
    pub fn abort_all(&mut self) {
        for slot in 0..self.flows.slots() {
            if let Some(flow) = self.flows.at(slot) {
                flow.is_orphan = true;
                flow.abort();
                self.make_ready(slot);
            }
        }
    }

    fn with_flow<R>(
        &mut self,
        id: FlowId,
        work: impl FnOnce(&mut Flow) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let flow = self.flows.get(id).ok_or(Error::Ended)?;
        let result = work(flow);
        self.make_ready(id.slot);
        result
    }
}
