//! The handle of the packet thread's owner.

use std::{
    fmt, io,
    os::fd::BorrowedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lattice_relay::{Fingerprint, InvalidFingerprint};
use lattice_wire::{RelayServer, WgPublicKey, lrp::Reason};
use lattice_wireguard::RelayNumber;
use nkeys::KeyPair;
use tokio::{runtime::Handle, sync::watch, task::AbortHandle};

use super::{inbox::Inbox, outbox::Outbox, run::run};
use crate::netns::Netns;

/// What a client needs.
pub struct RelayClientConfig {
    /// The relay.
    pub server: RelayServer,
    /// Its number in the device.
    pub number: RelayNumber,
    /// The nkey that the tokens name.
    pub key: Arc<KeyPair>,
    /// The relay token, if there is one yet.
    pub token: Option<String>,
    /// Where the connection's sockets live.
    pub underlay: Arc<Netns>,
}

/// Why a client does not start.
#[derive(Debug, thiserror::Error)]
pub enum RelayClientError {
    /// The control plane says something else than a fingerprint.
    #[error("relay {name:?}: {source}")]
    Fingerprint {
        /// Which relay.
        name: String,
        /// What is wrong.
        source: InvalidFingerprint,
    },
    /// There is neither `quic` nor `tcp`.
    #[error("relay {0:?} has no address")]
    Address(String),
    /// There is no event descriptor left.
    #[error("cannot make an event descriptor: {0}")]
    Bell(#[from] io::Error),
}

/// How a relay is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// LRP over QUIC.
    Quic,
    /// LRP over TLS on TCP.
    Tcp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        })
    }
}

/// How it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayState {
    /// Not connected; it is tried again after a while.
    Down(Why),
    /// Being connected.
    Connecting,
    /// Connected.
    Up {
        /// How.
        transport: Transport,
        /// The last round trip to the relay and back.
        rtt: Duration,
    },
}

/// Why a relay is not connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// No token has come yet.
    NoToken,
    /// Somebody else than the relay answers there, or the relay has got another key.
    Fingerprint,
    /// The relay says so.
    Refused(Reason),
    /// In words.
    Failed(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToken => f.write_str("no relay token yet"),
            Self::Fingerprint => {
                f.write_str("its certificate has another fingerprint than the control plane says")
            }
            Self::Refused(reason) => write!(f, "{reason}"),
            Self::Failed(text) => f.write_str(text),
        }
    }
}

/// Datagrams that were not passed on by this end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RelayDrops {
    /// To the relay: no room, no connection, the peer is not there, or the path was too narrow.
    pub sent: u64,
    /// From the relay: the packet thread did not take them soon enough.
    pub received: u64,
    /// From the relay, by a handle that means nobody.
    pub unknown: u64,
}

/// What the task and the handle share.
pub(super) struct Shared {
    pub(super) server: RelayServer,
    pub(super) fingerprint: Fingerprint,
    pub(super) key: Arc<KeyPair>,
    pub(super) underlay: Arc<Netns>,
    pub(super) outbox: Outbox,
    pub(super) inbox: Inbox,
    pub(super) unknown: AtomicU64,
    state: Mutex<RelayState>,
}

impl Shared {
    pub(super) fn set(&self, state: RelayState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        self.inbox.ring();
    }
}

/// A connection to one relay that is made anew whenever it ends. Ends when it is dropped.
pub struct RelayClient {
    number: RelayNumber,
    shared: Arc<Shared>,
    token: watch::Sender<Option<String>>,
    task: AbortHandle,
}

impl RelayClient {
    /// Begins to connect, in a task of `runtime`.
    ///
    /// # Errors
    /// See [`RelayClientError`].
    pub fn start(config: RelayClientConfig, runtime: &Handle) -> Result<Self, RelayClientError> {
        let server = config.server;
        let fingerprint = server
            .fingerprint
            .parse()
            .map_err(|source| RelayClientError::Fingerprint { name: server.name.clone(), source })?;
        if server.quic.is_none() && server.tcp.is_none() {
            return Err(RelayClientError::Address(server.name));
        }
        let shared = Arc::new(Shared {
            server,
            fingerprint,
            key: config.key,
            underlay: config.underlay,
            outbox: Outbox::default(),
            inbox: Inbox::new()?,
            unknown: AtomicU64::new(0),
            state: Mutex::new(RelayState::Connecting),
        });
        let token = watch::Sender::new(config.token);
        let task = runtime.spawn(run(Arc::clone(&shared), token.subscribe())).abort_handle();
        Ok(Self { number: config.number, shared, token, task })
    }

    /// The relay's number in the device.
    pub fn number(&self) -> RelayNumber {
        self.number
    }

    /// Sends `peer` a datagram of `len` bytes that `write` fills in. Never waits; `false` when it was dropped (and counted), in
    /// which case `write` was not called. Takes no more than [`lattice_wire::lrp::MAX_DATAGRAM`] bytes.
    pub fn send(&self, peer: &WgPublicKey, len: usize, write: impl FnOnce(&mut [u8])) -> bool {
        self.shared.outbox.push(*peer, len, write)
    }

    /// Copies the oldest datagram that has come into `buffer`, and says from whom and how long it is. One that does not fit is
    /// dropped and counted. Never waits: `None` when nothing is there, and only that silences the bell.
    pub fn receive(&self, buffer: &mut [u8]) -> Option<(WgPublicKey, usize)> {
        self.shared.inbox.pop(buffer)
    }

    /// Readable while a datagram waits to be received, and when the state is another one.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.shared.inbox.bell()
    }

    /// How it stands.
    pub fn state(&self) -> RelayState {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was dropped since the start.
    pub fn drops(&self) -> RelayDrops {
        RelayDrops {
            sent: self.shared.outbox.dropped(),
            received: self.shared.inbox.dropped(),
            unknown: self.shared.unknown.load(Ordering::Relaxed),
        }
    }

    /// Uses another token from now on: of the same peer, with a later end.
    pub fn set_token(&self, token: String) {
        self.token.send_replace(Some(token));
    }
}

impl Drop for RelayClient {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for RelayClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayClient")
            .field("relay", &self.shared.server.name)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
