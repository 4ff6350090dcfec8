//! `io.containerd.cgroups.v2.Metrics`.

use std::path::Path;

use containerd_shim_protos::{
    cgroups_v2::metrics::{
        CPUStat, HugeTlbStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, PSIData, PSIStats, PidsStat,
    },
    protobuf::MessageField,
};

use super::{
    Usage,
    files::{self, Table},
};
use crate::error::Result;

pub(super) fn read(group: &Path) -> Result<Metrics> {
    let mut metrics =
        Metrics { cpu: cpu(group)?.into(), memory: memory(group)?.into(), ..Metrics::default() };
    if let Some(current) = files::number(&group.join("pids.current"))? {
        let limit = files::number(&group.join("pids.max"))?.unwrap_or(u64::MAX);
        metrics.pids = MessageField::some(PidsStat { current, limit, ..PidsStat::default() });
    }
    if let Some(text) = files::read(&group.join("io.stat"))? {
        let usage = text.lines().filter_map(io_entry).collect();
        metrics.io = MessageField::some(IOStat { usage, psi: pressure(group, "io")?, ..IOStat::default() });
    }
    metrics.memory_events = Table::read(&group.join("memory.events"))?
        .map(|table| MemoryEvents {
            low: table.get("low"),
            high: table.get("high"),
            max: table.get("max"),
            oom: table.get("oom"),
            oom_kill: table.get("oom_kill"),
            oom_group_kill: table.get("oom_group_kill"),
            ..MemoryEvents::default()
        })
        .into();
    for pagesize in files::huge_page_sizes(group, "current") {
        let file = |name: &str| group.join(format!("hugetlb.{pagesize}.{name}"));
        let (current, max) =
            (files::number(&file("current"))?.unwrap_or(0), files::number(&file("max"))?.unwrap_or(u64::MAX));
        let failcnt = Table::read(&file("events"))?.unwrap_or_default().get("max");
        metrics.hugetlb.push(HugeTlbStat { current, max, failcnt, pagesize, ..HugeTlbStat::default() });
    }
    Ok(metrics)
}

/// runsc's count of a member container, which has no memory limit of its own to the kernel.
pub(super) fn of_member(usage: &Usage) -> Metrics {
    let memory = MemoryStat {
        anon: usage.memory,
        usage: usage.memory,
        usage_limit: u64::MAX,
        swap_limit: u64::MAX,
        ..MemoryStat::default()
    };
    Metrics {
        cpu: MessageField::some(CPUStat { usage_usec: usage.cpu / 1000, ..CPUStat::default() }),
        memory: MessageField::some(memory),
        pids: MessageField::some(PidsStat {
            current: usage.processes,
            limit: u64::MAX,
            ..PidsStat::default()
        }),
        ..Metrics::default()
    }
}

/// The kernel counts time also where the controller is off.
fn cpu(group: &Path) -> Result<Option<CPUStat>> {
    let Some(stat) = Table::read(&group.join("cpu.stat"))? else { return Ok(None) };
    Ok(Some(CPUStat {
        usage_usec: stat.get("usage_usec"),
        user_usec: stat.get("user_usec"),
        system_usec: stat.get("system_usec"),
        nr_periods: stat.get("nr_periods"),
        nr_throttled: stat.get("nr_throttled"),
        throttled_usec: stat.get("throttled_usec"),
        nr_bursts: stat.get("nr_bursts"),
        burst_usec: stat.get("burst_usec"),
        psi: pressure(group, "cpu")?,
        ..CPUStat::default()
    }))
}

fn memory(group: &Path) -> Result<Option<MemoryStat>> {
    let number = |name: &str| files::number(&group.join(format!("memory.{name}")));
    let Some(stat) = Table::read(&group.join("memory.stat"))? else { return Ok(None) };
    let get = |name: &str| stat.get(name);
    // One count for files and memory each since Linux 5.9.
    let both = |name: &str| match get(name) {
        0 => get(&format!("{name}_anon")).saturating_add(get(&format!("{name}_file"))),
        one => one,
    };
    Ok(Some(MemoryStat {
        anon: get("anon"),
        file: get("file"),
        kernel_stack: get("kernel_stack"),
        slab: get("slab"),
        sock: get("sock"),
        shmem: get("shmem"),
        file_mapped: get("file_mapped"),
        file_dirty: get("file_dirty"),
        file_writeback: get("file_writeback"),
        anon_thp: get("anon_thp"),
        inactive_anon: get("inactive_anon"),
        active_anon: get("active_anon"),
        inactive_file: get("inactive_file"),
        active_file: get("active_file"),
        unevictable: get("unevictable"),
        slab_reclaimable: get("slab_reclaimable"),
        slab_unreclaimable: get("slab_unreclaimable"),
        pgfault: get("pgfault"),
        pgmajfault: get("pgmajfault"),
        workingset_refault: both("workingset_refault"),
        workingset_activate: both("workingset_activate"),
        workingset_nodereclaim: get("workingset_nodereclaim"),
        pgrefill: get("pgrefill"),
        pgscan: get("pgscan"),
        pgsteal: get("pgsteal"),
        pgactivate: get("pgactivate"),
        pgdeactivate: get("pgdeactivate"),
        pglazyfree: get("pglazyfree"),
        pglazyfreed: get("pglazyfreed"),
        thp_fault_alloc: get("thp_fault_alloc"),
        thp_collapse_alloc: get("thp_collapse_alloc"),
        usage: number("current")?.unwrap_or(0),
        usage_limit: number("max")?.unwrap_or(u64::MAX),
        max_usage: number("peak")?.unwrap_or(0),
        swap_usage: number("swap.current")?.unwrap_or(0),
        swap_limit: number("swap.max")?.unwrap_or(u64::MAX),
        swap_max_usage: number("swap.peak")?.unwrap_or(0),
        psi: pressure(group, "memory")?,
        ..MemoryStat::default()
    }))
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and `full …`; nothing where the kernel does not measure it.
fn pressure(group: &Path, of: &str) -> Result<MessageField<PSIStats>> {
    let Some(text) = files::read(&group.join(format!("{of}.pressure")))? else {
        return Ok(MessageField::none());
    };
    let mut stats = PSIStats::default();
    for line in text.lines() {
        let Some((kind, values)) = line.split_once(' ') else { continue };
        let mut data = PSIData::default();
        for (name, value) in values.split(' ').filter_map(|pair| pair.split_once('=')) {
            match name {
                "avg10" => data.avg10 = value.parse().unwrap_or(0.0),
                "avg60" => data.avg60 = value.parse().unwrap_or(0.0),
                "avg300" => data.avg300 = value.parse().unwrap_or(0.0),
                "total" => data.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        match kind {
            "some" => stats.some = MessageField::some(data),
            "full" => stats.full = MessageField::some(data),
            _ => {}
        }
    }
    Ok(MessageField::some(stats))
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`; only the number for a device without traffic.
fn io_entry(line: &str) -> Option<IOEntry> {
    let (device, values) = line.split_once(' ').unwrap_or((line, ""));
    let (major, minor) = device.split_once(':')?;
    let mut entry = IOEntry { major: major.parse().ok()?, minor: minor.parse().ok()?, ..IOEntry::default() };
    for (name, value) in values.split(' ').filter_map(|pair| pair.split_once('=')) {
        let Ok(value) = value.parse() else { continue };
        match name {
            "rbytes" => entry.rbytes = value,
            "wbytes" => entry.wbytes = value,
            "rios" => entry.rios = value,
            "wios" => entry.wios = value,
            _ => {}
        }
    }
    Some(entry)
}

#[cfg(test)]
mod tests;
