//! LRP, version 1: how peers that cannot reach each other exchange WireGuard datagrams by a relay.
//!
//! **Transport.** QUIC (RFC 9000, ALPN `lrp/1`) with one bidirectional stream for control and unreliable datagrams (RFC 9221) for
//! data; or TLS on TCP (the same ALPN) with both as frames of one stream. TLS 1.3 only. The relay's certificate is self-signed: the
//! SHA-256 of its DER is all that proves it.
//!
//! **Frames**, on the control stream and on TCP: `length: u16` of what follows, `type: u8`, body. Numbers are big-endian.
//!
//! | type | from | body | means |
//! |---|---|---|---|
//! | 1 hello | client | relay token, as text | who the client says it is ([`crate::relay_token`]) |
//! | 2 challenge | relay | 32 random bytes | prove it |
//! | 3 proof | client | 64 bytes | nkey's signature over [`proof_bytes`] |
//! | 4 welcome | relay | – | registered; only now is anything else accepted |
//! | 5 ask | client | key, 32 bytes | a route to that peer, now and whenever it is there again |
//! | 6 forget | client | key | no more |
//! | 7 route | relay | handle: u32, key | the peer is there, by this handle |
//! | 8 gone | relay | handle: u32 | the peer has left; the handle means nothing any more |
//! | 9 absent | relay | key | answers ask: not there; a route follows when it comes |
//! | 10 renew | client | relay token | of the same peer, to stay longer |
//! | 11 too large | relay | length: u16 | a datagram did not fit the client's QUIC path, which carries such of this length at present |
//! | 12 closing | relay | reason: u8 | the relay ends the connection |
//! | 16 data | both | handle: u32, datagram | TCP only; a QUIC datagram is this body alone |
//!
//! **Handshake.** hello → challenge → proof → welcome, within [`HANDSHAKE`]. The proof covers a value exported from this TLS
//! connection (RFC 8446 section 7.5), so it is worth nothing on another one: a relay cannot pass it on to register elsewhere as its client.
//!
//! **Routes.** A peer's address is its WireGuard key within its workspace. A handle names a *pair* of connected clients and means to
//! each of them the other one, so a datagram is passed on as it came: the sender cannot be chosen, because only the two hold the handle.
//! Handles are never used twice while the relay runs. Handle 0 is the relay: what is sent to it comes back, which measures the
//! round trip and proves that a packet of that size passes both ways. A datagram with any other unknown handle is dropped.
//!
//! A second connection of the same peer replaces the first.
//!
//! **What a relay can do:** see who exchanges how many bytes with whom and when; drop, delay, repeat, reorder. WireGuard protects what
//! is inside from everything else.

use crate::WgPublicKey;

/// TLS application protocol (RFC 7301).
pub const ALPN: &[u8] = b"lrp/1";
/// UDP port of LRP over QUIC.
pub const QUIC_PORT: u16 = 6267;
/// TCP port of LRP over TLS.
pub const TCP_PORT: u16 = 6266;
/// How long a handshake may take, TLS included.
pub const HANDSHAKE: std::time::Duration = std::time::Duration::from_secs(5);

/// Longest datagram, in bytes: what an Ethernet can carry.
pub const MAX_DATAGRAM: usize = 1500;
/// Bytes of a handle.
pub const HANDLE: usize = 4;
/// The handle that returns what is sent to it.
pub const ECHO: u32 = 0;
/// The datagram that must pass for a QUIC connection to be of use: a WireGuard packet with an inner MTU of 1280.
pub const FULL_SIZE: usize = 1312;
/// Bytes before a frame's body.
pub const HEADER: usize = 3;
/// Longest type and body, in bytes.
const MAX_FRAME: usize = 1 + HANDLE + MAX_DATAGRAM;

/// Label under which both ends export the value that binds the proof to the connection.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-Lattice-LRP-1";
/// No other Lattice signature is over bytes that begin so.
const PROOF_LABEL: &[u8] = b"lattice-lrp-proof-v1\0";

/// The relay's challenge.
pub type Challenge = [u8; 32];
/// What TLS exports.
pub type Exported = [u8; 32];

/// What the client signs.
pub fn proof_bytes(challenge: &Challenge, exported: &Exported) -> Vec<u8> {
    [PROOF_LABEL, challenge, exported].concat()
}

/// Why the relay ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The relay ends or restarts: try another, or again soon.
    Draining,
    /// A newer connection of the same peer has taken the place.
    Replaced,
    /// The token is malformed, not signed by whom the relay trusts, or of another peer.
    Token,
    /// The token's time is over.
    Expired,
    /// The proof is not the token's holder's.
    Proof,
    /// There is no place.
    Full,
    /// The client breaks the protocol, or does not read what it is told.
    Protocol,
}

