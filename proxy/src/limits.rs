//! Every limit of the proxy. What goes beyond one is refused or dropped, and counted ([`Counters`](crate::Counters)).

use std::time::Duration;

/// Most bytes of a handshake that are held: an HTTP head. A SOCKS message has 513 at most.
pub const MAX_HANDSHAKE: usize = 8 << 10;
/// Most header fields of an HTTP head.
pub const MAX_FIELDS: usize = 64;
/// Bytes moved at once in one direction of a connection, and the most that one direction holds while its receiver is slow.
pub const CHUNK: usize = 64 << 10;
/// How long an end may take what the other has said before it broke.
pub const LAST_WORDS: Duration = Duration::from_secs(10);
/// Chunks moved in one direction before others have their turn.
pub const ROUNDS: usize = 4;

/// How long a client is let alone before another may push it out, however many there are.
pub const GRACE: Duration = Duration::from_millis(500);
/// How long a client may take to read why it is refused.
pub const FAREWELL: Duration = Duration::from_secs(5);
/// What a client may still send meanwhile, in bytes; it is not looked at.
pub const FAREWELL_BYTES: usize = 64 << 10;
/// Silence on a client's connection after which the kernel asks whether it is still there.
pub const KEEPALIVE: Duration = Duration::from_secs(60);

/// Most different targets of one UDP association at the same time.
pub const UDP_TARGETS: usize = 64;
/// After this long without a datagram to it, a target makes room for another.
pub const UDP_TARGET_IDLE: Duration = Duration::from_secs(60);
/// Most datagrams of one association that wait for a name to be resolved.
pub const UDP_QUEUE: usize = 32;
/// How long one may wait.
pub const UDP_WAIT: Duration = Duration::from_secs(5);
/// Largest datagram, in bytes, with what SOCKS puts in front.
pub const MAX_DATAGRAM: usize = 65_535;

/// Most port forwards.
pub const MAX_FORWARDS: usize = 64;
/// How long a service of the host may take to accept a forwarded connection.
pub const FORWARD_CONNECT: Duration = Duration::from_secs(5);
/// Most connections, or senders of datagrams, of one forward at the same time.
pub const FORWARD_FLOWS: usize = 256;
/// After this long without a datagram in either direction, a sender is forgotten.
pub const FORWARD_UDP_IDLE: Duration = Duration::from_secs(60);

/// Limits that depend on how many programs share a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long a client may take from its connection to a complete request, credentials included. Default: 10 s.
    pub handshake: Duration,
    /// Clients in that state. One more, and the one that has taken the longest is cut off, once it
    /// had [`GRACE`]: whoever is slow on purpose keeps nobody out, and many at once are not cut off.
    /// Default: 64.
    pub half_open: usize,
    /// How long a target may take to answer. Default: 20 s.
    pub connect: Duration,
    /// How long the client of a plain HTTP request that says no more (FIN) waits for the next part of its answer. Default: 60 s.
    pub answer: Duration,
    /// Clients beyond the handshake, UDP associations among them; one more is refused (SOCKS 1, HTTP 503). Default: 512. Each can hold two
    /// times [`CHUNK`], and one descriptor; a UDP association two.
    pub connections: usize,
    /// UDP associations; likewise. Default: 32.
    pub associations: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            half_open: 64,
            connect: Duration::from_secs(20),
            answer: Duration::from_secs(60),
            connections: 512,
            associations: 32,
        }
    }
}
