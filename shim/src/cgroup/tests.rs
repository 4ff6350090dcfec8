//! Against the kernel: groups of their own, removed also when a test panics.

mod group;
mod runsc;

use std::{fs, path::PathBuf, thread, time::Duration};

use containerd_shim_protos::{cgroups, cgroups_v2, protobuf::Message as _};
use oci_spec::runtime::LinuxResources;

use self::group::{Child, Group};
use super::*;

/// What both versions' messages say in common.
struct Seen {
    cpu_nanoseconds: u64,
    memory: Option<(u64, u64)>,
    pids: Option<(u64, u64)>,
}

fn decode(any: &Any) -> Seen {
    match any.type_url.as_str() {
        "io.containerd.cgroups.v1.Metrics" => {
            let metrics = cgroups::metrics::Metrics::parse_from_bytes(&any.value).unwrap();
            let memory = metrics.memory.as_ref().map(|memory| (memory.usage.usage, memory.usage.limit));
            let pids = metrics.pids.as_ref().map(|pids| (pids.current, pids.limit));
            Seen { cpu_nanoseconds: metrics.cpu.usage.total, memory, pids }
        }
        "io.containerd.cgroups.v2.Metrics" => {
            let metrics = cgroups_v2::metrics::Metrics::parse_from_bytes(&any.value).unwrap();
            let memory = metrics.memory.as_ref().map(|memory| (memory.usage, memory.usage_limit));
            let pids = metrics.pids.as_ref().map(|pids| (pids.current, pids.limit));
            Seen { cpu_nanoseconds: metrics.cpu.usage_usec * 1000, memory, pids }
        }
        other => panic!("{other}"),
    }
}

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

