//! What a stack is made from, and what it may take.

use std::{net::IpAddr, time::Duration};

/// Fills bytes with ones that nobody can foretell: of them come sequence numbers (RFC 6528) and ports (RFC 6056).
pub type Random = Box<dyn FnMut(&mut [u8]) + Send>;

/// What a [`Stack`](crate::Stack) is.
pub struct Config {
    /// Its addresses. A flow goes out from the first one of its IP version.
    pub addresses: Vec<IpAddr>,
    /// The longest packet in bytes, IP header included. At least 576, and 1,280 for IPv6.
    pub mtu: u16,
    /// What it may take.
    pub limits: Limits,
    /// Its randomness: the kernel's, but for a test.
    pub random: Random,
}

/// What a stack may take of memory and of time. Whatever peers send, it takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// TCP connections at a time, those included that wait to be accepted or to end.
    pub flows: usize,
    /// Bytes of all buffers of TCP together. Each connection is sure of [`Limits::MIN_BUFFER`] in both directions; what is
    /// beyond that goes to whoever comes first, in shares of what is left. It is address space at first, and memory as far as
    /// it has been used. So that this holds also of buffers that others had before, set `M_MMAP_THRESHOLD` with glibc
    /// (`mallopt(3)`).
    pub memory: usize,
    /// The most bytes that one connection gets for what its owner has not read.
    pub receive_buffer: usize,
    /// The most bytes that one connection gets for what its peer has not acknowledged.
    pub send_buffer: usize,
    /// Connections that peers have asked for and not completed, those that wait for the owner's verdict included. No peer
    /// gets more than a quarter.
    pub half_open: usize,
    /// Ended connections whose late packets are still to be told from those of new ones (TIME-WAIT).
    pub time_wait: usize,
    /// Bytes of datagrams that wait in each UDP socket for its owner, some 40 more for each included.
    pub datagrams: usize,
    /// UDP sockets at a time.
    pub udp_sockets: usize,
    /// How long a connection may take to be made.
    pub handshake: Duration,
    /// How long a peer may leave unanswered what was sent to it (RFC 9293, 3.8.3).
    pub user_timeout: Duration,
    /// After so long in silence a peer is asked whether it is still there; `None` never asks.
    pub keep_alive: Option<Duration>,
    /// How long a connection whose owner has closed it may take to end.
    pub linger: Duration,
}

impl Limits {
    /// What each connection gets for each direction at least, in bytes.
    pub const MIN_BUFFER: usize = 16 << 10;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: 1024,
            memory: 96 << 20,
            receive_buffer: 1 << 20,
            send_buffer: 1 << 20,
            half_open: 256,
            time_wait: 1024,
            datagrams: 256 << 10,
            udp_sockets: 256,
            handshake: Duration::from_secs(20),
            user_timeout: Duration::from_secs(300),
            keep_alive: Some(Duration::from_secs(300)),
            linger: Duration::from_secs(60),
        }
    }
}
