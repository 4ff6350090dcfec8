//! How LRP uses QUIC and UDP sockets, at both ends.

use std::{
    any::Any,
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use lattice_wire::lrp;
use nix::sys::socket::{setsockopt, sockopt};
use quinn::{
    AckFrequencyConfig, IdleTimeout, TransportConfig, VarInt,
    congestion::{Controller, ControllerFactory},
};

/// A connection on which nothing was heard for so long is over.
pub(crate) const IDLE: Duration = Duration::from_secs(30);
/// Bytes on their way to the other end that it has not acknowledged: 1 Gbit/s over 32 ms.
const WINDOW: u64 = 4 << 20;
/// A full-size packet with everything around it has 1,398 bytes, over IPv6.
const INITIAL_MTU: u16 = 1400;
/// Of the control stream, in bytes: what the other end may send before we have read it.
const CONTROL_WINDOW: u32 = 64 << 10;
/// Acknowledgements are asked for this seldom, in packets, and at the latest after [`ACK_DELAY`].
const ACK_EVERY: u32 = 31;
const ACK_DELAY: Duration = Duration::from_millis(5);
/// Kernel buffers of a UDP socket, in bytes.
const SOCKET_BUFFER: usize = 7 << 20;

/// QUIC's settings; `queue` is how many bytes of datagrams wait, at most, in each direction.
pub(crate) fn config(queue: usize) -> TransportConfig {
    let mut config = TransportConfig::default();
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(ACK_EVERY)).max_ack_delay(Some(ACK_DELAY));
    config
        .initial_mtu(INITIAL_MTU)
        .initial_rtt(Duration::from_millis(100))
        .max_idle_timeout(IdleTimeout::try_from(IDLE).ok())
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(CONTROL_WINDOW))
        .receive_window(VarInt::from_u32(CONTROL_WINDOW))
        .send_window(u64::from(CONTROL_WINDOW))
        .datagram_receive_buffer_size(Some(queue))
        .datagram_send_buffer_size(queue)
        .ack_frequency_config(Some(acks))
        .allow_spin(false)
        .congestion_controller_factory(Arc::new(FixedWindow));
    config
}

/// A congestion window that stays as it is. What is inside is WireGuard, and inside of that TCP controls congestion: a second
/// control around it would only add its delay to the loss that the first one must see anyway.
#[derive(Debug, Clone, Copy)]
struct FixedWindow;

impl ControllerFactory for FixedWindow {
    fn build(self: Arc<Self>, _now: Instant, _current_mtu: u16) -> Box<dyn Controller> {
        Box::new(*self)
    }
}

impl Controller for FixedWindow {
    fn on_congestion_event(&mut self, _: Instant, _: Instant, _: bool, _: u64) {}

    fn on_mtu_update(&mut self, _: u16) {}

    fn window(&self) -> u64 {
        WINDOW
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(*self)
    }

    fn initial_window(&self) -> u64 {
        WINDOW
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// The longest datagram that `connection` carries at present, in bytes. It begins at [`lrp::FULL_SIZE`] or more, and becomes less when so
/// much is lost that QUIC takes the path for one that became narrow.
pub fn fits(connection: &quinn::Connection) -> u16 {
    let body = connection.max_datagram_size().unwrap_or_default();
    u16::try_from(body.saturating_sub(lrp::HANDLE)).unwrap_or(u16::MAX)
}

/// A UDP socket with buffers as large as the kernel permits, up to 7 MiB: the usual 208 KiB hold 2 ms of 1 Gbit/s.
///
/// # Errors
/// When the address cannot be bound.
pub fn sized_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    // Beyond the limits of the host only with CAP_NET_ADMIN; up to them otherwise.
    if setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BUFFER)?;
    }
    if setsockopt(&socket, sockopt::SndBufForce, &SOCKET_BUFFER).is_err() {
        setsockopt(&socket, sockopt::SndBuf, &SOCKET_BUFFER)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}
