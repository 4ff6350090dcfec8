//! The Noise handshake and the sessions of WireGuard, by `gotatun`: the one place that names that crate, so that another
//! can take its place.
//!
//! `gotatun` reads the monotonic clock itself, in its timers' tick and when a handshake is answered. It copies a packet
//! once to encrypt it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use gotatun::{
    noise::{
        Tunn, TunnResult, errors::WireGuardError, handshake::parse_handshake_anon, index_table::IndexTable,
        rate_limiter::RateLimiter,
    },
    packet::{Packet, WgKind},
    tun::MtuWatcher,
    x25519::{PublicKey, StaticSecret},
};
use lattice_wire::{WgPrivateKey, WgPublicKey};

use crate::{Output, Path};

/// Handshake messages in a second from one address from which on it must prove that address with a cookie.
const COOKIES_FROM_PER_ADDRESS: u64 = 64;

/// Stands for the address of whoever comes by a relay.
const RELAYED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// This device's key, and what all its sessions share.
pub(crate) struct Identity {
    private_key: StaticSecret,
    public_key: PublicKey,
    indices: IndexTable,
    limiter: Arc<RateLimiter>,
    /// Asks every address for a cookie.
    strict: RateLimiter,
}

/// Whom a datagram is for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Addressee {
    /// The peer with this key: an initiation.
    Key(WgPublicKey),
    /// The session or handshake with this index of ours.
    Index(u32),
}

/// A datagram at the door.
pub(crate) enum Received {
    /// No WireGuard message.
    Malformed,
    /// Its MAC is wrong, or it was not encrypted to our key.
    Refused,
    /// To send back: a cookie.
    Answer(Sealed),
    /// Not yet authenticated.
    For(Addressee, Message),
}

/// A received WireGuard message.
pub(crate) struct Message {
    kind: WgKind,
    len: usize,
}

/// A WireGuard message to send.
pub(crate) struct Sealed {
    bytes: Packet,
    local_index: Option<u32>,
    is_initiation: bool,
}

/// A decrypted packet.
pub(crate) struct Plain(Packet);

/// What a message turned out to be.
pub(crate) enum Opened {
    /// Not authentic, a replay, or for no session.
    Refused,
    /// Authentic or not, it calls for nothing; it says nothing about where the peer is.
    Nothing,
    /// Authentic, and to be answered.
    Answer(Sealed),
    /// Authentic; empty when it was a keepalive.
    Packet(Plain),
}

/// Whether a datagram claims to be one of the messages that cost a Diffie-Hellman to check.
pub(crate) fn is_handshake(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(1 | 2))
}

impl Identity {
    pub(crate) fn new(private_key: &WgPrivateKey) -> Self {
        let private_key = StaticSecret::from(*private_key.expose());
        let public_key = PublicKey::from(&private_key);
        Self {
            indices: IndexTable::from_os_rng(),
            limiter: Arc::new(RateLimiter::new(&public_key, COOKIES_FROM_PER_ADDRESS)),
            strict: RateLimiter::new(&public_key, 0),
            private_key,
            public_key,
        }
    }

    /// Parses a datagram and checks its MAC. `strict` asks for a cookie, whoever it is from.
    pub(crate) fn receive(&self, from: Path, datagram: &[u8], strict: bool) -> Received {
        let limiter = if strict { &self.strict } else { &*self.limiter };
        let message =
            match limiter.verify_packet(from.remote().unwrap_or(RELAYED), Packet::copy_from(datagram)) {
                Ok(message) => message,
                Err(TunnResult::WriteToNetwork(cookie)) => return Received::Answer(cookie.into()),
                Err(TunnResult::Err(WireGuardError::InvalidPacket)) => return Received::Malformed,
                Err(_) => return Received::Refused,
            };
        let addressee = match &message {
            WgKind::HandshakeInit(initiation) => {
                match parse_handshake_anon(&self.private_key, &self.public_key, initiation) {
                    Ok(half) => Addressee::Key(WgPublicKey(half.peer_static_public)),
                    Err(_) => return Received::Refused,
                }
            }
            WgKind::HandshakeResp(response) => Addressee::Index(response.receiver_idx.get()),
            WgKind::CookieReply(cookie) => Addressee::Index(cookie.receiver_idx.get()),
            WgKind::Data(data) => Addressee::Index(data.header.receiver_idx.get()),
        };
        Received::For(addressee, Message { kind: message, len: datagram.len() })
    }

    /// Lets the counts per address start anew each second.
    pub(crate) fn handle_tick(&self) {
        self.limiter.try_reset_count();
        self.strict.try_reset_count();
    }

