//! The pod's limits. All of a pod runs in its first container's sandbox, so they must hold there; containerd gives that container's own
//! spec those of the pause program, and tells the pod's by annotations.

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources, Spec};

use crate::error::{Error, Result};

const CPU_PERIOD: &str = "io.kubernetes.cri.sandbox-cpu-period";
const CPU_QUOTA: &str = "io.kubernetes.cri.sandbox-cpu-quota";
const CPU_SHARES: &str = "io.kubernetes.cri.sandbox-cpu-shares";
const MEMORY: &str = "io.kubernetes.cri.sandbox-memory";

/// Sets what the annotations say; nothing for those that are missing or 0, which means no limit.
pub(super) fn apply(spec: &mut Spec) -> Result<()> {
    let annotations = spec.annotations().clone().unwrap_or_default();
    let number = |name: &str| match annotations.get(name).map(|value| value.parse::<i64>()) {
        Some(Ok(value)) => Ok((value > 0).then_some(value)),
        Some(Err(_)) => {
            Err(Error::Invalid(format!("annotation {name}={:?} is no number", annotations[name])))
        }
        None => Ok(None),
    };
    let (period, quota, shares) = (number(CPU_PERIOD)?, number(CPU_QUOTA)?, number(CPU_SHARES)?);
    let memory = number(MEMORY)?;
    if quota.is_none() && shares.is_none() && memory.is_none() {
        return Ok(());
    }
    let mut linux = spec.linux().clone().unwrap_or_default();
    let mut resources: LinuxResources = linux.resources().clone().unwrap_or_default();
    let mut cpu: LinuxCpu = resources.cpu().clone().unwrap_or_default();
    if quota.is_some() {
        let period = period.map(i64::unsigned_abs).or(cpu.period());
        cpu.set_quota(quota).set_period(period);
    }
    if shares.is_some() {
        cpu.set_shares(shares.map(i64::unsigned_abs));
    }
    if quota.is_some() || shares.is_some() {
        resources.set_cpu(Some(cpu));
    }
    if memory.is_some() {
        let mut limits: LinuxMemory = resources.memory().unwrap_or_default();
        limits.set_limit(memory);
        resources.set_memory(Some(limits));
    }
    linux.set_resources(Some(resources));
    spec.set_linux(Some(linux));
    Ok(())
}
