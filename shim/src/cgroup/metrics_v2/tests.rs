//! Texts of Linux 6.12.

use std::fs;

use super::*;

const MEMORY_STAT: &str = "anon 1511424\nfile 2359296\nkernel 1093632\nkernel_stack 49152\npagetables 98304\nsec_pagetables 0\n\
    percpu 1440\nsock 4096\nvmalloc 0\nshmem 12288\nzswap 0\nzswapped 0\nfile_mapped 1335296\nfile_dirty 8192\nfile_writeback 0\n\
    swapcached 0\nanon_thp 2097152\nfile_thp 0\nshmem_thp 0\ninactive_anon 1490944\nactive_anon 32768\ninactive_file 2347008\n\
    active_file 16384\nunevictable 0\nslab_reclaimable 622592\nslab_unreclaimable 212992\nslab 835584\n\
    workingset_refault_anon 3\nworkingset_refault_file 4\nworkingset_activate_anon 0\nworkingset_activate_file 2\n\
    workingset_nodereclaim 0\npgscan 11\npgsteal 10\npgfault 4113\npgmajfault 7\npgrefill 5\npgactivate 6\npgdeactivate 1\n\
    pglazyfree 0\npglazyfreed 0\nthp_fault_alloc 1\nthp_collapse_alloc 0\n";

fn group(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

#[test]
fn all_controllers_are_read() {
    let dir = group(&[
        (
            "cpu.stat",
            "usage_usec 36414\nuser_usec 20807\nsystem_usec 15607\nnr_periods 9\nnr_throttled 4\nthrottled_usec 777\nnr_bursts 1\nburst_usec 2\n",
        ),
        (
            "cpu.pressure",
            "some avg10=1.50 avg60=0.75 avg300=0.20 total=99\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
        ),
        ("memory.stat", MEMORY_STAT),
        ("memory.current", "5000000\n"),
        ("memory.max", "16777216\n"),
        ("memory.peak", "6000000\n"),
        ("memory.swap.current", "0\n"),
        ("memory.swap.max", "max\n"),
        ("memory.events", "low 0\nhigh 0\nmax 63\noom 2\noom_kill 1\noom_group_kill 0\n"),
        ("pids.current", "3\n"),
        ("pids.max", "max\n"),
        ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n253:0 \n"),
        ("hugetlb.2MB.current", "0\n"),
        ("hugetlb.2MB.max", "max\n"),
        ("hugetlb.2MB.events", "max 8\n"),
        ("hugetlb.2MB.rsvd.current", "0\n"),
    ]);
    let metrics = read(dir.path()).unwrap();
    let cpu = &metrics.cpu;
    assert_eq!(
        (cpu.usage_usec, cpu.user_usec, cpu.system_usec, cpu.nr_throttled),
        (36_414, 20_807, 15_607, 4)
    );
    assert_eq!((cpu.throttled_usec, cpu.burst_usec), (777, 2));
    assert_eq!((cpu.psi.some.avg10, cpu.psi.some.total, cpu.psi.full.total), (1.5, 99, 5));
    let memory = &metrics.memory;
    assert_eq!((memory.usage, memory.usage_limit, memory.max_usage), (5_000_000, 16_777_216, 6_000_000));
    assert_eq!((memory.swap_usage, memory.swap_limit), (0, u64::MAX));
    assert_eq!((memory.anon, memory.inactive_file, memory.pgmajfault), (1_511_424, 2_347_008, 7));
    assert_eq!((memory.workingset_refault, memory.workingset_activate), (7, 2));
    assert_eq!((metrics.memory_events.oom, metrics.memory_events.oom_kill), (2, 1));
    assert_eq!((metrics.pids.current, metrics.pids.limit), (3, u64::MAX));
    let io: Vec<_> = metrics.io.usage.iter().map(|entry| (entry.major, entry.rbytes, entry.wios)).collect();
    assert_eq!(io, [(8, 1, 4), (253, 0, 0)]);
    assert_eq!(metrics.hugetlb.len(), 1);
    assert_eq!((metrics.hugetlb[0].pagesize.as_str(), metrics.hugetlb[0].failcnt), ("2MB", 8));
}

#[test]
fn controllers_that_are_off_are_left_out() {
    let dir = group(&[("cpu.stat", "usage_usec 1\nuser_usec 1\nsystem_usec 0\n")]);
    let metrics = read(dir.path()).unwrap();
    assert_eq!(metrics.cpu.usage_usec, 1);
    assert!(
        metrics.memory.is_none()
            && metrics.pids.is_none()
            && metrics.io.is_none()
            && metrics.memory_events.is_none()
    );
    assert!(metrics.hugetlb.is_empty() && metrics.cpu.psi.is_none());
}

#[test]
fn other_texts_are_no_numbers_and_no_panic() {
    let dir = group(&[
        ("cpu.stat", "usage_usec\nuser_usec x\n\n 7\nsystem_usec 99999999999999999999999\n"),
        ("cpu.pressure", "some avg10=x total\nhalf avg10=1\n\n"),
        ("pids.current", ""),
        ("io.stat", "8:0:1 rbytes=1\n:\nx\n1:2 rbytes=-1 =\n"),
    ]);
    let metrics = read(dir.path()).unwrap();
    assert_eq!((metrics.cpu.usage_usec, metrics.cpu.system_usec), (0, 0));
    assert!(metrics.pids.is_none());
    assert_eq!(metrics.io.usage.len(), 1);
}
