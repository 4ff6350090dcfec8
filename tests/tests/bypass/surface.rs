//! Not packets: the policy, the routes, the way around them; what the host shows of itself.

use std::path::Path;

use crate::{
    Enforcer,
    cases::{UNNAMED, arrived, names},
    world::World,
};

const SURFACE: [&str; 11] = [
    "delete-route",
    "add-route",
    "link-down",
    "add-link",
    "forwarding",
    "ping-range",
    "bpf",
    "tun",
    "queue",
    "tables",
    "rewrite:/proc/sys/kernel/core_pattern",
];
/// Not every kernel has it.
const SYSRQ: &str = "/proc/sysrq-trigger";
/// Sends, and works for nobody: who makes a user namespace gives up what he could do outside it.
const OTHER_ROOT: &str = "other-root";
const OF_OTHER_ROOT: &str = "203.0.113.41";

#[test]
fn the_policy_cannot_be_taken_away_from_inside() {
    let world = World::new();
    let mut host = vec![
        // The file system of another process, and what the host runs.
        format!("read:/proc/{}/root{}", world.lab.latticed().pid(), world.marker().display()),
        format!("seen:{}", world.lab.data_dir().display()),
    ];
    if Path::new(SYSRQ).exists() {
        host.push(format!("open:{SYSRQ}"));
    }
    let surface: Vec<&str> = SURFACE.into_iter().chain(host.iter().map(String::as_str)).collect();
    let (native, _) = world.natively(&surface);
    let failed: Vec<_> = native.iter().filter(|result| result.result != "ok").collect();
    assert!(failed.is_empty(), "the twin could not either: {failed:?}");
    let mut all = surface.clone();
    all.extend(names(&UNNAMED));
    all.push(OTHER_ROOT);
    for enforcer in Enforcer::ALL {
        let (results, seen) = world.in_sandbox(enforcer, &all, enforcer.rules(&["tcp:203.0.113.7/32:443"]));
        assert_eq!(results.len(), all.len(), "{results:?}");
        let tried = results.iter().filter(|result| !UNNAMED.iter().any(|case| case.name == result.name));
        let done: Vec<_> = tried.filter(|result| result.result == "ok").collect();
        assert!(done.is_empty(), "{enforcer:?}: {done:?}");
        let leaked: Vec<_> =
            UNNAMED.iter().filter(|case| arrived(case, &seen)).map(|case| case.name).collect();
        assert!(leaked.is_empty(), "{enforcer:?}, after trying: {leaked:?} of {}", world.internet());
        let by_other_root = seen.iter().any(|packet| packet.dst.to_string() == OF_OTHER_ROOT);
        assert!(!by_other_root, "{enforcer:?}: as root of a user namespace");
    }
}
