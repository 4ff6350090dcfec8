//! The user-space backend: one thread, a UDP socket in the underlay, and inside a TUN device in the namespace to protect, or a stack in this
//! process.

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Instant,
};

use lattice_filter::Filter;
use lattice_wire::WgPrivateKey;
use lattice_wireguard::Interface;

use super::{
    Backend, Device, DeviceConfig, DeviceError, Drops, PeerConfig, PeerStatus, UserFilter, check_count,
    commands::{Command, Commands},
    core::Core,
    engine::Engine,
    gate::Gate,
    loopback::LoopbackPorts,
    paths::{PathFinder, PathsConfig},
    tun::Tun,
    udp::Udp,
    ways::Ways,
};
use crate::{
    Netns,
    gateway::{self, GatewayConfig},
    link,
};

/// A WireGuard device in this process.
pub(crate) struct UserSpaceDevice {
    listen_port: u16,
    commands: Commands,
    filter: Option<UserFilter>,
    paths: Option<PathFinder>,
    thread: Option<JoinHandle<()>>,
}

/// What a device is made from, but for its inside.
pub(crate) struct CoreConfig {
    pub(crate) name: String,
    pub(crate) private_key: WgPrivateKey,
    pub(crate) listen_port: u16,
    pub(crate) mtu: u16,
    pub(crate) underlay: Arc<Netns>,
    /// The addresses of its filter, if it has one.
    pub(crate) filter: Option<Vec<IpAddr>>,
    pub(crate) paths: Option<PathsConfig>,
}

impl UserSpaceDevice {
    /// A device with a TUN link.
    pub(super) fn create(config: DeviceConfig) -> Result<Self, DeviceError> {
        let name = &config.name;
        let tun = config.inside.run(|| open(name)).map_err(DeviceError::Namespace)??;
        link::set_mtu(&config.inside, name, config.mtu)?;
        Self::on(config, tun, None, None, Box::new(|| ()))
    }

    /// Runs on a TUN device that is there, with a gateway beside its filter where one is asked for. `ended` is called when its thread has
    /// ended, for whatever reason.
    pub(super) fn on(
        config: DeviceConfig,
        tun: Tun,
        gateway: Option<GatewayConfig>,
        loopback: Option<LoopbackPorts>,
        ended: Ended,
    ) -> Result<Self, DeviceError> {
        let DeviceConfig { name, private_key, listen_port, mtu, underlay, inside: _, filter, paths } = config;
        let filter = filter.map(|filter| filter.own);
        let core = CoreConfig { name: name.clone(), private_key, listen_port, mtu, underlay, filter, paths };
        let label = core.name.clone();
        let (device, core) = Self::prepare(core)?;
        let tap = match (gateway, &device.filter) {
            (Some(gateway), Some(filter)) => {
                let tap = gateway::start(&label, gateway, filter.clone());
                Some(tap.map_err(|source| DeviceError::Start { name: label, source })?)
            }
            _ => None,
        };
        let engine = Engine::new(core, tun, tap, loopback);
        device.start(move || {
            let _also_when_it_panics = OnDrop(Some(ended));
            if let Err(error) = engine.run() {
                tracing::error!(device = name, %error, "the WireGuard device stopped");
            }
        })
    }

    /// The owner's end of a device without an inside, and the thread's.
    pub(crate) fn prepare(config: CoreConfig) -> Result<(Self, Core), DeviceError> {
        let CoreConfig { name, private_key, listen_port, mtu, underlay, filter, paths } = config;
        let udp = underlay.run(|| Udp::bind(listen_port));
        let udp = udp.map_err(DeviceError::Namespace)?.map_err(DeviceError::Socket)?;
        let listen_port = udp.port().map_err(DeviceError::Socket)?;

        let start = |source| DeviceError::Start { name: name.clone(), source };
        let (commands, inbox, wake) = Commands::new(&name).map_err(start)?;
        let gate = filter.map(|own| Gate::new(Filter::new(own), commands.clone()));
        let (gate, filter) = gate.transpose().map_err(start)?.unzip();
        let interface = Interface::new(&private_key, mtu, Instant::now());
        let key = private_key.public();
        let ways = paths.map(|paths| Ways::new(key, paths, underlay, listen_port));
        let (ways, signals) = ways.unzip();
        let paths = signals.map(|signals| PathFinder {
            commands: commands.clone(),
            signals: Arc::new(Mutex::new(Some(signals))),
        });
        let core = Core::new(interface, udp, gate, ways, inbox, wake);
        Ok((Self { listen_port, commands, filter, paths, thread: None }, core))
    }

    /// Has a thread of the device's name do `work`, which ends when it is told to stop.
    pub(crate) fn start(mut self, work: impl FnOnce() + Send + 'static) -> Result<Self, DeviceError> {
        let name = self.commands.name().to_owned();
        let thread = thread::Builder::new().name(name.clone()).spawn(work);
        self.thread = Some(thread.map_err(|source| DeviceError::Start { name, source })?);
        Ok(self)
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
        self.commands.ask(|done| Command::SetPeers(peers.to_vec(), done))?
    }

    fn peers(&self) -> Result<Vec<PeerStatus>, DeviceError> {
        self.commands.ask(Command::Peers)?
    }

    fn drops(&self) -> Result<Drops, DeviceError> {
        self.commands.ask(Command::Drops)?
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
