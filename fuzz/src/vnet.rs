//! The user-space device's packets of up to 64 KiB.

/// What the TUN device of an agent's namespace hands over, and what peers send to be put together for it.
pub(crate) fn vnet(bytes: &[u8]) -> bool {
    lattice_overlay::fuzz::vnet(bytes)
}
