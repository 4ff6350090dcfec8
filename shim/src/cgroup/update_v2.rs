//! Limits of version 2, from the OCI specification's words for version 1, by the conversions that runsc uses to make a group: the same request
//! gives the same limit, whether it comes before or after the start.

use std::{collections::HashMap, path::Path};

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};

use super::files;
use crate::error::{Error, Result};

pub(super) fn update(group: &Path, resources: &LinuxResources) -> Result<()> {
    if let Some(memory) = resources.memory() {
        update_memory(group, memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        update_cpu(group, cpu)?;
    }
    if let Some(limit) = resources.pids().as_ref().map(|pids| pids.limit()).filter(|limit| *limit != 0) {
        set(group, "pids.max", &limit_text(limit))?;
    }
    if let Some(block_io) = resources.block_io() {
        update_block_io(group, block_io)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        set(group, &format!("hugetlb.{}.max", limit.page_size()), &limit_text(limit.limit()))?;
    }
    match resources.unified() {
        Some(values) => update_unified(group, values),
        None => Ok(()),
    }
}

fn set(group: &Path, file: &str, value: &str) -> Result<()> {
    if !files::is_file_name(file) {
        return Err(Error::Invalid(format!("{file:?} is no file of a cgroup")));
    }
    let path = group.join(file);
    if group.is_dir() && !path.exists() {
        let controller = file.split('.').next().unwrap_or(file);
        return Err(Error::FailedPrecondition(format!(
            "cannot set {file} to {value}: {} has no such file; is the controller {controller} in cgroup.subtree_control of the group above?",
            group.display()
        )));
    }
    files::write(&path, value)
}

/// No limit is −1 to the specification, `max` to the kernel.
fn limit_text(limit: i64) -> String {
    if limit < 0 { "max".into() } else { limit.to_string() }
}

fn update_memory(group: &Path, memory: &LinuxMemory) -> Result<()> {
    let limit = memory.limit().filter(|limit| *limit != 0);
    let swap = swap(limit, memory.swap().filter(|swap| *swap != 0))?;
    if let Some(what) = unknown_to_v2(memory) {
        return Err(Error::FailedPrecondition(format!(
            "cannot set {what}: cgroups of version 2 have no such limit"
        )));
    }
    if let Some(limit) = limit.and_then(|limit| u64::try_from(limit).ok())
        && memory.check_before_update() == Some(true)
        && let Some(used) = files::number(&group.join("memory.current"))?.filter(|used| *used > limit)
    {
        return Err(Error::FailedPrecondition(format!(
            "cannot set memory.max to {limit}: {used} bytes are in use"
        )));
    }
    let has_swap = group.join("memory.swap.max").exists();
    let is_nothing = matches!(swap, Some(-1 | 0));
    // Without swap there is nothing to forbid and nothing to allow.
    if let Some(swap) = swap.filter(|_| has_swap || !is_nothing) {
        set(group, "memory.swap.max", &limit_text(swap))?;
    }
    if let Some(limit) = limit {
        set(group, "memory.max", &limit_text(limit))?;
    }
    match memory.reservation().filter(|bytes| *bytes != 0) {
        Some(bytes) => set(group, "memory.low", &limit_text(bytes)),
        None => Ok(()),
    }
}

/// The specification limits memory and swap together, the kernel swap alone.
fn swap(limit: Option<i64>, both: Option<i64>) -> Result<Option<i64>> {
    match (limit, both) {
        (Some(-1), None) => Ok(Some(-1)),
        (_, None | Some(-1)) => Ok(both),
        (Some(limit), Some(both)) if 0 <= limit && limit <= both => Ok(Some(both - limit)),
        (limit, Some(both)) => Err(Error::Invalid(format!(
            "memory and swap cannot have {both} bytes together where memory alone has {}; name both limits",
            limit.map_or("no new limit".into(), limit_text)
        ))),
    }
}

fn unknown_to_v2(memory: &LinuxMemory) -> Option<&'static str> {
    let kernel_tcp =
        memory.kernel_tcp().is_some_and(|bytes| bytes > 0).then_some("the limit of TCP's buffers");
    let swappiness = memory.swappiness().map(|_| "swappiness");
    let oom_killer = memory.disable_oom_killer().filter(|off| *off).map(|_| "the OOM killer off");
    kernel_tcp.or(swappiness).or(oom_killer)
}

