//! `io.containerd.cgroups.v1.Metrics`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use containerd_shim_protos::{
    cgroups::metrics::{
        BlkIOEntry, BlkIOStat, CPUStat, CPUUsage, HugetlbStat, MemoryEntry, MemoryOomControl, MemoryStat,
        Metrics, PidsStat, Throttle,
    },
    protobuf::MessageField,
};

use super::{
    Usage,
    files::{self, Table},
};
use crate::error::Result;

/// `cpuacct.stat` counts in units of which all of Linux's ABIs have 100 a second (times(2), `USER_HZ`).
const NANOSECONDS_PER_TICK: u64 = 1_000_000_000 / 100;
/// What the kernel says where memory has no limit: the greatest number of whole pages.
const NO_LIMIT: u64 = i64::MAX as u64 - 4095;

pub(super) fn read(groups: &BTreeMap<String, PathBuf>) -> Result<Metrics> {
    let group = |controller: &str| groups.get(controller).map(PathBuf::as_path);
    let mut metrics = Metrics { cpu: cpu(group("cpuacct"), group("cpu"))?.into(), ..Metrics::default() };
    if let Some(group) = group("memory") {
        metrics.memory = memory(group)?.into();
        let oom = Table::read(&group.join("memory.oom_control"))?;
        metrics.memory_oom_control = oom
            .map(|table| MemoryOomControl {
                oom_kill_disable: table.get("oom_kill_disable"),
                under_oom: table.get("under_oom"),
                oom_kill: table.get("oom_kill"),
                ..MemoryOomControl::default()
            })
            .into();
    }
    if let Some(group) = group("pids")
        && let Some(current) = files::number(&group.join("pids.current"))?
    {
        let limit = files::number(&group.join("pids.max"))?.unwrap_or(u64::MAX);
        metrics.pids = MessageField::some(PidsStat { current, limit, ..PidsStat::default() });
    }
    if let Some(group) = group("blkio").filter(|group| group.is_dir()) {
        metrics.blkio = MessageField::some(blkio(group)?);
    }
    if let Some(group) = group("hugetlb") {
        for pagesize in files::huge_page_sizes(group, "usage_in_bytes") {
            let number = |name: &str| {
                Ok(files::number(&group.join(format!("hugetlb.{pagesize}.{name}")))?.unwrap_or(0))
            };
            let (usage, max, failcnt) =
                (number("usage_in_bytes")?, number("max_usage_in_bytes")?, number("failcnt")?);
            metrics.hugetlb.push(HugetlbStat { usage, max, failcnt, pagesize, ..HugetlbStat::default() });
        }
    }
    Ok(metrics)
}

/// runsc's count of a member container, which has no memory limit of its own to the kernel.
pub(super) fn of_member(usage: &Usage) -> Metrics {
    let cpu = CPUUsage { total: usage.cpu, ..CPUUsage::default() };
    let entry = MemoryEntry { usage: usage.memory, limit: NO_LIMIT, ..MemoryEntry::default() };
    let memory = MemoryStat {
        rss: usage.memory,
        total_rss: usage.memory,
        hierarchical_memory_limit: NO_LIMIT,
        usage: MessageField::some(entry),
        ..MemoryStat::default()
    };
    Metrics {
        cpu: MessageField::some(CPUStat { usage: MessageField::some(cpu), ..CPUStat::default() }),
        memory: MessageField::some(memory),
        pids: MessageField::some(PidsStat {
            current: usage.processes,
            limit: u64::MAX,
            ..PidsStat::default()
        }),
        ..Metrics::default()
    }
}

fn cpu(cpuacct: Option<&Path>, cpu: Option<&Path>) -> Result<Option<CPUStat>> {
    let mut usage = None;
    if let Some(group) = cpuacct
        && let Some(total) = files::number(&group.join("cpuacct.usage"))?
    {
        let ticks = Table::read(&group.join("cpuacct.stat"))?.unwrap_or_default();
        let per_cpu = files::read(&group.join("cpuacct.usage_percpu"))?.unwrap_or_default();
        usage = Some(CPUUsage {
            total,
            user: ticks.get("user").saturating_mul(NANOSECONDS_PER_TICK),
            kernel: ticks.get("system").saturating_mul(NANOSECONDS_PER_TICK),
            per_cpu: per_cpu.split_whitespace().filter_map(|count| count.parse().ok()).collect(),
            ..CPUUsage::default()
        });
    }
    let throttling = match cpu {
        Some(group) => Table::read(&group.join("cpu.stat"))?,
        None => None,
    };
    let throttling = throttling.map(|table| Throttle {
        periods: table.get("nr_periods"),
        throttled_periods: table.get("nr_throttled"),
        throttled_time: table.get("throttled_time"),
        ..Throttle::default()
    });
    // containerd reads the usage of a message that is there without asking.
    Ok(usage.map(|usage| CPUStat {
        usage: MessageField::some(usage),
        throttling: throttling.into(),
        ..CPUStat::default()
    }))
}

