//! A connection that is relayed: by a device, or by a socket of this host.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use lattice_overlay::stack::{self, Admission};
use lattice_proxy::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Resolves when the policy permits a flow no more.
pub(crate) type Revoked = Pin<Box<dyn Future<Output = ()>>>;

/// For as long as `admission` holds, which it keeps.
pub(crate) fn revoked(admission: Admission) -> Revoked {
    Box::pin(async move { admission.revoked().await })
}

/// A TCP connection.
pub(crate) enum Connection {
    /// Of the overlay, or of the command in a network of its own: the device judges each of its packets.
    Device(stack::TcpStream),
    /// Nobody else looks whether the policy still permits it.
    Outside(TcpStream, Revoked),
}

impl Stream for Connection {
    fn reset(&mut self) {
        match self {
            Self::Device(stream) => stream.reset(),
            Self::Outside(stream, _) => Stream::reset(stream),
        }
    }

    fn poll_revoked(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match self {
            Self::Device(stream) => stream.poll_cut(cx),
            Self::Outside(_, revoked) => revoked
                .as_mut()
                .poll(cx)
                .map(|()| io::Error::new(io::ErrorKind::PermissionDenied, "the policy permits it no more")),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Device(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Outside(stream, _) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Device(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Outside(stream, _) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Device(stream) => Pin::new(stream).poll_flush(cx),
            Self::Outside(stream, _) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Device(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Outside(stream, _) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