fn update_cpu(group: &Path, cpu: &LinuxCpu) -> Result<()> {
    if cpu.realtime_runtime().is_some_and(|runtime| runtime != 0)
        || cpu.realtime_period().is_some_and(|period| period != 0)
    {
        return Err(Error::FailedPrecondition(
            "cannot set realtime limits: cgroups of version 2 have none".into(),
        ));
    }
    // An idle group has no weight to set.
    if cpu.idle() == Some(0) {
        set(group, "cpu.idle", "0")?;
    }
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        set(group, "cpu.weight", &weight_of_shares(shares).to_string())?;
    }
    if let Some(idle) = cpu.idle().filter(|idle| *idle != 0) {
        set(group, "cpu.idle", &idle.to_string())?;
    }
    let quota = cpu.quota().filter(|quota| *quota != 0).map(limit_text);
    let period = cpu.period().filter(|period| *period != 0);
    let bandwidth = match (quota, period) {
        (Some(quota), Some(period)) => Some(format!("{quota} {period}")),
        // The kernel keeps the period.
        (Some(quota), None) => Some(quota),
        (None, Some(period)) => {
            let now = files::read(&group.join("cpu.max"))?.unwrap_or_default();
            Some(format!("{} {period}", now.split_whitespace().next().unwrap_or("max")))
        }
        (None, None) => None,
    };
    if let Some(bandwidth) = bandwidth {
        set(group, "cpu.max", &bandwidth)?;
    }
    if let Some(burst) = cpu.burst() {
        set(group, "cpu.max.burst", &burst.to_string())?;
    }
    for (file, list) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            set(group, file, list)?;
        }
    }
    Ok(())
}

/// 2 … 262144 to 1 … 10000.
fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// 10 … 1000 to 1 … 10000.
fn weight_of_block_io(weight: u16) -> u64 {
    1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9999 / 990
}

fn update_block_io(group: &Path, block_io: &LinuxBlockIo) -> Result<()> {
    if block_io.leaf_weight().is_some_and(|weight| weight != 0) {
        return Err(Error::FailedPrecondition(
            "cannot set a leaf weight: cgroups of version 2 have none".into(),
        ));
    }
    // BFQ takes the specification's range as it is.
    let has_bfq = group.join("io.bfq.weight").exists();
    let weight = |device: &str, weight: u16| match has_bfq {
        true => set(group, "io.bfq.weight", &format!("{device} {weight}")),
        false => set(group, "io.weight", &format!("{device} {}", weight_of_block_io(weight))),
    };
    if let Some(value) = block_io.weight().filter(|weight| *weight != 0) {
        weight("default", value)?;
    }
    for device in block_io.weight_device().iter().flatten() {
        if let Some(value) = device.weight() {
            weight(&format!("{}:{}", device.major(), device.minor()), value)?;
        }
    }
    let throttle = |name: &str, devices: &Option<Vec<LinuxThrottleDevice>>| {
        devices.iter().flatten().try_for_each(|device| {
            let rate = if device.rate() == 0 { "max".into() } else { device.rate().to_string() };
            set(group, "io.max", &format!("{}:{} {name}={rate}", device.major(), device.minor()))
        })
    };
    throttle("rbps", block_io.throttle_read_bps_device())?;
    throttle("wbps", block_io.throttle_write_bps_device())?;
    throttle("riops", block_io.throttle_read_iops_device())?;
    throttle("wiops", block_io.throttle_write_iops_device())
}

