//! What names a flow.

use std::net::SocketAddr;

use crate::{ip, tcp::Segment};

/// Both ends of a flow. With the protocol, which each table has for itself, they are its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Tuple {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

impl Tuple {
    /// The flow of a segment that came in.
    pub(crate) fn of(header: &ip::Header, segment: &Segment) -> Self {
        Self {
            local: SocketAddr::new(header.destination, segment.destination_port),
            remote: SocketAddr::new(header.source, segment.source_port),
        }
    }
}
