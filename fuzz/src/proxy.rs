//! The proxy of pod mode.

use lattice_proxy::fuzz;

/// A client's bytes up to its request.
pub(crate) fn handshake(bytes: &[u8]) -> bool {
    fuzz::handshake(bytes)
}

/// A datagram of a UDP association.
pub(crate) fn datagram(bytes: &[u8]) -> bool {
    fuzz::datagram(bytes)
}

/// What follows `--forward`.
pub(crate) fn forwards(bytes: &[u8]) -> bool {
    fuzz::forwards(bytes)
}