/// Limits by the kernel's own names; not what moves, freezes or kills processes, or delegates controllers.
fn update_unified(group: &Path, values: &HashMap<String, String>) -> Result<()> {
    for (file, value) in values {
        if !file.contains('.') || file.starts_with("cgroup.") {
            return Err(Error::Invalid(format!("{file:?} is no limit")));
        }
        for line in value.lines() {
            set(group, file, line)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files as the kernel has them, empty: what is in them is what was written.
    fn group(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|file| std::fs::write(dir.path().join(file), "").unwrap());
        dir
    }

    fn written(json: &str, files: &[&str]) -> Result<Vec<String>> {
        let dir = group(files);
        update(dir.path(), &serde_json::from_str(json).unwrap())?;
        Ok(files.iter().map(|file| std::fs::read_to_string(dir.path().join(file)).unwrap()).collect())
    }

    #[test]
    fn limits_are_written_by_the_names_of_version_2() {
        let memory = ["memory.max", "memory.swap.max", "memory.low"];
        let json = r#"{"memory":{"limit":100,"swap":300,"reservation":50}}"#;
        assert_eq!(written(json, &memory).unwrap(), ["100", "200", "50"]);
        assert_eq!(written(r#"{"memory":{"limit":-1}}"#, &memory).unwrap(), ["max", "max", ""]);
        let cpu =
            ["cpu.weight", "cpu.max", "cpu.max.burst", "cpu.idle", "cpuset.cpus", "cpuset.mems", "pids.max"];
        let json = r#"{"cpu":{"shares":1024,"quota":5000,"period":10000,"burst":7,"idle":0,"cpus":"0-1","mems":"0"},"pids":{"limit":-1}}"#;
        assert_eq!(written(json, &cpu).unwrap(), ["39", "5000 10000", "7", "0", "0-1", "0", "max"]);
        assert_eq!(written(r#"{"cpu":{"quota":-1}}"#, &["cpu.max"]).unwrap(), ["max"]);
        assert_eq!(written(r#"{"cpu":{"period":20000}}"#, &["cpu.max"]).unwrap(), ["max 20000"]);
        let weight = r#"{"blockIO":{"weight":500}}"#;
        assert_eq!(written(weight, &["io.weight"]).unwrap(), ["default 4950"]);
        assert_eq!(written(weight, &["io.bfq.weight"]).unwrap(), ["default 500"]);
        let rate = r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1024}]}}"#;
        assert_eq!(written(rate, &["io.max"]).unwrap(), ["8:0 rbps=1024"]);
        let pages =
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}],"unified":{"memory.high":"90"}}"#;
        assert_eq!(written(pages, &["hugetlb.2MB.max", "memory.high"]).unwrap(), ["4194304", "90"]);
        assert_eq!(
            written(r#"{"cpu":{"shares":0,"quota":0},"pids":{"limit":0},"memory":{"limit":0}}"#, &[])
                .unwrap(),
            [""; 0]
        );
    }

    #[test]
    fn what_version_2_cannot_do_is_an_error_and_no_swap_is_none_to_forbid() {
        assert_eq!(written(r#"{"memory":{"limit":100,"swap":100}}"#, &["memory.max"]).unwrap(), ["100"]);
        let refused = |json: &str, files: &[&str]| written(json, files).unwrap_err().to_string();
        assert!(
            refused(r#"{"memory":{"limit":100,"swap":101}}"#, &["memory.max"]).contains("memory.swap.max")
        );
        assert!(refused(r#"{"memory":{"swappiness":10}}"#, &[]).contains("swappiness"));
        assert!(refused(r#"{"memory":{"disableOOMKiller":true}}"#, &[]).contains("OOM"));
        assert!(refused(r#"{"cpu":{"realtimeRuntime":1}}"#, &[]).contains("realtime"));
        assert!(refused(r#"{"cpu":{"shares":2}}"#, &[]).contains("controller cpu "));
        let file = ["cgroup.procs", "x"];
        for name in ["cgroup.procs", "cgroup.kill", "x", "../x.y", "a/b.c", ".x"] {
            assert!(refused(&format!(r#"{{"unified":{{"{name}":"1"}}}}"#), &file).contains(name), "{name}");
        }
    }

    #[test]
    fn a_limit_below_what_is_used_is_refused_on_request() {
        let dir = group(&["memory.max"]);
        std::fs::write(dir.path().join("memory.current"), "200\n").unwrap();
        let limit = |json: &str| update(dir.path(), &serde_json::from_str(json).unwrap());
        let refused = limit(r#"{"memory":{"limit":199,"checkBeforeUpdate":true}}"#).unwrap_err().to_string();
        assert!(refused.contains("200 bytes"), "{refused}");
        limit(r#"{"memory":{"limit":200,"checkBeforeUpdate":true}}"#).unwrap();
        limit(r#"{"memory":{"limit":100}}"#).unwrap();
    }

    #[test]
    fn shares_and_weights_cover_the_whole_range() {
        assert_eq!([2, 1024, 262_144].map(weight_of_shares), [1, 39, 10_000]);
        assert_eq!([1, u64::MAX].map(weight_of_shares), [1, 10_000]);
        assert_eq!([10, 500, 1000].map(weight_of_block_io), [1, 4950, 10_000]);
    }

    #[test]
    fn swap_is_what_is_left_of_both() {
        assert_eq!(swap(Some(100), Some(300)).unwrap(), Some(200));
        assert_eq!(swap(Some(100), Some(100)).unwrap(), Some(0));
        assert_eq!(swap(Some(100), Some(-1)).unwrap(), Some(-1));
        assert_eq!(swap(Some(-1), None).unwrap(), Some(-1));
        assert_eq!(swap(Some(100), None).unwrap(), None);
        for (limit, both) in [(Some(100), 99), (None, 100), (Some(-1), 100)] {
            assert!(matches!(swap(limit, Some(both)), Err(Error::Invalid(_))), "{limit:?} {both}");
        }
    }
}
