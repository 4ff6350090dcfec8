//! The kernel backend: a WireGuard link configured over generic netlink.
//!
//! A WireGuard link keeps its UDP socket in the namespace it was made in. So it is made in the underlay under a name of
//! its own, given its key and port, and moved: encrypted packets go on leaving by the underlay.

mod update;

use std::{io, sync::Arc};

use lattice_wire::WgPublicKey;
use wireguard_control as wg;

use super::{Backend, Device, DeviceConfig, DeviceError, Drops, PeerConfig, PeerStatus, check_count};
use crate::{Netns, link};

/// A WireGuard link of the kernel.
#[derive(Debug)]
pub(super) struct KernelDevice {
    name: String,
    interface: wg::InterfaceName,
    inside: Arc<Netns>,
    listen_port: u16,
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
        Ok(Self { name: config.name, interface, inside: config.inside, listen_port })
    }

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
}

impl Device for KernelDevice {
    fn backend(&self) -> Backend {
        Backend::Kernel
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn listen_port(&self) -> u16 {
        self.listen_port
    }

    fn set_peers(&self, peers: &[PeerConfig]) -> Result<(), DeviceError> {
        check_count(peers)?;
        self.configured(|| {
            // Read first: `apply` would make a link that is gone anew, with its socket in the wrong namespace.
            let present = self.get()?;
            update::update(&present.peers, peers).apply(&self.interface, wg::Backend::Kernel)
        })
    }

    fn peers(&self) -> Result<Vec<PeerStatus>, DeviceError> {
        let device = self.configured(|| self.get())?;
        Ok(device.peers.into_iter().map(status).collect())
    }

    fn drops(&self) -> Result<Option<Drops>, DeviceError> {
        Ok(None)
    }
}

impl Drop for KernelDevice {
    fn drop(&mut self) {
        match link::delete(&self.inside, &self.name) {
            Ok(()) | Err(link::LinkError::NotFound(_)) => {}
            Err(error) => tracing::warn!(device = self.name, %error, "the WireGuard link was not removed"),
        }
    }
}

/// The link between its making and its move; removed when the move does not come about.
struct NewLink<'a> {
    underlay: &'a Netns,
    name: String,
    listen_port: u16,
}

impl<'a> NewLink<'a> {
    fn create(config: &'a DeviceConfig) -> Result<Self, DeviceError> {
        let mut random = [0; 5];
        getrandom::fill(&mut random)
            .map_err(|error| DeviceError::Start { name: config.name.clone(), source: error.into() })?;
        let name = random.iter().fold(String::from("lat"), |name, byte| format!("{name}{byte:02x}"));
        let mut new_link = Self { underlay: &config.underlay, name, listen_port: config.listen_port };
        new_link.listen_port = new_link.configure(config)?;
        Ok(new_link)
    }

    fn configure(&self, config: &DeviceConfig) -> Result<u16, DeviceError> {
        let refused = |source| DeviceError::Configure { name: config.name.clone(), source };
        let interface: wg::InterfaceName =
            self.name.parse().map_err(|_| DeviceError::Name(self.name.clone()))?;
        let apply = |port| {
            let update = wg::DeviceUpdate::new().set_private_key(wg::Key(*config.private_key.expose()));
            let applied =
                self.underlay.run(|| update.set_listen_port(port).apply(&interface, wg::Backend::Kernel));
            applied.map_err(DeviceError::Namespace)?.map_err(refused)
        };
        apply(config.listen_port)?;
        // A link that is down has no socket yet: that the port is taken shows only when it is set up. The kernel keeps
        // the port it then finds, for when the link comes up again.
        match link::set_up(self.underlay, &self.name) {
            Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => {
                apply(0)?;
                link::set_up(self.underlay, &self.name)?;
            }
            done => done?,
        }
        let device = self.underlay.run(|| wg::Device::get(&interface, wg::Backend::Kernel));
        let device = device.map_err(DeviceError::Namespace)?.map_err(refused)?;
        link::set_down(self.underlay, &self.name)?;
        Ok(device.listen_port.unwrap_or_default())
    }
}

impl Drop for NewLink<'_> {
    fn drop(&mut self) {
        // After the move there is nothing of that name here, which is as it should be.
        if let Err(error) = link::delete(self.underlay, &self.name)
            && !matches!(error, link::LinkError::NotFound(_))
        {
            tracing::warn!(link = self.name, %error, "a WireGuard link was left behind in the underlay");
        }
    }
}

fn status(peer: wg::PeerInfo) -> PeerStatus {
    PeerStatus {
        public_key: WgPublicKey(peer.config.public_key.0),
        endpoint: peer.config.endpoint,
        last_handshake: peer.stats.last_handshake_time,
        rx_bytes: peer.stats.rx_bytes,
        tx_bytes: peer.stats.tx_bytes,
    }
}
