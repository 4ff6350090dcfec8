//! What this process is allowed to do, found out before anything is made or a token is spent.

use std::fs;

use lattice_bootstrap::{Failure, Kind};

/// A capability: its number in `linux/capability.h` and its name.
type Capability = (u32, &'static str);

const NET_ADMIN: Capability = (12, "CAP_NET_ADMIN");
const SYS_ADMIN: Capability = (21, "CAP_SYS_ADMIN");

/// What `lattice up` needs: it makes a link.
pub(crate) const NODE: &[Capability] = &[NET_ADMIN, SYS_ADMIN];
/// What a sandbox needs besides eBPF, which has a check of its own: namespaces, links, the resolver's port, and the
/// right to take rights away from runsc.
pub(crate) const SANDBOX: &[Capability] =
    &[NET_ADMIN, SYS_ADMIN, (8, "CAP_SETPCAP"), (10, "CAP_NET_BIND_SERVICE")];

/// Refuses to go on without root and `needed`.
pub(crate) fn require(needed: &[Capability]) -> Result<(), Failure> {
    let refuse = |text: String| Err(Failure::new(Kind::Privilege, text));
    if !nix::unistd::geteuid().is_root() {
        return refuse("this needs root (network namespaces, a TUN device, eBPF): run it with sudo".into());
    }
    match missing(effective(), needed) {
        missing if missing.is_empty() => Ok(()),
        missing => refuse(format!(
            "this process is root but lacks {missing}: give the container or service these capabilities"
        )),
    }
}

fn missing(effective: u64, needed: &[Capability]) -> String {
    let missing = needed.iter().filter(|(number, _)| effective >> number & 1 == 0);
    missing.map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
}

/// All of them where the kernel does not say: what is missing then shows where it is used.
fn effective() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    hex.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(missing(u64::MAX, SANDBOX), "");
        assert_eq!(missing(1 << 12, NODE), "CAP_SYS_ADMIN");
        assert_eq!(missing(0, NODE), "CAP_NET_ADMIN, CAP_SYS_ADMIN");
    }
}
