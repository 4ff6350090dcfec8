//! What this machine offers: kernel WireGuard, TUN devices.

use rtnetlink::LinkWireguard;

use super::tun::Tun;
use crate::{
    Netns,
    link::{LinkError, run},
};

/// Whether the kernel has WireGuard, found out by making a WireGuard link in a namespace of its own (which loads the
/// module where there is one). False without the right to make links.
pub fn kernel_has_wireguard() -> bool {
    Netns::create().is_ok_and(|scratch| {
        run(&scratch, async |handle| {
            let link = LinkWireguard::new("wg0").build();
            handle.link().add(link).execute().await.map_err(|error| LinkError::NotFound(error.to_string()))
        })
        .is_ok()
    })
}

/// Whether a TUN device can be made, found out by making one in a namespace of its own.
///
/// # Errors
/// What is missing and how to get it, in one line.
pub fn tun_usable() -> Result<(), String> {
    let scratch = Netns::create().map_err(|error| {
        format!("cannot make a network namespace: {error}; run as root (CAP_SYS_ADMIN and CAP_NET_ADMIN)")
    })?;
    let opened = scratch.run(|| Tun::open("tun0"));
    opened.and_then(|tun| tun).map(drop).map_err(|error| super::DeviceError::Tun(error).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tun_devices_can_be_made_here() {
        assert_eq!(tun_usable(), Ok(()));
    }
}
