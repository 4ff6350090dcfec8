//! Port forwards: what peers open at the agent's overlay address goes to a service of the host.
//!
//! The way in is as wide as the flag says and no wider: one port, one protocol, one address. Whether a peer may use it is decided by the
//! policy before a connection or datagram gets here.

mod flag;
mod tcp;
mod udp;

pub use flag::{Forward, ForwardError, Transport, parse_forwards};
pub use tcp::{Forwarder, Service};
