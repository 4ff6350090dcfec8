//! LRP frames out of a byte stream.

use std::io;

use bytes::{Bytes, BytesMut};
use lattice_wire::lrp::{self, InvalidFrame};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Read at once, in bytes.
const CHUNK: usize = 32 << 10;

/// Reads whole frames; holds at most one chunk.
#[derive(Debug)]
pub struct Frames<R> {
    reader: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    /// Reads from `reader`.
    pub fn new(reader: R) -> Self {
        Self { reader, buffer: BytesMut::new() }
    }

    /// The next frame with its length; `None` at the end of the stream. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// When reading fails, when what is read is no frame, and at an end in the middle of one.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(Some(frame));
            }
            self.buffer.reserve(CHUNK);
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    /// The next frame if it is there already.
    ///
    /// # Errors
    /// When what is there is no frame.
    pub fn buffered(&mut self) -> io::Result<Option<Bytes>> {
        let invalid = |error: InvalidFrame| io::Error::new(io::ErrorKind::InvalidData, error);
        match lrp::frame_len(&self.buffer).map_err(invalid)? {
            Some(length) if self.buffer.len() >= length => Ok(Some(self.buffer.split_to(length).freeze())),
            _ => Ok(None),
        }
    }
}

/// The body of a data frame, without a copy; `None` when it is control.
pub fn data(frame: &Bytes) -> Option<Bytes> {
    (frame.len() >= lrp::HEADER + lrp::HANDLE && frame[2] == lrp::DATA).then(|| frame.slice(lrp::HEADER..))
}