fn memory(group: &Path) -> Result<Option<MemoryStat>> {
    let Some(stat) = Table::read(&group.join("memory.stat"))? else { return Ok(None) };
    let get = |name: &str| stat.get(name);
    let entry = |prefix: &str| -> Result<MessageField<MemoryEntry>> {
        let number = |name: &str| files::number(&group.join(format!("{prefix}.{name}")));
        let Some(usage) = number("usage_in_bytes")? else { return Ok(MessageField::none()) };
        Ok(MessageField::some(MemoryEntry {
            usage,
            limit: number("limit_in_bytes")?.unwrap_or(NO_LIMIT),
            max: number("max_usage_in_bytes")?.unwrap_or(0),
            failcnt: number("failcnt")?.unwrap_or(0),
            ..MemoryEntry::default()
        }))
    };
    Ok(Some(MemoryStat {
        cache: get("cache"),
        rss: get("rss"),
        rss_huge: get("rss_huge"),
        mapped_file: get("mapped_file"),
        dirty: get("dirty"),
        writeback: get("writeback"),
        pg_pg_in: get("pgpgin"),
        pg_pg_out: get("pgpgout"),
        pg_fault: get("pgfault"),
        pg_maj_fault: get("pgmajfault"),
        inactive_anon: get("inactive_anon"),
        active_anon: get("active_anon"),
        inactive_file: get("inactive_file"),
        active_file: get("active_file"),
        unevictable: get("unevictable"),
        hierarchical_memory_limit: get("hierarchical_memory_limit"),
        hierarchical_swap_limit: get("hierarchical_memsw_limit"),
        total_cache: get("total_cache"),
        total_rss: get("total_rss"),
        total_rss_huge: get("total_rss_huge"),
        total_mapped_file: get("total_mapped_file"),
        total_dirty: get("total_dirty"),
        total_writeback: get("total_writeback"),
        total_pg_pg_in: get("total_pgpgin"),
        total_pg_pg_out: get("total_pgpgout"),
        total_pg_fault: get("total_pgfault"),
        total_pg_maj_fault: get("total_pgmajfault"),
        total_inactive_anon: get("total_inactive_anon"),
        total_active_anon: get("total_active_anon"),
        total_inactive_file: get("total_inactive_file"),
        total_active_file: get("total_active_file"),
        total_unevictable: get("total_unevictable"),
        usage: entry("memory")?,
        swap: entry("memory.memsw")?,
        kernel: entry("memory.kmem")?,
        kernel_tcp: entry("memory.kmem.tcp")?,
        ..MemoryStat::default()
    }))
}

/// Of the schedulers' files, which went with CFQ, those that are there; of the throttle's, which always count, those with the
/// groups below where the kernel has them.
fn blkio(group: &Path) -> Result<BlkIOStat> {
    let list = |names: &[&str]| -> Result<Vec<BlkIOEntry>> {
        for name in names {
            let text = files::read(&group.join(format!("blkio.{name}")))?.unwrap_or_default();
            let entries: Vec<BlkIOEntry> = text.lines().filter_map(blkio_entry).collect();
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    };
    let bytes =
        ["io_service_bytes_recursive", "throttle.io_service_bytes_recursive", "throttle.io_service_bytes"];
    let operations = ["io_serviced_recursive", "throttle.io_serviced_recursive", "throttle.io_serviced"];
    Ok(BlkIOStat {
        io_service_bytes_recursive: list(&bytes)?,
        io_serviced_recursive: list(&operations)?,
        io_queued_recursive: list(&["io_queued_recursive"])?,
        io_service_time_recursive: list(&["io_service_time_recursive"])?,
        io_wait_time_recursive: list(&["io_wait_time_recursive"])?,
        io_merged_recursive: list(&["io_merged_recursive"])?,
        io_time_recursive: list(&["time_recursive"])?,
        sectors_recursive: list(&["sectors_recursive"])?,
        ..BlkIOStat::default()
    })
}

/// `8:0 Read 4096`, or without the operation. The sum of all devices has no device, and is left to the reader.
fn blkio_entry(line: &str) -> Option<BlkIOEntry> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (device, op, value) = match fields[..] {
        [device, op, value] => (device, op, value),
        [device, value] => (device, "", value),
        _ => return None,
    };
    let (major, minor) = device.split_once(':')?;
    Some(BlkIOEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        value: value.parse().ok()?,
        op: op.into(),
        device: device_name(device).unwrap_or_default(),
        ..BlkIOEntry::default()
    })
}

/// `/dev/sda` of `8:0`.
fn device_name(device: &str) -> Option<String> {
    let link = fs::read_link(Path::new("/sys/dev/block").join(device)).ok()?;
    Some(format!("/dev/{}", link.file_name()?.to_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_devices_are_read_with_and_without_operation() {
        let entry = blkio_entry("8:16 Read 4096").unwrap();
        assert_eq!((entry.major, entry.minor, entry.op.as_str(), entry.value), (8, 16, "Read", 4096));
        assert_eq!(blkio_entry("253:0 77").unwrap().value, 77);
        for other in ["Total 0", "8:0 Read", "8:0 Read 1 2", "", "x:y Read 1"] {
            assert_eq!(blkio_entry(other), None, "{other}");
        }
    }
}
