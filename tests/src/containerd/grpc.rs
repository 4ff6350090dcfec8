//! gRPC over a Unix socket, as much of it as CRI and containerd's events take: one connection per call, no codegen.
//!
//! A message is a flag byte (0: not compressed), its length in four bytes, and protobuf; the status comes in the trailers:
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::{RecvStream, client};
use http::{HeaderMap, Request};
use prost::Message;
use tokio::{net::UnixStream, time::timeout};

/// What a server may send in one message.
const LARGEST: usize = 64 << 20;

/// Why a call failed.
#[derive(Debug, Clone)]
pub struct Status {
    /// gRPC's code, such as 5 for "not found"; -1 when no answer came.
    pub code: i32,
    /// What the server said.
    pub message: String,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "code {}: {}", self.code, self.message)
    }
}

impl std::error::Error for Status {}

impl From<io::Error> for Status {
    fn from(error: io::Error) -> Self {
        Self { code: -1, message: error.to_string() }
    }
}

impl From<h2::Error> for Status {
    fn from(error: h2::Error) -> Self {
        Self { code: -1, message: error.to_string() }
    }
}

/// A server's socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Calls go to `socket`.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// One request, one answer. `method` is like `/runtime.v1.RuntimeService/Version`.
    ///
    /// # Errors
    /// What the server answered, or that it did not within `limit`.
    pub fn call<A: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
        limit: Duration,
    ) -> Result<A, Status> {
        let late = || Status { code: -1, message: format!("{method}: no answer within {limit:?}") };
        let call = async {
            let mut answers = self.open(method, request).await?;
            let answer = answers.next().await?;
            answers.end().await?;
            answer.ok_or_else(|| Status { code: -1, message: format!("{method}: an empty answer") })
        };
        runtime()?.block_on(async { timeout(limit, call).await }).unwrap_or_else(|_| Err(late()))
    }

    /// One request, many answers. To be called in a tokio runtime.
    ///
    /// # Errors
    /// When there is no server.
    pub(super) async fn open<A: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
    ) -> Result<Answers<A>, Status> {
        let stream = UnixStream::connect(&self.socket).await?;
        let (mut sender, connection) = client::handshake(stream).await?;
        tokio::spawn(connection);
        let head = Request::post(format!("http://localhost{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("containerd-namespace", super::daemon::NAMESPACE)
            .body(())
            .map_err(io::Error::other)?;
        let (response, mut body) = sender.send_request(head, false)?;
        body.send_data(frame(request), true)?;
        let response = response.await?;
        status(response.headers())?;
        Ok(Answers { body: response.into_body(), buffer: BytesMut::new(), kind: std::marker::PhantomData })
    }
}

/// A runtime of the calling thread.
pub(super) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn frame(message: &impl Message) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    frame.put_slice(&message.encode_to_vec());
    frame.freeze()
}

/// No status yet is none against it.
fn status(headers: &HeaderMap) -> Result<(), Status> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text("grpc-status") {
        "" | "0" => Ok(()),
        code => Err(Status {
            code: code.parse().unwrap_or(-1),
            message: text("grpc-message").replace("%0A", "\n"),
        }),
    }
}

/// The answers to one request, in order.
pub(super) struct Answers<A> {
    body: RecvStream,
    buffer: BytesMut,
    kind: std::marker::PhantomData<A>,
}

impl<A: Message + Default> Answers<A> {
    /// The next answer; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<A>, Status> {
        loop {
            if let Some(answer) = self.buffered()? {
                return Ok(Some(answer));
            }
            let Some(data) = self.body.data().await else {
                self.end().await?;
                return Ok(None);
            };
            let data = data?;
            self.body.flow_control().release_capacity(data.len())?;
            self.buffer.put_slice(&data);
        }
    }

    fn buffered(&mut self) -> Result<Option<A>, Status> {
        let Some(head) = self.buffer.get(..5) else { return Ok(None) };
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > LARGEST {
            return Err(io::Error::other(format!("an answer of {length} bytes")).into());
        }
        if self.buffer.len() < 5 + length {
            return Ok(None);
        }
        self.buffer.advance(5);
        A::decode(self.buffer.split_to(length)).map(Some).map_err(|error| io::Error::other(error).into())
    }

    async fn end(&mut self) -> Result<(), Status> {
        while let Some(data) = self.body.data().await {
            let length = data?.len();
            self.body.flow_control().release_capacity(length)?;
        }
        self.body.trailers().await?.map_or(Ok(()), |trailers| status(&trailers))
    }
}
