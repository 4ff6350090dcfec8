//! A sandbox on which nothing moves costs next to nothing.

use std::{fs, thread, time::Duration};

use crate::{services::ECHO, streams::resident, world::World};
use std::io::{Read as _, Write as _};

const FLOWS: usize = 100;
/// Most resident memory with them, in KiB. The build is not optimized; what is shipped is measured by the benchmark.
const MEMORY: u64 = 64 << 10;
const WATCHED: Duration = Duration::from_secs(3);
/// Most times that any thread may run in that time. Heartbeats, keep-alives and clocks of seconds are far below; a loop is far above.
const TURNS: u64 = 150;

/// How often each thread of a process was given a processor, by its name.
fn turns(pid: u32) -> Vec<(String, u64)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a running process").flatten();
    let of = |path: &std::path::Path| {
        let status = fs::read_to_string(path.join("status")).unwrap_or_default();
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
        };
        let count = |name: &str| field(name).parse::<u64>().unwrap_or(0);
        (field("Name:"), count("voluntary_ctxt_switches:"))
    };
    threads.map(|thread| of(&thread.path())).collect()
}

#[test]
fn idle_flows_cost_little_memory_and_no_time() {
    let world = World::new();
    let user = world.user("agent");
    let pod = world.pod(&user, "agent", &[]);
    let client = world.client(&pod);
    let mut flows: Vec<_> = (0..FLOWS).map(|_| client.reach(world.far_ip, ECHO)).collect();
    let used = |flows: &mut Vec<std::net::TcpStream>| {
        for flow in flows {
            flow.write_all(b"x").unwrap();
            flow.read_exact(&mut [0]).unwrap();
        }
    };
    used(&mut flows);
    // What the last bytes are still to be acknowledged by, and the greeting of the peers.
    thread::sleep(Duration::from_secs(2));
    let before = turns(pod.process.pid());
    thread::sleep(WATCHED);
    let after = turns(pod.process.pid());
    let grown: Vec<(String, u64)> = before
        .iter()
        .zip(&after)
        .map(|((name, before), (_, after))| (name.clone(), after - before))
        .collect();
    let total: u64 = grown.iter().map(|(_, turns)| turns).sum();
    let memory = resident(pod.process.pid());
    println!("{FLOWS} idle flows: {memory} KiB; {total} turns in {WATCHED:?}: {grown:?}");
    assert!(memory < MEMORY, "{memory} KiB");
    assert!(total < TURNS, "{total} turns in {WATCHED:?}: {grown:?}");
    used(&mut flows);
    pod.end();
}
