//! What was dropped, and why.

/// Packets that were dropped since the stack was made, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drops {
    /// No packet of any use: lengths, addresses, ports or options that cannot be.
    pub malformed: u64,
    /// With a wrong checksum of TCP, UDP or ICMP.
    pub checksum: u64,
    /// Fragments, which this stack does not put together.
    pub fragments: u64,
    /// For an address that is not ours.
    pub not_ours: u64,
    /// Of another protocol than TCP, UDP and ICMP.
    pub protocol: u64,
    /// TCP segments and ICMP errors whose sequence numbers a stranger could have guessed (RFC 5961, RFC 5927).
    pub forged: u64,
    /// SYNs beyond the bound of half-open connections, or of those of one peer.
    pub half_open: u64,
    /// Datagrams for a socket whose owner does not read them.
    pub datagrams: u64,
}
