//! What this machine offers: kernel WireGuard, TUN devices.

use std::{fs, sync::OnceLock};

use rtnetlink::LinkWireguard;

use super::{BackendChoice, DeviceError, tun::Tun};
use crate::{
    Netns,
    link::{LinkError, run},
};

/// To make a link, and to enter the network namespace that it goes to.
const NEEDED: [(u32, &str); 2] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")];

/// Whether [`create`](super::create) will find a backend here: to be asked before anything is spent on it. Makes no link, unless it
/// has to know what the kernel has.
///
/// # Errors
/// What is missing and how to get it, in one line.
pub fn can_create(choice: BackendChoice) -> Result<(), String> {
    may_make_links(effective())?;
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

/// Whoever may open `/dev/net/tun`, which is everybody, may not make a device by it.
fn may_make_links(effective: u64) -> Result<(), String> {
    let missing = NEEDED.iter().filter(|(number, _)| effective >> number & 1 == 0);
    match missing.map(|(_, name)| *name).collect::<Vec<_>>().join(", ") {
        missing if missing.is_empty() => Ok(()),
        missing => Err(format!(
            "this process lacks {missing}: run it as root, and give its container or service these capabilities"
        )),
    }
}

/// The thread's capabilities; all of them where the kernel does not say: what is missing then shows where it is used.
fn effective() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    hex.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(u64::MAX)
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
    fn who_may_make_no_links_is_told_what_is_missing() {
        assert_eq!(may_make_links(u64::MAX), Ok(()));
        for (has, missing) in [(1 << 21, "lacks CAP_NET_ADMIN:"), (0, "lacks CAP_NET_ADMIN, CAP_SYS_ADMIN:")]
        {
            let error = may_make_links(has).unwrap_err();
            assert!(error.contains(missing), "{error}");
        }
        assert_eq!(can_create(BackendChoice::UserSpace), Ok(()));
    }

    #[test]
    fn tun_devices_can_be_made_here() {
        assert_eq!(tun_usable(), Ok(()));
    }
}
