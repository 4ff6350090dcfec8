//! A WireGuard link between its making, in the underlay, and its move to where it belongs.

use wireguard_control as wg;

use crate::{
    Netns,
    device::{DeviceConfig, DeviceError},
    link,
};

/// A link that has its key and its port; removed when the move does not come about.
pub(super) struct NewLink<'a> {
    underlay: &'a Netns,
    pub(super) name: String,
    pub(super) listen_port: u16,
}

impl<'a> NewLink<'a> {
    pub(super) fn create(config: &'a DeviceConfig) -> Result<Self, DeviceError> {
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
