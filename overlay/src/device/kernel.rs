//! The kernel backend: a WireGuard link configured over generic netlink, and a thread that finds the paths to its peers.
//!
//! A WireGuard link keeps its UDP socket in the namespace it was made in. So it is made in the underlay under a name of
//! its own, given its key and port, and moved: encrypted packets go on leaving by the underlay.
//!
//! ```text
//!   underlay                                                             inside
//!   peers ◄──────────────── UDP port ◄─────────────────────────────────► wg0
//!   STUN servers, checks ◄─ raw sockets, as if from that port ◄─► engine ─ netlink: where each peer is ─►
//!   relays ◄─ connections ◄───────────────────────────────────► engine ◄─ 127.64.x.y ─► UDP port
//! ```

mod counters;
mod datagram;
mod engine;
mod handshake;
mod link;
mod loopback;
mod narrow;
mod new_link;
mod peers;
mod raw;
mod socket_filter;
mod update;

use std::{
    fmt, io,
    sync::{Arc, Mutex},
    thread,
};

use super::{
    Backend, Device, DeviceConfig, DeviceError, Drops, PeerConfig, PeerStatus, check_count,
    commands::{Command, Commands},
    paths::PathFinder,
    ways::Ways,
};
use crate::{Netns, link as links};
use engine::{Engine, Parts};
use link::WgLink;
use loopback::Loopback;
use narrow::Narrow;
use new_link::NewLink;
use raw::Raw;

/// A WireGuard link of the kernel, and the thread that looks after its peers.
pub(super) struct KernelDevice {
    link: Arc<WgLink>,
    listen_port: u16,
    commands: Commands,
    paths: Option<PathFinder>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Whether peers can be looked for beside the kernel's WireGuard: that takes raw sockets in the underlay (`CAP_NET_RAW`), by which also
/// the handshake goes that begins at a peer's home. So a device that finds no paths needs them too.
pub(super) fn can_find_paths(underlay: &Netns) -> bool {
    matches!(underlay.run(|| Raw::new(0).open()), Ok(Ok(())))
}

impl KernelDevice {
    pub(super) fn create(config: DeviceConfig) -> Result<Self, DeviceError> {
        let interface: wireguard_control::InterfaceName =
            config.name.parse().map_err(|_| DeviceError::Name(config.name.clone()))?;
        let key = config.private_key.public();
        let new_link = NewLink::create(&config)?;
        links::set_mtu(&config.underlay, &new_link.name, config.mtu)?;
        links::move_to(&config.underlay, &new_link.name, &config.inside, &config.name).map_err(|error| {
            match error.raw_os_error() {
                Some(libc::EEXIST) => DeviceError::Taken(config.name.clone()),
                _ => DeviceError::Link(error),
            }
        })?;
        let listen_port = new_link.listen_port;
        drop(new_link);
        let DeviceConfig { name, underlay, inside, paths, mtu, .. } = config;
        let start = |source| DeviceError::Start { name: name.clone(), source };
        let (commands, inbox, wake) = Commands::new(&name).map_err(start)?;
        let link = WgLink { name: name.clone(), interface, inside, underlay };
        // From here on its drop removes the link.
        let mut device = Self { link: Arc::new(link), listen_port, commands, paths: None, thread: None };

        let underlay = &device.link.underlay;
        // In a namespace of its own it may be down, and peers without a direct path are reached by it.
        links::set_up(underlay, "lo")?;
        let mut raw = Raw::new(listen_port);
        let open = || -> io::Result<_> {
            // What is not permitted shows now, not in handshakes that nobody answers.
            raw.open()?;
            Loopback::open(listen_port)
        };
        let loopback =
            underlay.run(open).map_err(DeviceError::Namespace)?.map_err(DeviceError::KernelSocket)?;
        let ways = paths.map(|paths| Ways::new(key, paths, Arc::clone(underlay), listen_port));
        let (ways, signals) = ways.unzip();
        device.paths = signals.map(|signals| PathFinder {
            commands: device.commands.clone(),
            signals: Arc::new(Mutex::new(Some(signals))),
        });
        let link = Arc::clone(&device.link);
        let narrow = Narrow::new(Arc::clone(&link), mtu);
        let engine = Engine::new(Parts { link, narrow, raw, loopback, ways, commands: inbox, wake });
        let thread = thread::Builder::new().name(name.clone()).spawn({
            let name = name.clone();
            move || {
                if let Err(error) = engine.run() {
                    tracing::error!(device = name, %error, "the WireGuard device stopped");
                }
            }
        });
        device.thread = Some(thread.map_err(start)?);
        Ok(device)
    }
}

impl Device for KernelDevice {
    fn backend(&self) -> Backend {
        Backend::Kernel
    }

    fn name(&self) -> &str {
        &self.link.name
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
}

impl Drop for KernelDevice {
    fn drop(&mut self) {
        // Where the thread has ended by itself, its link is gone already.
        let _ = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(device = self.link.name, "the WireGuard device's thread panicked");
        }
        match links::delete(&self.link.inside, &self.link.name) {
            Ok(()) | Err(links::LinkError::NotFound(_)) => {}
            Err(error) => {
                tracing::warn!(device = self.link.name, %error, "the WireGuard link was not removed");
            }
        }
    }
}

impl fmt::Debug for KernelDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelDevice")
            .field("name", &self.link.name)
            .field("listen_port", &self.listen_port)
            .finish_non_exhaustive()
    }
}
