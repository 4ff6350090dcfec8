//! What is behind the proxy: who decides, records and carries.

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::Target;

/// The network behind the proxy, with its policy. Nothing here need be [`Send`].
///
/// It judges the name *and* each address that the name is resolved to, and puts both on record; the proxy asks for nothing twice and keeps
/// no verdict. Dropping a future that it returned gives up what that was for.
pub trait Outbound: 'static {
    /// A TCP connection.
    type Stream: Stream + 'static;
    /// A UDP socket.
    type Datagrams: Datagrams + 'static;

    /// Opens a TCP connection, if the policy permits. The target can be anything well-formed, loopback and `0.0.0.0` included: an implementation
    /// that dials with the host's own sockets must refuse those itself. The proxy gives up after [`Limits::connect`](crate::Limits::connect).
    ///
    /// # Errors
    /// A [`Refusal`], which the client is told.
    fn connect(&self, target: &Target, client: Client)
    -> impl Future<Output = Result<Self::Stream, Refusal>>;

    /// Opens a UDP socket for one client, not connected to anybody. That permits nothing yet: each datagram is judged.
    ///
    /// # Errors
    /// A [`Refusal`], which the client is told.
    fn udp(&self, client: Client) -> impl Future<Output = Result<Self::Datagrams, Refusal>>;
}

/// A connection in both directions. `poll_shutdown` ends the direction of writing only (FIN); dropping it ends both.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// Makes the drop that follows a reset (RST), so that the other end does not take what it has for everything.
    fn reset(&mut self);

    /// Ready once the connection is to end at once whatever still waits in it, as when the policy permits it no more. A relay asks at each
    /// turn, also while it neither reads nor writes here. Not asked again after that.
    fn poll_revoked(&mut self, _: &mut Context<'_>) -> Poll<io::Error> {
        Poll::Pending
    }
}

/// A UDP socket behind the proxy.
pub trait Datagrams {
    /// Sends one datagram, if the policy permits; resolves a name first. Waits for room rather than drop.
    ///
    /// # Errors
    /// A [`Refusal`], which is counted: UDP has no way to tell the client.
    fn send(&self, payload: &[u8], target: &Target) -> impl Future<Output = Result<(), Refusal>>;

    /// Receives one datagram that the policy lets in; what does not fit into `buffer` is cut off. One task at a time waits here.
    ///
    /// # Errors
    /// When the socket is of no use any more; that ends the association.
    fn poll_receive(
        &self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<SocketAddr>>;
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The end of its connection to the proxy.
    pub address: SocketAddr,
    /// How it asked.
    pub protocol: Protocol,
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// SOCKS version 5 (RFC 1928).
    Socks5,
    /// HTTP/1.1 or 1.0, method CONNECT (RFC 9110 §9.3.6).
    HttpConnect,
    /// HTTP/1.1 or 1.0, a request for `http://…` (RFC 9112 §3.2.2).
    HttpRequest,
}

/// Why there is no connection. Displays as the line that an HTTP client reads; a SOCKS client sees a number only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The policy does not permit the name.
    #[error("the policy does not permit this name ({0})")]
    DeniedName(Because),
    /// The policy does not permit the address, or none to which the name leads.
    #[error("the policy does not permit this address ({0})")]
    DeniedAddress(Because),
    /// The name has no address.
    #[error("the name has no address: check its spelling")]
    NotFound,
    /// No route leads to the address.
    #[error("no route leads there: it is neither a peer nor in a network that a peer stands for")]
    NoRoute,
    /// There is a route, but the host does not answer, or is said not to be there.
    #[error("the host cannot be reached")]
    Unreachable,
    /// Nobody listens on the port.
    #[error("the host refused the connection: nothing listens on that port")]
    ConnectionRefused,
    /// Neither yes nor no came in time.
    #[error("the host did not answer in time")]
    TimedOut,
    /// A limit is reached.
    #[error("too many connections: close some, or try again later")]
    Busy,
    /// Anything else, in one line.
    #[error("failed: {0}")]
    Failed(String),
}

/// What in the policy decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Because {
    /// The text of the rule; none when no rule speaks of it.
    pub rule: Option<String>,
    /// The reason, in the words of the flow record.
    pub reason: String,
}

// === impl Because ===

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Some(rule) => write!(f, "{}, rule \"{rule}\"", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

// === impl Refusal ===

impl Refusal {
    /// REP of the SOCKS5 reply (RFC 1928 §6). Nothing there stands for a timeout; 6, "TTL expired", comes nearest and tells it from the rest.
    pub(crate) fn socks(&self) -> u8 {
        match self {
            Self::Busy | Self::Failed(_) => 1,
            Self::DeniedName(_) | Self::DeniedAddress(_) => 2,
            Self::NoRoute => 3,
            Self::NotFound | Self::Unreachable => 4,
            Self::ConnectionRefused => 5,
            Self::TimedOut => 6,
        }
    }

    /// Status code and phrase (RFC 9110 §15), and the error of `Proxy-Status` (RFC 9209 §2.3).
    pub(crate) fn http(&self) -> (&'static str, &'static str) {
        match self {
            Self::DeniedName(_) => ("403 Forbidden", "http_request_denied"),
            Self::DeniedAddress(_) => ("403 Forbidden", "destination_ip_prohibited"),
            Self::NotFound => ("502 Bad Gateway", "dns_error"),
            Self::NoRoute => ("502 Bad Gateway", "destination_ip_unroutable"),
            Self::Unreachable => ("502 Bad Gateway", "destination_unavailable"),
            Self::ConnectionRefused => ("502 Bad Gateway", "connection_refused"),
            Self::TimedOut => ("504 Gateway Timeout", "connection_timeout"),
            Self::Busy => ("503 Service Unavailable", "connection_limit_reached"),
            Self::Failed(_) => ("502 Bad Gateway", "proxy_internal_error"),
        }
    }
}

// === impl Stream ===

impl Stream for TcpStream {
    fn reset(&mut self) {
        // Where it fails, the connection is over already.
        let _over = self.set_zero_linger();
    }
}