#[test]
fn metrics_tell_what_a_group_uses_and_its_limits() {
    let Some(group) = Group::new(&["memory", "pids", "cpu"]) else { return };
    group.cgroup.update(&resources(r#"{"memory":{"limit":67108864},"pids":{"limit":20}}"#)).unwrap();
    let mut child = Child::ready("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; read x");
    enter(&group.path, child.id()).unwrap();
    child.go();
    child.wait_for_line("done");
    let seen = decode(&group.cgroup.metrics().unwrap());
    assert!(seen.cpu_nanoseconds > 1_000_000, "{}", seen.cpu_nanoseconds);
    let (usage, limit) = seen.memory.unwrap();
    assert!((4096..67_108_864).contains(&usage) && limit == 67_108_864, "{usage} {limit}");
    assert_eq!(seen.pids, Some((1, 20)));
}

#[test]
fn version_1_has_throttling_each_processor_and_the_whole_of_memory() {
    let Some(group) = Group::new(&["memory", "cpu", "cpuacct"]) else { return };
    let Groups::V1(_) = &group.cgroup.0 else { return group::skipped("cgroups of version 1") };
    group.cgroup.update(&resources(r#"{"cpu":{"quota":1000,"period":20000}}"#)).unwrap();
    // The kernel puts its counts together when there are many, so there are to be many.
    let mut child = Child::ready("x=$(head -c 4000000 /dev/zero | tr '\\0' x); echo done; read y");
    enter(&group.path, child.id()).unwrap();
    child.go();
    child.wait_for_line("done");
    let any = group.cgroup.metrics().unwrap();
    let metrics = cgroups::metrics::Metrics::parse_from_bytes(&any.value).unwrap();
    assert!(metrics.cpu.throttling.throttled_periods > 0 && metrics.cpu.throttling.throttled_time > 0);
    let sum: u64 = metrics.cpu.usage.per_cpu.iter().sum();
    assert!(metrics.cpu.usage.per_cpu.len() > 1 || thread::available_parallelism().unwrap().get() == 1);
    assert!(sum > 0 && sum <= decode(&group.cgroup.metrics().unwrap()).cpu_nanoseconds);
    assert!(
        metrics.memory.total_rss > 1 << 20
            && metrics.memory.pg_fault > 0
            && metrics.memory.usage.max >= metrics.memory.usage.usage
    );
    assert_eq!((metrics.memory_oom_control.oom_kill, metrics.memory_oom_control.under_oom), (0, 0));
}

#[test]
fn what_the_host_does_not_count_is_left_out_and_a_group_that_is_gone_is_not_found() {
    let Some(group) = Group::new(&["pids"]) else { return };
    if let Groups::V1(groups) = &group.cgroup.0 {
        let only = groups
            .iter()
            .filter(|(name, _)| *name == "pids")
            .map(|(name, group)| (name.clone(), group.clone()));
        let seen = decode(&Cgroup(Groups::V1(only.collect())).metrics().unwrap());
        assert!(seen.memory.is_none() && seen.pids.is_some());
    }
    let missing = Cgroup::of_spec(Some("/lattice-test-missing/x"), "x");
    assert!(matches!(missing.metrics(), Err(Error::NotFound(_))));
    assert_eq!((missing.oom_kills(), missing.directories()), (0, Vec::new()));
    let outside = Cgroup::of_spec(Some("/../../etc"), "x");
    assert!(matches!(outside.metrics(), Err(Error::NotFound(_))));
    assert!(outside.update(&resources(r#"{"pids":{"limit":1}}"#)).is_err());
}

/// Version 2 beside version 1 has no controllers, and counts processors' time all the same.
#[test]
fn version_2_without_controllers_counts_time() {
    let Some(group) = Group::unified() else { return };
    let mut child = Child::ready("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; read x");
    group.put(&child);
    child.go();
    child.wait_for_line("done");
    let any = group.cgroup.metrics().unwrap();
    let metrics = cgroups_v2::metrics::Metrics::parse_from_bytes(&any.value).unwrap();
    assert!(metrics.cpu.usage_usec > 1000 && metrics.cpu.user_usec > 0, "{:?}", metrics.cpu);
    if !group.has("memory.max") {
        assert!(metrics.memory.is_none() && metrics.pids.is_none());
        let refused =
            group.cgroup.update(&resources(r#"{"memory":{"limit":1048576}}"#)).unwrap_err().to_string();
        assert!(refused.contains("memory.max") && refused.contains("subtree_control"), "{refused}");
    }
}

#[test]
fn metrics_of_a_member_are_what_the_sandbox_counts_in_the_hosts_version() {
    let usage = Usage { cpu: 5_000_000, memory: 4096, processes: 3 };
    for (groups, url) in [(Groups::V1(BTreeMap::new()), "v1"), (Groups::V2(PathBuf::from("/x")), "v2")] {
        let any = Cgroup(groups).metrics_of_member(&usage).unwrap();
        assert_eq!(any.type_url, format!("io.containerd.cgroups.{url}.Metrics"));
        let seen = decode(&any);
        assert_eq!((seen.cpu_nanoseconds, seen.pids), (5_000_000, Some((3, u64::MAX))));
        // containerd subtracts what is used from any limit below 2^60.
        assert!(seen.memory.is_some_and(|(usage, limit)| usage == 4096 && limit > 1 << 60));
    }
}

#[test]
fn limits_are_written_in_an_order_that_the_kernel_takes() {
    let Some(group) = Group::new(&["memory", "pids", "cpu"]) else { return };
    let Groups::V1(_) = &group.cgroup.0 else { return group::skipped("cgroups of version 1") };
    let update = |json: &str| group.cgroup.update(&resources(json)).unwrap();
    let memory = || {
        [
            group.number("memory", "memory.limit_in_bytes"),
            group.number("memory", "memory.memsw.limit_in_bytes"),
        ]
    };
    let has_swap = group.has("memory.memsw.limit_in_bytes");
    for (limit, both) in
        [(32 << 20, 64 << 20), (128 << 20, 128 << 20), (16 << 20, 16 << 20), (16 << 20, 20 << 20)]
    {
        update(&format!(
            r#"{{"memory":{{"limit":{limit},"swap":{}}}}}"#,
            if has_swap { both.to_string() } else { "-1".into() }
        ));
        assert_eq!(memory()[0], limit);
        assert!(!has_swap || memory()[1] == both);
    }
    update(r#"{"memory":{"limit":-1}}"#);
    assert!(memory().iter().all(|limit| *limit == 0 || *limit > 1 << 60), "{:?}", memory());

    update(r#"{"cpu":{"shares":512,"quota":20000,"period":50000,"cpus":"","mems":""},"pids":{"limit":7}}"#);
    let cpu = |file: &str| group.number("cpu", file);
    assert_eq!([cpu("cpu.shares"), cpu("cpu.cfs_quota_us"), cpu("cpu.cfs_period_us")], [512, 20_000, 50_000]);
    assert_eq!(group.number("pids", "pids.max"), 7);
    // What is not named, or 0, stays.
    update(r#"{"cpu":{"shares":0,"quota":0},"pids":{"limit":0},"devices":[{"allow":false,"access":"rwm"}]}"#);
    assert_eq!(
        [cpu("cpu.shares"), cpu("cpu.cfs_quota_us"), group.number("pids", "pids.max")],
        [512, 20_000, 7]
    );
    update(r#"{"cpu":{"quota":-1},"pids":{"limit":-1}}"#);
    assert_eq!([cpu("cpu.cfs_quota_us"), group.number("pids", "pids.max")], [u64::MAX; 2]);
}

#[test]
fn the_kernel_takes_limits_of_version_2() {
    let Some(group) = Group::new(&["memory", "pids", "cpu"]) else { return };
    let Groups::V2(directory) = &group.cgroup.0 else { return group::skipped("cgroups of version 2 alone") };
    let update = |json: &str| group.cgroup.update(&resources(json)).unwrap();
    let has = |file: &str, text: &str| {
        assert_eq!(std::fs::read_to_string(directory.join(file)).unwrap().trim(), text, "{file}");
    };
    let have = |files: [(&str, &str); 3]| files.iter().for_each(|(file, text)| has(file, text));
    for (limit, both) in [(32 << 20, 64 << 20), (128 << 20, 128 << 20), (16 << 20, 20 << 20)] {
        update(&format!(r#"{{"memory":{{"limit":{limit},"swap":{both}}}}}"#));
        has("memory.max", &limit.to_string());
        if group.has("memory.swap.max") {
            has("memory.swap.max", &(both - limit).to_string());
        }
    }
    update(r#"{"cpu":{"shares":512,"quota":20000,"period":50000,"cpus":"","mems":""},"pids":{"limit":7}}"#);
    have([("cpu.weight", "20"), ("cpu.max", "20000 50000"), ("pids.max", "7")]);
    // What is not named, or 0, stays.
    update(r#"{"cpu":{"shares":0,"quota":0},"pids":{"limit":0},"devices":[{"allow":false,"access":"rwm"}]}"#);
    have([("cpu.weight", "20"), ("cpu.max", "20000 50000"), ("pids.max", "7")]);
    update(r#"{"memory":{"limit":-1},"cpu":{"quota":-1},"pids":{"limit":-1}}"#);
    have([("memory.max", "max"), ("cpu.max", "max 50000"), ("pids.max", "max")]);
}

/// Half a processor above: each of these steps breaks that bound in one of both orders.
#[test]
fn quota_and_period_change_within_the_bound_of_the_group_above() {
    let Some(above) = Group::new(&["cpu"]) else { return };
    let Groups::V1(_) = &above.cgroup.0 else { return group::skipped("cgroups of version 1") };
    above.cgroup.update(&resources(r#"{"cpu":{"quota":50000,"period":100000}}"#)).unwrap();
    let below = above.below("below");
    for (quota, period) in [(50_000, 100_000), (5_000, 10_000), (250_000, 500_000), (1000, 2000)] {
        below.update(&resources(&format!(r#"{{"cpu":{{"quota":{quota},"period":{period}}}}}"#))).unwrap();
    }
    let refused =
        below.update(&resources(r#"{"cpu":{"quota":1900,"period":2000}}"#)).unwrap_err().to_string();
    assert!(refused.contains("cpu.cfs_quota_us") && refused.contains("\"1900\""), "{refused}");
}

#[test]
fn a_limit_that_cannot_be_kept_is_an_error_that_names_it() {
    let Some(group) = Group::new(&["pids"]) else { return };
    let refused = |json: &str| group.cgroup.update(&resources(json)).unwrap_err().to_string();
    let no_such = refused(r#"{"hugepageLimits":[{"pageSize":"3KB","limit":1}]}"#);
    assert!(no_such.contains("hugetlb.3KB"), "{no_such}");
    for name in ["../../x", "a/b"] {
        let hostile = refused(&format!(r#"{{"hugepageLimits":[{{"pageSize":"{name}","limit":1}}]}}"#));
        assert!(hostile.contains(name), "{hostile}");
    }
    assert!(refused(r#"{"network":{"classID":7}}"#).contains("network"));
    if let Groups::V1(_) = &group.cgroup.0 {
        assert!(refused(r#"{"unified":{"memory.max":"1"}}"#).contains("memory.max"));
        let none = Cgroup(Groups::V1(BTreeMap::new()))
            .update(&resources(r#"{"cpu":{"shares":2}}"#))
            .unwrap_err()
            .to_string();
        assert!(none.contains("cpu.shares") && none.contains("no cpu"), "{none}");
    }
}

#[tokio::test]
async fn running_out_of_memory_is_told_and_the_end_of_the_group_is_not() {
    const PATIENCE: Duration = Duration::from_secs(30);
    let Some(group) = Group::new(&["memory"]) else { return };
    let swap = group.has("memory.memsw.limit_in_bytes") || group.has("memory.swap.max");
    let both = if swap { 16 << 20 } else { -1 };
    group
        .cgroup
        .update(&resources(&format!(r#"{{"memory":{{"limit":{},"swap":{both}}}}}"#, 16 << 20)))
        .unwrap();
    let mut watch = group.cgroup.watch_oom().unwrap();
    assert_eq!(group.cgroup.oom_kills(), 0);
    assert!(tokio::time::timeout(Duration::from_millis(50), watch.next()).await.is_err());

    for kills in 1..=2 {
        // It keeps what it reads until there is a line, and there is none.
        let mut child = Child::ready("exec tail /dev/zero");
        enter(&group.path, child.id()).unwrap();
        child.go();
        tokio::time::timeout(PATIENCE, watch.next()).await.unwrap();
        assert_eq!(group.cgroup.oom_kills(), kills);
        assert_eq!(child.signal(), Some(libc::SIGKILL));
    }

    remove(&group.cgroup.directories()).unwrap();
    assert_eq!(group.cgroup.directories(), Vec::<PathBuf>::new());
    assert!(tokio::time::timeout(Duration::from_millis(300), watch.next()).await.is_err());
    assert!(group.cgroup.watch_oom().is_err());
}

/// The file is none of the kernel's, which this host may not have; the notification is.
#[tokio::test]
async fn version_2_tells_kills_only() {
    let dir = tempfile::tempdir().unwrap();
    let events = dir.path().join("memory.events");
    let text = |max: u64, kills: u64| {
        format!("low 0\nhigh 0\nmax {max}\noom {max}\noom_kill {kills}\noom_group_kill 0\n")
    };
    fs::write(&events, text(0, 1)).unwrap();
    let mut watch = OomWatch::v2(&events).unwrap();
    let soon = Duration::from_millis(100);
    fs::write(&events, text(5, 1)).unwrap();
    assert!(tokio::time::timeout(soon, watch.next()).await.is_err());
    fs::write(&events, text(6, 2)).unwrap();
    tokio::time::timeout(Duration::from_secs(30), watch.next()).await.unwrap();
    assert!(tokio::time::timeout(soon, watch.next()).await.is_err());
}

#[test]
fn groups_are_removed_with_those_in_them_once_nothing_runs() {
    let Some(group) = Group::new(&["pids"]) else { return };
    let inner = group.below("inner");
    let mut child = Child::ready("read x");
    enter(&group.path, child.id()).unwrap();
    let stays = remove(&group.cgroup.directories()).unwrap_err().to_string();
    assert!(
        group.cgroup.directories().iter().all(|group| stays.contains(group.to_str().unwrap())),
        "{stays}"
    );
    assert_eq!(inner.directories(), Vec::<PathBuf>::new());
    // It ends while the removal waits.
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(100));
            child.end();
        });
        remove(&group.cgroup.directories()).unwrap();
    });
    assert_eq!(group.cgroup.directories(), Vec::<PathBuf>::new());
    remove(&[group.directory("pids")]).unwrap();
}

#[test]
fn nothing_but_groups_is_removed() {
    let Some(group) = Group::new(&["pids"]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let group_dir = group.directory("pids");
    let hierarchy = group_dir.parent().unwrap().to_path_buf();
    let up =
        group_dir.join("..").join("..").join("..").join("..").join(dir.path().strip_prefix("/").unwrap());
    for other in [
        dir.path().into(),
        "/sys/fs/cgroup".into(),
        hierarchy,
        up,
        PathBuf::from("sys/fs/cgroup/pids/x"),
        "/".into(),
    ] {
        let refused = remove(&[group_dir.clone(), other.clone()]);
        assert!(matches!(refused, Err(Error::Invalid(_))), "{}: {refused:?}", other.display());
    }
    assert!(dir.path().is_dir() && group_dir.is_dir());
}

#[test]
fn a_shim_enters_its_group_in_every_hierarchy_that_has_it() {
    let Some(group) = Group::new(&["pids"]) else { return };
    let child = Child::ready("read x");
    enter(&group.path, child.id()).unwrap();
    for directory in group.cgroup.directories() {
        assert_eq!(fs::read_to_string(directory.join("cgroup.procs")).unwrap(), format!("{}\n", child.id()));
    }
    let missing = enter(Path::new("/lattice-test-missing"), child.id());
    assert!(matches!(missing, Err(Error::NotFound(_))));
    assert!(enter(Path::new("/"), child.id()).is_err());
}
