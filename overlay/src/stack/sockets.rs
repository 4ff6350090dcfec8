//! What is known of each socket, and who waits for it.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    task::Waker,
};

use lattice_netstack::{Cause, Event, FlowId, IncomingId};
use lattice_policy::Direction;

use super::{ConnectError, Denied};

/// TCP connections.
pub(crate) type Flows = HashMap<FlowId, Flow>;

/// All sockets.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    pub(super) flows: Flows,
    pub(super) listeners: HashMap<u16, Listening>,
    /// By port: who waits for datagrams.
    pub(super) udp: HashMap<u16, Option<Waker>>,
}

/// A TCP connection.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// Egress where we began it.
    pub(crate) direction: Direction,
    pub(crate) is_established: bool,
    /// How it ended; then the stack knows it no more.
    pub(crate) end: Option<End>,
    /// Also who waits for it to be established.
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    /// Who waits for the connection to be cut off.
    pub(crate) watcher: Option<Waker>,
}

/// How a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// In order.
    Closed,
    /// Not in order.
    Broken(Cause),
    /// The policy permits it no more.
    Denied(Denied),
    /// No peer has its address any more.
    Gone,
    /// The policy permits it no more, and is that of another device.
    Revoked,
    /// The device has ended.
    Stopped,
}

/// A port that takes connections.
#[derive(Debug, Default)]
pub(super) struct Listening {
    /// How many listeners share it.
    pub(super) listeners: usize,
    pub(super) requests: VecDeque<Asking>,
    pub(super) waiting: Vec<Waker>,
}

/// A peer that asks for a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    pub(super) id: IncomingId,
    pub(super) remote: SocketAddr,
}

impl Flow {
    pub(crate) fn new(direction: Direction, local: SocketAddr, remote: SocketAddr) -> Self {
        let (reader, writer, watcher) = (None, None, None);
        Self { local, remote, direction, is_established: false, end: None, reader, writer, watcher }
    }

    pub(crate) fn end(&mut self, end: End) {
        self.end.get_or_insert(end);
        let Self { reader, writer, watcher, .. } = self;
        [reader, writer, watcher].into_iter().filter_map(Option::take).for_each(Waker::wake);
    }
}

/// Tells whoever waits for something of a flow what is new of it.
pub(crate) fn tell(flows: &mut Flows, event: Event) {
    let wake = |waker: Option<Waker>| waker.into_iter().for_each(Waker::wake);
    match event {
        Event::Established(id) => {
            if let Some(flow) = flows.get_mut(&id) {
                flow.is_established = true;
                wake(flow.reader.take());
            }
        }
        Event::Readable(id) | Event::PeerClosed(id) => {
            wake(flows.get_mut(&id).and_then(|flow| flow.reader.take()));
        }
        Event::Writable(id) => wake(flows.get_mut(&id).and_then(|flow| flow.writer.take())),
        Event::Closed(id) => flows.get_mut(&id).into_iter().for_each(|flow| flow.end(End::Closed)),
        Event::Broken { flow, cause } => {
            flows.get_mut(&flow).into_iter().for_each(|flow| flow.end(End::Broken(cause)));
        }
        Event::Incoming { .. } | Event::Datagrams { .. } => {}
    }
}

impl Sockets {
    /// Tells whoever waits what is new. Gives the request back for which nobody waits, and the oldest of a port that has more than
    /// `most`.
    pub(super) fn tell(&mut self, event: Event, most: usize) -> Option<IncomingId> {
        match event {
            Event::Incoming { id, remote, local } => {
                let Some(listening) = self.listeners.get_mut(&local.port()) else { return Some(id) };
                listening.requests.push_back(Asking { id, remote });
                listening.waiting.drain(..).for_each(Waker::wake);
                if listening.requests.len() > most {
                    return listening.requests.pop_front().map(|asking| asking.id);
                }
            }
            Event::Datagrams { port } => {
                self.udp.get_mut(&port).and_then(Option::take).into_iter().for_each(Waker::wake);
            }
            event => tell(&mut self.flows, event),
        }
        None
    }

    /// Ends everything for everybody.
    pub(super) fn stop(&mut self) {
        self.flows.values_mut().for_each(|flow| flow.end(End::Stopped));
        self.udp.values_mut().filter_map(Option::take).for_each(Waker::wake);
        self.listeners.values_mut().flat_map(|listening| listening.waiting.drain(..)).for_each(Waker::wake);
    }
}

impl End {
    /// Whether it was cut off from here: the peer did not end it, and nobody is to wait for what is left in it.
    pub(crate) fn is_cut(self) -> bool {
        matches!(self, Self::Denied(_) | Self::Revoked | Self::Gone | Self::Stopped)
    }

    /// As those who read and write are told; `None` for an end in order.
    pub(crate) fn error(self) -> Option<io::Error> {
        let (kind, text) = match self {
            Self::Closed => return None,
            Self::Broken(Cause::Refused | Cause::Reset) => {
                (io::ErrorKind::ConnectionReset, "the peer has reset the connection")
            }
            Self::Broken(Cause::TimedOut) => (io::ErrorKind::TimedOut, "the peer does not answer any more"),
            Self::Broken(Cause::Unreachable { .. }) => {
                (io::ErrorKind::HostUnreachable, "the peer cannot be reached any more")
            }
            Self::Denied(_) | Self::Revoked => {
                (io::ErrorKind::PermissionDenied, "the policy does not permit the connection any more")
            }
            Self::Gone => (io::ErrorKind::HostUnreachable, "no peer has that address any more"),
            Self::Stopped => (io::ErrorKind::BrokenPipe, "the device has ended"),
        };
        Some(io::Error::new(kind, text))
    }

    /// As those are told who wait for the connection.
    pub(crate) fn connect_error(self) -> ConnectError {
        match self {
            Self::Closed | Self::Revoked | Self::Broken(Cause::Refused | Cause::Reset) => {
                ConnectError::Refused
            }
            Self::Broken(Cause::TimedOut) => ConnectError::TimedOut,
            Self::Broken(Cause::Unreachable { .. }) => ConnectError::Unreachable,
            Self::Denied(denied) => ConnectError::Denied(denied),
            Self::Gone => ConnectError::NoPeer,
            Self::Stopped => ConnectError::Stopped,
        }
    }
}