    /// Whether an index of ours still belongs to a session or handshake.
    pub(crate) fn in_use(&self, index: u32) -> bool {
        self.indices.in_use(index)
    }
}

/// The handshake and sessions with one peer.
pub(crate) struct Tunnel(Tunn);

impl Tunnel {
    /// `None` when the key is of low order: anybody could pose as its owner.
    pub(crate) fn new(identity: &Identity, peer: WgPublicKey, keepalive: Option<u16>) -> Option<Self> {
        let peer = PublicKey::from(peer.0);
        if !identity.private_key.diffie_hellman(&peer).was_contributory() {
            return None;
        }
        Some(Self(Tunn::new(
            identity.private_key.clone(),
            peer,
            None,
            keepalive,
            identity.indices.clone(),
            Arc::clone(&identity.limiter),
        )))
    }

    pub(crate) fn set_keepalive(&mut self, seconds: Option<u16>) {
        if self.0.persistent_keepalive() != seconds.filter(|seconds| *seconds > 0) {
            self.0.set_persistent_keepalive(seconds);
        }
    }

    /// Authenticates and decrypts a message.
    pub(crate) fn open(&mut self, message: Message) -> Opened {
        match self.0.handle_incoming_packet(message.kind) {
            TunnResult::Done => Opened::Nothing,
            TunnResult::Err(_) => Opened::Refused,
            TunnResult::WriteToNetwork(answer) => Opened::Answer(answer.into()),
            TunnResult::WriteToTunnel(packet) => Opened::Packet(Plain(packet)),
        }
    }

    /// Encrypts a packet, padded as far as `mtu` allows. Without a session it is queued, and what there is to send is
    /// the initiation of one, unless one is under way.
    pub(crate) fn seal(&mut self, packet: &[u8], mtu: u16) -> Option<Sealed> {
        let mut mtu = MtuWatcher::new(mtu);
        self.0.handle_outgoing_packet(Packet::copy_from(packet), Some(&mut mtu)).map(Sealed::from)
    }

    /// The next packet that waited for a session. Call it once there is one.
    pub(crate) fn next_queued(&mut self, mtu: u16) -> Option<Sealed> {
        let mut mtu = MtuWatcher::new(mtu);
        self.0.get_queued_packets(&mut mtu).next().map(Sealed::from)
    }

    /// What time asks to be sent.
    pub(crate) fn tick(&mut self) -> Option<Sealed> {
        match self.0.update_timers() {
            Ok(due) => due.map(Sealed::from),
            // Sessions and attempts are given up; a peer to be kept alive is tried for ever.
            Err(WireGuardError::ConnectionExpired) if self.0.persistent_keepalive().is_some() => {
                self.0.reset();
                self.0.update_timers().ok().flatten().map(Sealed::from)
            }
            Err(_) => None,
        }
    }

    /// Starts a handshake, over again if one is under way.
    pub(crate) fn initiate(&mut self) -> Option<Sealed> {
        self.0.format_handshake_initiation(true).map(|initiation| WgKind::from(initiation).into())
    }

    /// Whether a session lives.
    pub(crate) fn has_session(&self) -> bool {
        self.0.time_since_last_handshake().is_some()
    }
}

impl Message {
    /// The datagram's length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len as u64
    }

    /// A handshake response: once it opens, the session stands.
    pub(crate) fn is_response(&self) -> bool {
        matches!(self.kind, WgKind::HandshakeResp(_))
    }

    /// The first message of a handshake.
    pub(crate) fn is_initiation(&self) -> bool {
        matches!(self.kind, WgKind::HandshakeInit(_))
    }
}

impl Sealed {
    pub(crate) fn transmit(&self, to: Path, out: &mut impl Output) {
        let bytes = self.as_bytes();
        out.transmit(to, bytes.len(), |room| room.copy_from_slice(bytes));
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    /// The index we chose, where the message tells the peer of one.
    pub(crate) fn local_index(&self) -> Option<u32> {
        self.local_index
    }

    /// The first message of a handshake.
    pub(crate) fn is_initiation(&self) -> bool {
        self.is_initiation
    }
}

impl From<WgKind> for Sealed {
    fn from(message: WgKind) -> Self {
        let local_index = match &message {
            WgKind::HandshakeInit(initiation) => Some(initiation.sender_idx.get()),
            WgKind::HandshakeResp(response) => Some(response.sender_idx.get()),
            WgKind::CookieReply(_) | WgKind::Data(_) => None,
        };
        let is_initiation = matches!(message, WgKind::HandshakeInit(_));
        Self { bytes: message.into(), local_index, is_initiation }
    }
}

impl Plain {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_ref()
    }
}
