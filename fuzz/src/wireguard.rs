//! The user-space WireGuard device.

use lattice_wireguard::fuzz;

/// A datagram of the underlay, from anybody.
pub(crate) fn datagram(bytes: &[u8]) -> bool {
    fuzz::datagram(bytes)
}

/// A packet that an agent, or a peer, sends through the tunnel.
pub(crate) fn packet(bytes: &[u8]) -> bool {
    fuzz::packet(bytes)
}

/// A datagram, from anybody, that names a session there is.
pub(crate) fn session(bytes: &[u8]) -> bool {
    fuzz::session(bytes)
}
