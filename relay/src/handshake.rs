//! The relay's side of the handshake: who is it, and does it hold the key that the token names.

use std::io;

use lattice_wire::{
    RelayClaims,
    lrp::{self, Challenge, Exported, Frame, Reason},
    relay_token::{self, InvalidRelayToken, TrustedKeys},
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use crate::frames::Frames;

/// Why nobody was admitted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// To be told to the client.
    #[error("{0}")]
    Because(Reason),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Hears hello and proof of one connection, from which `exported` comes. Takes no time limit of its own.
pub(crate) async fn admit(
    frames: &mut Frames<impl AsyncRead + Unpin>,
    writer: &mut (impl AsyncWrite + Unpin),
    exported: &Exported,
    trusted: &TrustedKeys,
    now: i64,
) -> Result<RelayClaims, Refused> {
    let hello = next(frames).await?;
    let Ok(Frame::Hello(token)) = Frame::parse(&hello) else {
        return Err(Refused::Because(Reason::Protocol));
    };
    let claims = check(token, trusted, now).map_err(Refused::Because)?;
    let mut challenge = Challenge::default();
    getrandom::fill(&mut challenge).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    Frame::Challenge(challenge).write(&mut bytes);
    writer.write_all(&bytes).await?;
    writer.flush().await?;
    let proof = next(frames).await?;
    let Ok(Frame::Proof(signature)) = Frame::parse(&proof) else {
        return Err(Refused::Because(Reason::Protocol));
    };
    if claims.is_signed_by_holder(&lrp::proof_bytes(&challenge, exported), &signature) {
        Ok(claims)
    } else {
        Err(Refused::Because(Reason::Proof))
    }
}

/// What a token says, or why it opens nothing.
pub(crate) fn check(token: &str, trusted: &TrustedKeys, now: i64) -> Result<RelayClaims, Reason> {
    relay_token::verify(token, trusted, now).map_err(|error| match error {
        InvalidRelayToken::Expired => Reason::Expired,
        InvalidRelayToken::Form | InvalidRelayToken::Signer => Reason::Token,
    })
}

async fn next(frames: &mut Frames<impl AsyncRead + Unpin>) -> Result<bytes::Bytes, Refused> {
    frames.next().await?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof).into())
}
