//! What the owner is told, in the order in which it happened.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
};

/// A TCP connection. It is never used again for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// A connection that a peer asks for. It is never used again for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IncomingId(pub(crate) u64);

/// Something that the owner should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A peer asks for a connection, and waits: accept, refuse or ignore it.
    Incoming {
        /// The request.
        id: IncomingId,
        /// Who asks.
        remote: SocketAddr,
        /// For what.
        local: SocketAddr,
    },
    /// The connection is made.
    Established(FlowId),
    /// There is something to read. Told again once the owner has read all there was.
    Readable(FlowId),
    /// There is room to write again. Told only after a call that could not write all.
    Writable(FlowId),
    /// The peer sends no more; what it has sent can still be read.
    PeerClosed(FlowId),
    /// Both sides have ended, and the owner has read everything. The flow is gone.
    Closed(FlowId),
    /// The connection is gone, and what was not yet acknowledged with it. What had come in before a reset can still be read; when it was, or the flow is
    /// closed, the flow is gone as well. Otherwise it is gone at once, and what was not yet read with it.
    Broken {
        /// The flow.
        flow: FlowId,
        /// Why.
        cause: Cause,
    },
    /// A UDP socket has datagrams to read. Told again once the owner has read all there were.
    Datagrams {
        /// The socket's port.
        port: u16,
    },
}

/// Why a flow broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The peer answered that it takes no such connection.
    Refused,
    /// The peer has ended it at once.
    Reset,
    /// The peer does not answer.
    TimedOut,
    /// Somebody on the way to the peer answered that it cannot be reached (ICMP destination unreachable).
    Unreachable {
        /// Who answered.
        by: IpAddr,
        /// ICMP's code.
        code: u8,
    },
}

/// Events that have not been taken. Of each kind a flow has at most one here, so there are only so many.
#[derive(Debug, Default)]
pub(crate) struct Events(VecDeque<Event>);

impl Events {
    pub(crate) fn push(&mut self, event: Event) {
        self.0.push_back(event);
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        self.0.pop_front()
    }
}
