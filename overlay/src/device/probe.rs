//! What this machine offers: kernel WireGuard, TUN devices.

use std::sync::OnceLock;

use rtnetlink::LinkWireguard;

use super::{BackendChoice, DeviceError, tun::Tun};
use crate::{
    Netns,
    link::{LinkError, run},
};

/// Whether [`create`](super::create) will find a backend here: to be asked before anything is spent on it. Makes no link, unless it
/// has to know what the kernel has.
///
/// # Errors
/// What is missing and how to get it, in one line.
pub fn can_create(choice: BackendChoice) -> Result<(), String> {
    let no_tun = || Tun::offered().err().map(|error| DeviceError::Tun(error).to_string());
    match choice {
        BackendChoice::Kernel if kernel_has_wireguard() => Ok(()),
        BackendChoice::Kernel => Err(DeviceError::NoKernelWireGuard.to_string()),
        BackendChoice::UserSpace => no_tun().map_or(Ok(()), Err),
        BackendChoice::Auto => match no_tun() {
            Some(reason) if !kernel_has_wireguard() => Err(reason),
            _ => Ok(()),
        },
    }
}

/// Whether the kernel has WireGuard, found out once by making a WireGuard link in a namespace of its own (which loads the
/// module where there is one). False without the right to make links.
pub fn kernel_has_wireguard() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(makes_wireguard)
}

fn makes_wireguard() -> bool {
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
    opened.and_then(|tun| tun).map(drop).map_err(|error| DeviceError::Tun(error).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tun_devices_can_be_made_here() {
        assert_eq!(tun_usable(), Ok(()));
    }
}
