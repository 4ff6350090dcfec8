//! How peers find each other: datagrams of the underlay, and what peers seal for each other.

use lattice_paths::fuzz;

/// What a datagram is.
pub(crate) fn mux(bytes: &[u8]) -> bool {
    fuzz::classify(bytes)
}

/// A STUN message, from anybody.
pub(crate) fn stun(bytes: &[u8]) -> bool {
    fuzz::stun(bytes)
}

/// A signal of a peer.
pub(crate) fn signal(bytes: &[u8]) -> bool {
    fuzz::signal(bytes)
}
