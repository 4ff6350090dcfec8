//! What a device's owner tells of the world beyond its socket, so that the device finds paths by itself: its own addresses, STUN
//! servers, relays, and what peers signal.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use ipnet::IpNet;
use lattice_wire::{RelayServer, Signal, WgPublicKey};
use lattice_wireguard::RelayNumber;
use nkeys::KeyPair;
use tokio::{runtime::Handle, sync::mpsc};

use super::{
    DeviceError,
    commands::{Command, Commands},
};
use crate::relay::{RelayDrops, RelayState};

/// Signals, each with the key of the peer that it is for.
pub type Signals = mpsc::Receiver<(WgPublicKey, Signal)>;

/// What path finding is made from.
#[derive(Clone)]
pub struct PathsConfig {
    /// The overlay's own addresses: no endpoint is among them.
    pub pool: Vec<IpNet>,
    /// The nkey that relay tokens name.
    pub relay_key: Arc<KeyPair>,
    /// What runs the connections to relays.
    pub runtime: Handle,
}

impl fmt::Debug for PathsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PathsConfig").field("pool", &self.pool).finish_non_exhaustive()
    }
}

/// The servers to use.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Servers {
    /// STUN servers, at most [`MAX_SERVERS`](lattice_wire::reach::MAX_SERVERS).
    pub stun: Vec<SocketAddr>,
    /// Relays, their places as addresses; as many at most. The name is what tells one from another.
    pub relays: Vec<RelayServer>,
    /// What proves to each relay who we are.
    pub token: Option<String>,
}

/// A relay, as the device sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayStatus {
    /// Its number in paths.
    pub number: RelayNumber,
    /// Its name.
    pub name: String,
    /// How it stands.
    pub state: RelayState,
    /// What was not passed on here.
    pub drops: RelayDrops,
}

/// The owner's handle of a device's path finding. Without any word from its owner, the device tries the endpoints that it is
/// given for each peer, and nothing else.
#[derive(Debug, Clone)]
pub struct PathFinder {
    pub(crate) commands: Commands,
    pub(crate) signals: Arc<Mutex<Option<Signals>>>,
}

impl PathFinder {
    /// The addresses of the underlay that packets can leave from. A change is a change of network: paths are looked for anew.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn set_local(&self, addresses: Vec<SocketAddr>) -> Result<(), DeviceError> {
        self.commands.tell(Command::SetLocal(addresses))
    }

    /// The servers. Connections to relays that stay, stay; they use the new token when they are made anew.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn set_servers(&self, servers: Servers) -> Result<(), DeviceError> {
        self.commands.tell(Command::SetServers(Box::new(servers)))
    }

    /// A signal that the peer `from` has sealed for us.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn handle_signal(&self, from: WgPublicKey, signal: Signal) -> Result<(), DeviceError> {
        self.commands.tell(Command::Signal(from, Box::new(signal)))
    }

    /// Takes the reading end of what is to be sealed and sent to peers; `None` when it was taken before.
    pub fn signals(&self) -> Option<Signals> {
        self.signals.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The relays, by name.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn relays(&self) -> Result<Vec<RelayStatus>, DeviceError> {
        self.commands.ask(Command::Relays)
    }
}
