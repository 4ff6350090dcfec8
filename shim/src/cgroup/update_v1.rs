//! Limits of version 1. What they mean is in the OCI specification (`config-linux.md`).

use std::{collections::BTreeMap, io::ErrorKind, path::PathBuf};

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxResources, LinuxThrottleDevice,
};

use super::{files, host};
use crate::error::{Error, Result};

struct Groups<'a>(&'a BTreeMap<String, PathBuf>);

pub(super) fn update(groups: &BTreeMap<String, PathBuf>, resources: &LinuxResources) -> Result<()> {
    let groups = Groups(groups);
    if let Some(name) = resources.unified().as_ref().and_then(|files| files.keys().next()) {
        return Err(Error::FailedPrecondition(format!(
            "cannot set {name:?}: this host has cgroups of version 1"
        )));
    }
    if let Some(memory) = resources.memory() {
        groups.memory(memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        groups.cpu(cpu)?;
    }
    if let Some(limit) = resources.pids().as_ref().map(|pids| pids.limit()).filter(|limit| *limit != 0) {
        groups.set("pids", "pids.max", &if limit < 0 { "max".into() } else { limit.to_string() })?;
    }
    if let Some(block_io) = resources.block_io() {
        groups.block_io(block_io)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        groups.huge_pages(limit)?;
    }
    Ok(())
}

impl Groups<'_> {
    fn file(&self, controller: &str, file: &str, value: &str) -> Result<PathBuf> {
        let group = self
            .0
            .get(controller)
            .ok_or_else(|| host::no_controller(controller, &format!("set {file} to {value}")))?;
        Ok(group.join(file))
    }

    fn set(&self, controller: &str, file: &str, value: &str) -> Result<()> {
        files::write(&self.file(controller, file, value)?, value)
    }

    /// Memory and swap together must never have less than memory alone, not between two writes either.
    fn memory(&self, memory: &LinuxMemory) -> Result<()> {
        let set = |file: &str, value: Option<String>| match value {
            Some(value) => self.set("memory", &format!("memory.{file}"), &value),
            None => Ok(()),
        };
        let text = |value: i64| Some(value.to_string());
        let limit = memory.limit().filter(|limit| *limit != 0);
        let both = match memory.swap().filter(|swap| *swap != 0) {
            None if limit == Some(-1) => Some(-1),
            both => both,
        };
        let counts_swap = self.0.get("memory").map(|group| group.join("memory.memsw.limit_in_bytes"));
        let now = counts_swap.map(|file| files::number(&file)).transpose()?.flatten();
        // Without a limit there is nothing to set where the kernel does not count swap.
        let both = both.filter(|both| *both != -1 || now.is_some()).and_then(text);
        let is_raised =
            limit.is_some_and(|limit| u64::try_from(limit).unwrap_or(u64::MAX) > now.unwrap_or(u64::MAX));
        if is_raised {
            set("memsw.limit_in_bytes", both)?;
            set("limit_in_bytes", limit.and_then(text))?;
        } else {
            set("limit_in_bytes", limit.and_then(text))?;
            set("memsw.limit_in_bytes", both)?;
        }
        set("soft_limit_in_bytes", memory.reservation().filter(|bytes| *bytes != 0).and_then(text))?;
        set("kmem.tcp.limit_in_bytes", memory.kernel_tcp().filter(|bytes| *bytes != 0).and_then(text))?;
        set("swappiness", memory.swappiness().map(|percent| percent.to_string()))?;
        set("oom_control", memory.disable_oom_killer().map(|off| u8::from(off).to_string()))
    }

    fn cpu(&self, cpu: &LinuxCpu) -> Result<()> {
        let set = |file: &str, value: Option<String>| match value {
            Some(value) => self.set("cpu", &format!("cpu.{file}"), &value),
            None => Ok(()),
        };
        set("shares", cpu.shares().filter(|shares| *shares != 0).map(|shares| shares.to_string()))?;
        let period = cpu.period().filter(|period| *period != 0).map(|period| period.to_string());
        let quota = cpu.quota().filter(|quota| *quota != 0).map(|quota| quota.to_string());
        let burst = cpu.burst().map(|burst| burst.to_string());
        // The group above bounds quota ÷ period, and quota bounds the burst: one of both orders never breaks a bound.
        if set("cfs_period_us", period.clone()).and_then(|()| set("cfs_quota_us", quota.clone())).is_err() {
            if let Some(burst) = &burst {
                set("cfs_burst_us", Some(burst.clone()))?;
            }
            set("cfs_quota_us", quota)?;
            set("cfs_period_us", period)?;
        }
        set("cfs_burst_us", burst)?;
        set("idle", cpu.idle().map(|idle| idle.to_string()))?;
        set(
            "rt_period_us",
            cpu.realtime_period().filter(|period| *period != 0).map(|period| period.to_string()),
        )?;
        set(
            "rt_runtime_us",
            cpu.realtime_runtime().filter(|runtime| *runtime != 0).map(|runtime| runtime.to_string()),
        )?;
        for (file, list) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
            if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
                self.set("cpuset", file, list)?;
            }
        }
        Ok(())
    }

    fn block_io(&self, block_io: &LinuxBlockIo) -> Result<()> {
        // The same under BFQ has another name.
        let weight = |file: &str, value: &str| {
            let path = self.file("blkio", &format!("blkio.{file}"), value)?;
            match files::try_write(&path, value) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.set("blkio", &format!("blkio.bfq.{file}"), value)
                }
                done => done.map_err(files::failed(&path, value)),
            }
        };
        if let Some(value) = block_io.weight().filter(|weight| *weight != 0) {
            weight("weight", &value.to_string())?;
        }
        if let Some(value) = block_io.leaf_weight().filter(|weight| *weight != 0) {
            self.set("blkio", "blkio.leaf_weight", &value.to_string())?;
        }
        for device in block_io.weight_device().iter().flatten() {
            if let Some(value) = device.weight() {
                weight("weight_device", &format!("{}:{} {value}", device.major(), device.minor()))?;
            }
        }
        let throttle = |file: &str, devices: &Option<Vec<LinuxThrottleDevice>>| {
            devices.iter().flatten().try_for_each(|device| {
                let value = format!("{}:{} {}", device.major(), device.minor(), device.rate());
                self.set("blkio", &format!("blkio.throttle.{file}_device"), &value)
            })
        };
        throttle("read_bps", block_io.throttle_read_bps_device())?;
        throttle("write_bps", block_io.throttle_write_bps_device())?;
        throttle("read_iops", block_io.throttle_read_iops_device())?;
        throttle("write_iops", block_io.throttle_write_iops_device())
    }

    fn huge_pages(&self, limit: &LinuxHugepageLimit) -> Result<()> {
        let file = format!("hugetlb.{}.limit_in_bytes", limit.page_size());
        if !files::is_file_name(&file) {
            return Err(Error::Invalid(format!("{:?} is no size of huge pages", limit.page_size())));
        }
        self.set("hugetlb", &file, &limit.limit().to_string())
    }
}
