//! The user-space TCP/IP stack.

use lattice_netstack::fuzz;

/// A packet through the tunnel, from any peer.
pub(crate) fn packet(bytes: &[u8]) -> bool {
    fuzz::packet(bytes)
}

/// A connection whose peer and owner do whatever can be done.
pub(crate) fn session(bytes: &[u8]) -> bool {
    fuzz::session(bytes)
}
