//! The user-space backend: a TUN device in the namespace to protect, a UDP socket in the underlay, and one thread.

use std::{
    fmt,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Instant,
};

use lattice_filter::Filter;

use super::{
    Backend, Device, DeviceConfig, DeviceError, Drops, PeerConfig, PeerStatus, UserFilter, check_count,
    commands::{Command, Commands},
    engine::Engine,
    gate::Gate,
    paths::PathFinder,
    tun::Tun,
    udp::Udp,
    ways::Ways,
};
use crate::link;
use lattice_wireguard::Interface;

/// A WireGuard device in this process.
pub(super) struct UserSpaceDevice {
    listen_port: u16,
    commands: Commands,
    filter: Option<UserFilter>,
    paths: Option<PathFinder>,
    thread: Option<JoinHandle<()>>,
}

impl UserSpaceDevice {
    pub(super) fn create(config: DeviceConfig) -> Result<Self, DeviceError> {
        let name = &config.name;
        let tun = config.inside.run(|| open(name)).map_err(DeviceError::Namespace)??;
        link::set_mtu(&config.inside, name, config.mtu)?;
        Self::on(config, tun, Box::new(|| ()))
    }

    /// Runs on a TUN device that is there. `ended` is called when its thread has ended, for whatever reason.
    pub(super) fn on(config: DeviceConfig, tun: Tun, ended: Ended) -> Result<Self, DeviceError> {
        let name = config.name;
        let udp = config.underlay.run(|| Udp::bind(config.listen_port));
        let udp = udp.map_err(DeviceError::Namespace)?.map_err(DeviceError::Socket)?;
        let listen_port = udp.port().map_err(DeviceError::Socket)?;

        let start = |source| DeviceError::Start { name: name.clone(), source };
        let (commands, inbox, wake) = Commands::new(&name).map_err(start)?;
        let gate = config.filter.map(|filter| Gate::new(Filter::new(filter.own), commands.clone()));
        let (gate, filter) = gate.transpose().map_err(start)?.unzip();
        let interface = Interface::new(&config.private_key, config.mtu, Instant::now());
        let key = config.private_key.public();
        let ways = config.paths.map(|paths| Ways::new(key, paths, config.underlay, listen_port));
        let (ways, signals) = ways.unzip();
        let paths = signals.map(|signals| PathFinder {
            commands: commands.clone(),
            signals: Arc::new(Mutex::new(Some(signals))),
        });
        let engine = Engine::new(interface, tun, udp, gate, ways, inbox, wake);
        let device = name.clone();
        let thread = thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                let _also_when_it_panics = OnDrop(Some(ended));
                if let Err(error) = engine.run() {
                    tracing::error!(device, %error, "the WireGuard device stopped");
                }
            })
            .map_err(start)?;
        Ok(Self { listen_port, commands, filter, paths, thread: Some(thread) })
    }
}

/// Makes the link in the calling thread's namespace.
pub(super) fn open(name: &str) -> Result<Tun, DeviceError> {
    Tun::open(name).map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST | libc::EINVAL) => DeviceError::Taken(name.into()),
        _ => DeviceError::Tun(error),
    })
}

/// What is to be done when a device's thread has ended.
pub(super) type Ended = Box<dyn FnOnce() + Send>;

struct OnDrop(Option<Ended>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        if let Some(ended) = self.0.take() {
            ended();
        }
    }
}

impl Device for UserSpaceDevice {
    fn backend(&self) -> Backend {
        Backend::UserSpace
    }

    fn name(&self) -> &str {
        self.commands.name()
    }

    fn listen_port(&self) -> u16 {
        self.listen_port
    }

    fn set_peers(&self, peers: &[PeerConfig]) -> Result<(), DeviceError> {
        check_count(peers)?;
        self.commands.ask(|done| Command::SetPeers(peers.to_vec(), done))
    }

    fn peers(&self) -> Result<Vec<PeerStatus>, DeviceError> {
        self.commands.ask(Command::Peers)
    }

    fn drops(&self) -> Result<Option<Drops>, DeviceError> {
        self.commands.ask(Command::Drops).map(Some)
    }

    fn paths(&self) -> Option<&PathFinder> {
        self.paths.as_ref()
    }

    fn filter(&self) -> Option<&UserFilter> {
        self.filter.as_ref()
    }
}

impl Drop for UserSpaceDevice {
    fn drop(&mut self) {
        // Where the thread has ended by itself, its link is gone already.
        let _ = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(device = self.commands.name(), "the WireGuard device's thread panicked");
        }
    }
}

impl fmt::Debug for UserSpaceDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserSpaceDevice")
            .field("name", &self.commands.name())
            .field("listen_port", &self.listen_port)
            .finish_non_exhaustive()
    }
}
