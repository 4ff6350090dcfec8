use std::{fs, path::PathBuf};

use crate::support::{Place, each_runsc, status_field};

const MIB: u64 = 1 << 20;

/// The sandbox's group directories, in every hierarchy.
fn groups(pid: u32) -> Vec<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let id = text.lines().find_map(|line| line.split('/').find(|part| part.starts_with("lattice-")));
    let Some(id) = id else { return vec![] };
    let roots = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
    roots
        .chain([PathBuf::from("/sys/fs/cgroup")])
        // Where there is version 2 alone, the limits are below the group whose calls are policed.
        .flat_map(|root| [root.join(id), root.join(id).join("agent")])
        .filter(|dir| dir.is_dir())
        .collect()
}

#[test]
fn limits_are_in_force_and_removed() {
    each_runsc(|runsc| {
        let place = Place::new();
        let mut spec = place.spec("echo up; exec sleep 600");
        spec.memory_bytes = Some(256 * MIB);
        spec.cpus = Some(0.5);
        spec.pids = Some(50);
        let (agent, ..) = place.start_and_await_line(runsc, &spec);
        let groups = groups(agent.sandbox_pid());
        let read = |v1: &str, v2: &str| {
            let found = groups.iter().find_map(|dir| {
                fs::read_to_string(dir.join(v1)).or_else(|_| fs::read_to_string(dir.join(v2))).ok()
            });
            found.unwrap_or_else(|| panic!("no {v1} in {groups:?}")).trim().to_owned()
        };
        assert_eq!(read("memory.limit_in_bytes", "memory.max"), (256 * MIB).to_string());
        assert!(["50000", "50000 100000"].contains(&read("cpu.cfs_quota_us", "cpu.max").as_str()));
        assert_eq!(read("pids.max", "pids.max"), "146");
        drop(agent);
        for group in groups {
            assert!(!group.exists(), "{} is left", group.display());
        }
    });
}

#[test]
fn memory_beyond_the_limit_ends_the_agent() {
    each_runsc(|runsc| {
        let place = Place::new();
        let mut spec = place.spec("dd if=/dev/zero of=/big bs=1M count=512; echo survived");
        spec.memory_bytes = Some(96 * MIB);
        let (mut agent, mut out, _err) = place.start(runsc, &spec);
        let sandbox = agent.sandbox_pid();
        let ended = agent.wait();
        eprintln!("{ended:?}");
        let mut text = String::new();
        std::io::Read::read_to_string(&mut out, &mut text).unwrap();
        assert!(!text.contains("survived"), "512 MiB were written under a limit of 96");
        assert_ne!(ended.unwrap_or(1), 0);
        drop(agent);
        assert_eq!(status_field(sandbox, "Pid"), None);
        assert!(place.left().is_empty());
    });
}