const REASONS: [(Reason, u8, &str); 7] = [
    (Reason::Draining, 1, "the relay is ending"),
    (Reason::Replaced, 2, "a newer connection of this peer took its place"),
    (Reason::Token, 3, "the relay does not accept the token"),
    (Reason::Expired, 4, "the relay token has expired"),
    (Reason::Proof, 5, "the proof of the nkey is wrong"),
    (Reason::Full, 6, "the relay is full"),
    (Reason::Protocol, 7, "protocol error"),
];

impl Reason {
    /// Its number on the wire; also the QUIC application error code.
    pub fn code(self) -> u8 {
        REASONS.iter().find(|(reason, ..)| *reason == self).map_or(0, |(_, code, _)| *code)
    }

    /// The reason with this number.
    pub fn from_code(code: u64) -> Option<Self> {
        REASONS.iter().find(|(_, number, _)| u64::from(*number) == code).map(|(reason, ..)| *reason)
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(REASONS.iter().find(|(reason, ..)| reason == self).map_or("", |(.., text)| text))
    }
}

/// A frame, from either end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<'a> {
    /// See the module's table, for each.
    Hello(&'a str),
    /// The relay's nonce.
    Challenge(Challenge),
    /// An Ed25519 signature.
    Proof([u8; 64]),
    /// Registered.
    Welcome,
    /// A route to a peer is wanted.
    Ask(WgPublicKey),
    /// It is wanted no more.
    Forget(WgPublicKey),
    /// A peer is there.
    Route(u32, WgPublicKey),
    /// It has left.
    Gone(u32),
    /// It is not there.
    Absent(WgPublicKey),
    /// A newer token.
    Renew(&'a str),
    /// A datagram did not fit; the longest that would, in bytes. Less than [`FULL_SIZE`]: the path seems to have become narrower.
    TooLarge(u16),
    /// The connection ends.
    Closing(Reason),
    /// A handle and a datagram: at least [`HANDLE`] bytes.
    Data(&'a [u8]),
}

const HELLO: u8 = 1;
const CHALLENGE: u8 = 2;
const PROOF: u8 = 3;
const WELCOME: u8 = 4;
const ASK: u8 = 5;
const FORGET: u8 = 6;
const ROUTE: u8 = 7;
const GONE: u8 = 8;
const ABSENT: u8 = 9;
const RENEW: u8 = 10;
const TOO_LARGE: u8 = 11;
const CLOSING: u8 = 12;
/// The type of [`Frame::Data`]: readers of a stream tell it from control without parsing.
pub const DATA: u8 = 16;

/// The bytes are no frame. The connection cannot go on: where the next frame begins is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an LRP frame")]
pub struct InvalidFrame;

/// How many bytes the frame at the beginning of `buffer` has, its length included; `None` while its length is not there yet.
///
/// # Errors
/// When no frame can be as long, or as short.
pub fn frame_len(buffer: &[u8]) -> Result<Option<usize>, InvalidFrame> {
    let Some(length) = buffer.first_chunk::<2>() else { return Ok(None) };
    match usize::from(u16::from_be_bytes(*length)) {
        length @ 1..=MAX_FRAME => Ok(Some(2 + length)),
        _ => Err(InvalidFrame),
    }
}

/// The handle at the beginning of a data body, and the datagram.
pub fn split_data(body: &[u8]) -> Option<(u32, &[u8])> {
    let (handle, datagram) = body.split_first_chunk::<HANDLE>()?;
    (datagram.len() <= MAX_DATAGRAM).then_some((u32::from_be_bytes(*handle), datagram))
}

impl<'a> Frame<'a> {
    /// Reads a whole frame, its length included.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(frame: &'a [u8]) -> Result<Self, InvalidFrame> {
        if frame_len(frame)? != Some(frame.len()) {
            return Err(InvalidFrame);
        }
        let (kind, body) = (frame[2], &frame[HEADER..]);
        let text = || std::str::from_utf8(body).map_err(|_| InvalidFrame);
        let key = |bytes: &[u8]| bytes.try_into().map(WgPublicKey).map_err(|_| InvalidFrame);
        let empty = |frame| if body.is_empty() { Ok(frame) } else { Err(InvalidFrame) };
        match kind {
            HELLO => text().map(Self::Hello),
            CHALLENGE => body.try_into().map(Self::Challenge).map_err(|_| InvalidFrame),
            PROOF => body.try_into().map(Self::Proof).map_err(|_| InvalidFrame),
            WELCOME => empty(Self::Welcome),
            ASK => key(body).map(Self::Ask),
            FORGET => key(body).map(Self::Forget),
            ROUTE => {
                let (handle, rest) = body.split_first_chunk().ok_or(InvalidFrame)?;
                Ok(Self::Route(u32::from_be_bytes(*handle), key(rest)?))
            }
            GONE => {
                body.try_into().map(|body| Self::Gone(u32::from_be_bytes(body))).map_err(|_| InvalidFrame)
            }
            ABSENT => key(body).map(Self::Absent),
            RENEW => text().map(Self::Renew),
            TOO_LARGE => {
                body.try_into().map(|fits| Self::TooLarge(u16::from_be_bytes(fits))).map_err(|_| InvalidFrame)
            }
            CLOSING => match body {
                [code] => Reason::from_code((*code).into()).map(Self::Closing).ok_or(InvalidFrame),
                _ => Err(InvalidFrame),
            },
            DATA if body.len() >= HANDLE => Ok(Self::Data(body)),
            _ => Err(InvalidFrame),
        }
    }

    /// Writes the frame behind what is in `out`.
    ///
    /// # Panics
    /// When a token or a datagram is longer than any can be: its maker must see to that.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend([0, 0, self.kind()]);
        match self {
            Self::Hello(token) | Self::Renew(token) => out.extend(token.as_bytes()),
            Self::Challenge(nonce) => out.extend(nonce),
            Self::Proof(signature) => out.extend(signature),
            Self::Welcome => {}
            Self::Ask(key) | Self::Forget(key) | Self::Absent(key) => out.extend(key.0),
            Self::Route(handle, key) => {
                out.extend(handle.to_be_bytes());
                out.extend(key.0);
            }
            Self::Gone(handle) => out.extend(handle.to_be_bytes()),
            Self::TooLarge(fits) => out.extend(fits.to_be_bytes()),
            Self::Closing(reason) => out.push(reason.code()),
            Self::Data(body) => out.extend(*body),
        }
        let length = out.len() - start - 2;
        assert!(length <= MAX_FRAME, "a frame of {length} bytes");
        out[start..start + 2].copy_from_slice(&(length as u16).to_be_bytes());
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => HELLO,
            Self::Challenge(_) => CHALLENGE,
            Self::Proof(_) => PROOF,
            Self::Welcome => WELCOME,
            Self::Ask(_) => ASK,
            Self::Forget(_) => FORGET,
            Self::Route(..) => ROUTE,
            Self::Gone(_) => GONE,
            Self::Absent(_) => ABSENT,
            Self::Renew(_) => RENEW,
            Self::TooLarge(_) => TOO_LARGE,
            Self::Closing(_) => CLOSING,
            Self::Data(_) => DATA,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_frame_is_read_as_it_was_written() {
        let key = WgPublicKey([7; 32]);
        let mut frames = vec![
            Frame::Hello("lr-a.b"),
            Frame::Challenge([1; 32]),
            Frame::Proof([2; 64]),
            Frame::Welcome,
            Frame::Ask(key),
            Frame::Forget(key),
            Frame::Route(0x0102_0304, key),
            Frame::Gone(5),
            Frame::Absent(key),
            Frame::Renew("lr-c.d"),
            Frame::TooLarge(1411),
            Frame::Data(&[0; HANDLE + MAX_DATAGRAM]),
        ];
        frames.extend(REASONS.map(|(reason, ..)| Frame::Closing(reason)));
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.write(&mut bytes));
        let mut rest = bytes.as_slice();
        for frame in &frames {
            let (one, after) = rest.split_at(frame_len(rest).unwrap().unwrap());
            assert_eq!(&Frame::parse(one).unwrap(), frame);
            rest = after;
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn a_length_that_no_frame_has_is_refused_at_once() {
        assert_eq!(frame_len(&[0]), Ok(None));
        assert_eq!(frame_len(&[0, 0]), Err(InvalidFrame));
        let longest = u16::try_from(MAX_FRAME).unwrap();
        assert_eq!(frame_len(&longest.to_be_bytes()), Ok(Some(2 + MAX_FRAME)));
        assert_eq!(frame_len(&(longest + 1).to_be_bytes()), Err(InvalidFrame));
    }

    #[test]
    fn a_proof_is_bound_to_challenge_and_connection() {
        assert_ne!(proof_bytes(&[0; 32], &[1; 32]), proof_bytes(&[1; 32], &[0; 32]));
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(kind in 0u8..20, body in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = (1 + body.len() as u16).to_be_bytes().to_vec();
            bytes.push(kind);
            bytes.extend(body);
            if let Ok(frame) = Frame::parse(&bytes) {
                let mut again = Vec::new();
                frame.write(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
