//! The WireGuard link, as generic netlink shows it (`wireguard(7)`, `uapi/linux/wireguard.h`).

use std::{io, net::SocketAddr, sync::Arc};

use lattice_wire::WgPublicKey;
use wireguard_control as wg;

use super::{Drops, counters, update};
use crate::{Netns, device::DeviceError};

/// A link in the namespace to protect.
#[derive(Debug)]
pub(super) struct WgLink {
    pub(super) name: String,
    pub(super) interface: wg::InterfaceName,
    pub(super) inside: Arc<Netns>,
    /// Held open: a kernel (6.1) may crash when the namespace that a WireGuard link was made in ends while the link is
    /// being deleted (`wg_netns_pre_exit` against `wg_destruct`).
    pub(super) underlay: Arc<Netns>,
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

    /// The peers, as the kernel knows them: all of them, for it cannot be asked for one.
    pub(super) fn peers(&self) -> Result<Vec<wg::PeerInfo>, DeviceError> {
        self.configured(|| self.get())
    }

    fn get(&self) -> io::Result<Vec<wg::PeerInfo>> {
        Ok(wg::Device::get(&self.interface, wg::Backend::Kernel)?.peers)
    }

    /// Reads the kernel's peers and then tells it `change`. Read first: `apply` would make a link that is gone anew,
    /// with its socket in the wrong namespace.
    pub(super) fn update(
        &self,
        change: impl FnOnce(&[wg::PeerInfo]) -> wg::DeviceUpdate + Send,
    ) -> Result<(), DeviceError> {
        self.configured(|| change(&self.get()?).apply(&self.interface, wg::Backend::Kernel))
    }

    /// What it dropped.
    pub(super) fn drops(&self) -> Result<Drops, DeviceError> {
        let table = self.configured(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?;
        counters::drops(&table, &self.name).ok_or_else(|| DeviceError::Stopped(self.name.clone()))
    }

    /// Has the kernel send to other addresses. The peers must be there.
    pub(super) fn move_endpoints(&self, to: &[(WgPublicKey, SocketAddr)]) -> Result<(), DeviceError> {
        self.configured(|| {
            // As in [`Self::update`], but without reading thousands of peers.
            nix::net::if_::if_nametoindex(self.name.as_str())
                .map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
            update::endpoints(to).apply(&self.interface, wg::Backend::Kernel)
        })
    }
}
