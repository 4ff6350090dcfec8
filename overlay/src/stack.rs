//! The device of pod mode: WireGuard below, a TCP/IP stack in this process above; of the kernel's network it has UDP sockets only, and it
//! takes no privilege.
//!
//! One thread and no locks: the device, the stack and whoever uses its sockets are tasks of one runtime. What is allowed to leave or to come in is
//! judged packet by packet, as in every device that has a filter.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use lattice_filter::Decision;
use lattice_netstack::Limits;
use lattice_wire::WgPrivateKey;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{Device, DeviceError, Netns, PathsConfig};

/// What a device with a stack is made from.
#[derive(Debug)]
pub struct StackConfig {
    /// Its name, for errors and the log.
    pub name: String,
    /// This peer's key.
    pub private_key: WgPrivateKey,
    /// The UDP port in `underlay`; 0 takes any, and so does a port that is taken.
    pub listen_port: u16,
    /// The longest inner packet in bytes.
    pub mtu: u16,
    /// The namespace the encrypted packets leave by; without a privilege, it must be the caller's.
    pub underlay: Arc<Netns>,
    /// The stack's addresses: the only ones it sends from, and the only ones that others reach.
    pub addresses: Vec<IpAddr>,
    /// Has the device find paths itself.
    pub paths: Option<PathsConfig>,
    /// What the stack may take.
    pub limits: Limits,
}

/// Makes a device with a stack. `serve` is called on the device's thread, inside a [`LocalSet`](tokio::task::LocalSet): its future may spawn local
/// tasks, and all of them end with the device. When its future ends, the device goes on.
///
/// The device has a filter ([`Device::filter`]), which lets nothing pass until it is given a policy.
///
/// # Errors
/// When there is no socket, descriptor or thread left, or an address or the MTU is of no use.
pub fn create_stack<S, F>(config: StackConfig, serve: S) -> Result<Box<dyn Device>, DeviceError>
where
    S: FnOnce(Network) -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let _ = (config, serve);
    todo!()
}

/// The stack's sockets. Cheap to clone; of the device's thread only.
#[derive(Debug, Clone)]
pub struct Network;

/// What carries data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The policy denies it; the verdict is on record.
    #[error("the policy does not permit it")]
    Denied(Denied),
    /// No peer has that address.
    #[error("no peer has that address")]
    NoPeer,
    /// The peer refused it.
    #[error("the peer refused the connection")]
    Refused,
    /// The peer, or somebody on the way, said that it cannot be reached.
    #[error("the peer cannot be reached")]
    Unreachable,
    /// No answer came.
    #[error("the peer did not answer")]
    TimedOut,
    /// As many connections or sockets as may be.
    #[error("too many connections")]
    Busy,
    /// The device has ended.
    #[error("the device has ended")]
    Stopped,
}

/// A verdict: what denied, by which policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied {
    /// Reason and rule.
    pub decision: Decision,
    /// The generation of the policy that the rule is of.
    pub generation: u32,
}

impl Network {
    /// Whether some peer has `address`: otherwise nothing that is sent there goes anywhere.
    pub fn leads_to_peer(&self, address: IpAddr) -> bool {
        let _ = address;
        todo!()
    }

    /// Connects to `remote`. The policy is asked first, so that a denial is told at once; it is on record then. Dropping the future gives up.
    ///
    /// # Errors
    /// Why not.
    pub async fn connect(&self, remote: SocketAddr) -> Result<TcpStream, ConnectError> {
        let _ = remote;
        todo!()
    }

    /// Takes connections to `port` of all addresses, as the policy lets them in. Others are answered with a reset.
    pub fn listen(&self, port: u16) -> TcpListener {
        let _ = port;
        todo!()
    }

    /// A UDP socket on `port` of all addresses; 0 takes a free one.
    ///
    /// # Errors
    /// [`ConnectError::Busy`] when the port is taken or there are too many sockets.
    pub fn bind_udp(&self, port: u16) -> Result<UdpSocket, ConnectError> {
        let _ = port;
        todo!()
    }

    /// Judges a flow that is *not* to go by this device but by a socket of the host, as if it began here: counted and on record as any other.
    /// As long as the returned admission lives, the flow is judged anew whenever the policy changes.
    ///
    /// # Errors
    /// The verdict.
    pub fn admit(&self, transport: Transport, remote: SocketAddr) -> Result<Admission, Denied> {
        let _ = (transport, remote);
        todo!()
    }
}

/// A flow that the policy permits, though it does not go by the device.
#[derive(Debug)]
pub struct Admission;

impl Admission {
    /// Waits until the policy permits it no more.
    pub async fn revoked(&self) {
        todo!()
    }
}

/// A TCP connection. Dropping it closes it: what was written is still sent.
#[derive(Debug)]
pub struct TcpStream;

impl TcpStream {
    /// The other end.
    pub fn remote(&self) -> SocketAddr {
        todo!()
    }

    /// Our end.
    pub fn local(&self) -> SocketAddr {
        todo!()
    }

    /// Makes the drop that follows a reset.
    pub fn reset(&mut self) {
        todo!()
    }

    /// Sends also what does not fill a packet at once (no Nagle).
    pub fn set_no_delay(&self, no_delay: bool) {
        let _ = no_delay;
        todo!()
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        todo!()
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        todo!()
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        todo!()
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        todo!()
    }
}

/// Takes connections to one port. Dropping it stops that.
#[derive(Debug)]
pub struct TcpListener;

impl TcpListener {
    /// The next peer that asks for a connection. It is not answered before [`Request::accept`].
    pub async fn request(&mut self) -> Request {
        todo!()
    }
}

/// A peer that asks for a connection and waits. Dropping it refuses with a reset.
#[derive(Debug)]
pub struct Request;

impl Request {
    /// Who asks.
    pub fn remote(&self) -> SocketAddr {
        todo!()
    }

    /// Makes the connection.
    ///
    /// # Errors
    /// When the peer has given up, or there are too many connections.
    pub async fn accept(self) -> Result<TcpStream, ConnectError> {
        todo!()
    }
}

/// A UDP socket. Dropping it closes it.
#[derive(Debug)]
pub struct UdpSocket;

impl UdpSocket {
    /// Sends one datagram, if the policy permits. Never waits: what finds no room is dropped and counted, as on a wire.
    ///
    /// # Errors
    /// The verdict, or that no peer has the address, or that it is too long ([`ConnectError::Unreachable`]).
    pub fn send_to(&self, payload: &[u8], remote: SocketAddr) -> Result<(), ConnectError> {
        let _ = (payload, remote);
        todo!()
    }

    /// The next datagram and who sent it; what does not fit into `buffer` is cut off. One task at a time waits here.
    ///
    /// # Errors
    /// When the device has ended.
    pub fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<SocketAddr>> {
        let _ = (cx, buffer);
        todo!()
    }
}
