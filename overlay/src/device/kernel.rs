//! The kernel backend: a WireGuard link configured over generic netlink.
//!
//! A WireGuard link keeps its UDP socket in the namespace it was made in. So it is made in the underlay under a name of
//! its own, given its key and port, and moved: encrypted packets go on leaving by the underlay.

mod new_link;
mod turns;
mod update;

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use lattice_wire::WgPublicKey;
use wireguard_control as wg;

use super::{Backend, Device, DeviceConfig, DeviceError, Drops, PeerConfig, PeerStatus, check_count};
use crate::{Netns, link};
use new_link::NewLink;

/// Between attempts to read a kernel that refuses to be read.
const RETRY: Duration = Duration::from_secs(1);

/// A WireGuard link of the kernel, and the thread that gives its peers' endpoint candidates their turns.
#[derive(Debug)]
pub(super) struct KernelDevice {
    link: Arc<WgLink>,
    listen_port: u16,
    turns: Option<thread::JoinHandle<()>>,
}

/// What the device and its thread share.
#[derive(Debug)]
struct WgLink {
    name: String,
    interface: wg::InterfaceName,
    inside: Arc<Netns>,
    /// Held open: a kernel (6.1) may crash when the namespace that a WireGuard link was made in ends while the link is
    /// being deleted (`wg_netns_pre_exit` against `wg_destruct`).
    _underlay: Arc<Netns>,
    peers: Mutex<Peers>,
    changed: Condvar,
}

/// Locked while the kernel is read and told, which are two requests.
#[derive(Debug, Default)]
struct Peers {
    wanted: Vec<PeerConfig>,
    turns: turns::Turns,
    ended: bool,
}

impl KernelDevice {
    pub(super) fn create(config: DeviceConfig) -> Result<Self, DeviceError> {
        let interface: wg::InterfaceName =
            config.name.parse().map_err(|_| DeviceError::Name(config.name.clone()))?;
        let new_link = NewLink::create(&config)?;
        link::set_mtu(&config.underlay, &new_link.name, config.mtu)?;
        link::move_to(&config.underlay, &new_link.name, &config.inside, &config.name).map_err(|error| {
            match error.raw_os_error() {
                Some(libc::EEXIST) => DeviceError::Taken(config.name.clone()),
                _ => DeviceError::Link(error),
            }
        })?;
        let listen_port = new_link.listen_port;
        drop(new_link);
        let link = Arc::new(WgLink {
            name: config.name,
            interface,
            inside: config.inside,
            _underlay: config.underlay,
            peers: Mutex::default(),
            changed: Condvar::new(),
        });
        // From here on its drop removes the link.
        let mut device = Self { link: Arc::clone(&link), listen_port, turns: None };
        let thread = thread::Builder::new().name(link.name.clone()).spawn({
            let link = Arc::clone(&link);
            move || link.take_turns()
        });
        device.turns = Some(thread.map_err(|source| DeviceError::Start { name: link.name.clone(), source })?);
        Ok(device)
    }
}

impl WgLink {
    /// Generic netlink answers for the namespace of the socket that asks.
    fn configured<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> Result<T, DeviceError> {
        let done = self.inside.run(work).map_err(DeviceError::Namespace)?;
        done.map_err(|source| match source.raw_os_error() {
            Some(libc::ENODEV) => DeviceError::Stopped(self.name.clone()),
            _ => DeviceError::Configure { name: self.name.clone(), source },
        })
    }

    fn get(&self) -> io::Result<wg::Device> {
        wg::Device::get(&self.interface, wg::Backend::Kernel)
    }

    /// Reads the kernel's peers and then tells it `change`. Read first: `apply` would make a link that is gone anew,
    /// with its socket in the wrong namespace.
    fn update(
        &self,
        change: impl FnOnce(&[wg::PeerInfo]) -> Option<wg::DeviceUpdate> + Send,
    ) -> Result<(), DeviceError> {
        self.configured(|| match change(&self.get()?.peers) {
            Some(update) => update.apply(&self.interface, wg::Backend::Kernel),
            None => Ok(()),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_turns(&self) {
        let mut peers = self.lock();
        while !peers.ended {
            let pause = peers.turns.due().map(|due| due.saturating_duration_since(Instant::now()));
            peers = match pause {
                Some(Duration::ZERO) => {
                    let Peers { wanted, turns, .. } = &mut *peers;
                    let turn = self.update(|present| {
                        let at = turns.take(present, Instant::now());
                        (!at.is_empty()).then(|| update::restart(wanted, &at))
                    });
                    match turn {
                        Ok(()) => peers,
                        Err(DeviceError::Stopped(_)) => return,
                        Err(error) => {
                            tracing::debug!(device = self.name, %error, "no turn for the endpoint candidates");
                            let wait = self.changed.wait_timeout(peers, RETRY);
                            wait.unwrap_or_else(PoisonError::into_inner).0
                        }
                    }
                }
                Some(pause) => {
                    self.changed.wait_timeout(peers, pause).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(peers).unwrap_or_else(PoisonError::into_inner),
            };
        }
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

    fn set_peers(&self, wanted: &[PeerConfig]) -> Result<(), DeviceError> {
        check_count(wanted)?;
        let mut peers = self.link.lock();
        self.link.update(|present| Some(update::update(present, wanted)))?;
        wanted.clone_into(&mut peers.wanted);
        peers.turns.follow(wanted, Instant::now());
        self.link.changed.notify_one();
        Ok(())
    }

    fn peers(&self) -> Result<Vec<PeerStatus>, DeviceError> {
        let device = self.link.configured(|| self.link.get())?;
        Ok(device.peers.into_iter().map(status).collect())
    }

    fn drops(&self) -> Result<Option<Drops>, DeviceError> {
        Ok(None)
    }
}

impl Drop for KernelDevice {
    fn drop(&mut self) {
        self.link.lock().ended = true;
        self.link.changed.notify_one();
        if let Some(turns) = self.turns.take() {
            let _ = turns.join();
        }
        match link::delete(&self.link.inside, &self.link.name) {
            Ok(()) | Err(link::LinkError::NotFound(_)) => {}
            Err(error) => {
                tracing::warn!(device = self.link.name, %error, "the WireGuard link was not removed");
            }
        }
    }
}

fn status(peer: wg::PeerInfo) -> PeerStatus {
    PeerStatus {
        public_key: WgPublicKey(peer.config.public_key.0),
        endpoint: peer.config.endpoint,
        path: None,
        last_handshake: peer.stats.last_handshake_time,
        rx_bytes: peer.stats.rx_bytes,
        tx_bytes: peer.stats.tx_bytes,
    }
}
