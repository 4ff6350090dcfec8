//! Counts of dropped packets.

/// Packets that went nowhere, by reason. They only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drops {
    /// Neither IP nor WireGuard, or cut short.
    pub malformed: u64,
    /// Datagrams for a session that is not, or from a key that is no peer's.
    pub unknown_peer: u64,
    /// Handshake messages with a wrong MAC, replayed, or too many.
    pub handshake_refused: u64,
    /// Datagrams that did not decrypt, or came twice.
    pub unauthenticated: u64,
    /// Decrypted packets whose source is not among the peer's allowed IPs.
    pub wrong_source: u64,
    /// Datagrams that came from an address of the overlay itself: no peer's endpoint is in there.
    pub routing_loop: u64,
    /// Packets of the link for a destination no peer owns.
    pub no_route: u64,
    /// Packets of the link for a peer with no endpoint to try.
    pub no_endpoint: u64,
    /// Packets of the link that waited for a session in vain, or found too many others waiting.
    pub queue: u64,
    /// Decrypted packets the link did not take, as when it is down.
    pub link: u64,
    /// Encrypted datagrams the underlay did not take.
    pub underlay: u64,
    /// Packets that the way out of the overlay had no room or no use for, where there is one.
    pub beyond: u64,
}
