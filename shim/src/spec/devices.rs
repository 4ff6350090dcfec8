//! No way to a link of one's own: `/dev/net/tun`.

use std::path::Path;

use oci_spec::runtime::Spec;

use super::{is_at, normal};

const TUN: &str = "/dev/net/tun";
/// Its numbers (`Documentation/admin-guide/devices.txt`).
const NUMBERS: (i64, i64) = (10, 200);

/// Takes it out of devices, mounts and the list of what may be opened.
pub(super) fn drop_tun(spec: &mut Spec) {
    let tun = Path::new(TUN);
    if let Some(mounts) = spec.mounts_mut() {
        mounts.retain(|mount| {
            let is_source = mount.source().as_deref().is_some_and(|source| normal(source) == tun);
            !is_source && !is_at(mount, tun)
        });
    }
    let Some(linux) = spec.linux_mut() else { return };
    if let Some(devices) = linux.devices_mut() {
        devices.retain(|device| (device.major(), device.minor()) != NUMBERS && normal(device.path()) != tun);
    }
    let rules = linux.resources_mut().as_mut().and_then(|resources| resources.devices_mut().as_mut());
    if let Some(rules) = rules {
        rules.retain(|rule| {
            !(rule.allow() && (rule.major(), rule.minor()) == (Some(NUMBERS.0), Some(NUMBERS.1)))
        });
    }
}
