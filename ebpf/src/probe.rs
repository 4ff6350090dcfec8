//! Whether the policy can be enforced here, and how.

use std::{fs, io};

use aya::{
    maps::{LpmTrie, MapData, MapError},
    programs::{SchedClassifier, TcAttachType},
};

use crate::{
    EbpfError,
    abi::{PrefixKey, PrefixValue},
    cgroup,
};

/// `BPF_F_NO_PREALLOC`, which tries require.
const NO_PREALLOC: u32 = 1;

/// What this kernel offers to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Support {
    /// Programs are attached by TCX (Linux 6.6), where no `tc` command removes them; else by the clsact qdisc.
    pub tcx: bool,
    /// Calls of a cgroup can be policed: version 2 is mounted, with hooks for programs, and cgroups can be made in it.
    pub cgroup: bool,
}

/// `capabilities(7)`: number, name, and whether `CAP_SYS_ADMIN` includes it.
const NEEDED: [(u32, &str, bool); 3] =
    [(39, "CAP_BPF", true), (12, "CAP_NET_ADMIN", false), (38, "CAP_PERFMON", true)];
const CAP_SYS_ADMIN: u32 = 21;

/// Tries what the enforcer needs, and leaves nothing behind.
///
/// # Errors
/// [`EbpfError::NotPermitted`] names the missing capabilities; [`EbpfError::NoBpf`] means the kernel was built without.
pub fn probe() -> Result<Support, EbpfError> {
    permitted()?;
    Ok(Support { tcx: has_tcx(), cgroup: cgroup::is_usable() })
}

pub(crate) fn has_tcx() -> bool {
    SchedClassifier::query_tcx("lo", TcAttachType::Egress).is_ok()
}

pub(crate) fn permitted() -> Result<(), EbpfError> {
    let missing = missing(effective_capabilities());
    if !missing.is_empty() {
        return Err(EbpfError::NotPermitted { missing });
    }
    match LpmTrie::<MapData, PrefixKey, PrefixValue>::create(1, NO_PREALLOC) {
        Ok(_) => Ok(()),
        Err(MapError::CreateError { io_error, .. }) => Err(refusal(io_error)),
        Err(e) => Err(EbpfError::map("create an entry", "POLICY")(e)),
    }
}

fn refusal(e: io::Error) -> EbpfError {
    match e.raw_os_error() {
        // All capabilities, yet refused: they are those of a user namespace, or a security module says no.
        Some(libc::EPERM | libc::EACCES) => EbpfError::NotPermitted {
            missing: "CAP_BPF in the initial user namespace, or the permission of a security module".into(),
        },
        _ => EbpfError::NoBpf(e),
    }
}

fn effective_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    hex.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default()
}

fn missing(effective: u64) -> String {
    let has = |capability: u32| effective >> capability & 1 == 1;
    let missing = NEEDED.iter().filter(|&&(n, _, in_admin)| !(has(n) || in_admin && has(CAP_SYS_ADMIN)));
    missing.map(|&(_, name, _)| name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(missing(0), "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON");
        assert_eq!(missing(1 << 12 | 1 << 39), "CAP_PERFMON");
        assert_eq!(missing(1 << 21), "CAP_NET_ADMIN");
        assert_eq!(missing(1 << 21 | 1 << 12), "");
    }

    #[test]
    fn this_machine_can_enforce() {
        let support = probe().unwrap();
        if cgroup::mount_point(&fs::read_to_string("/proc/mounts").unwrap()).is_none() {
            println!("SKIPPED: the cgroup hooks: no cgroup v2 is mounted");
        } else {
            assert!(support.cgroup);
        }
    }
}
