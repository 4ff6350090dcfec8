//! Many pods with an identity, and nothing of them afterwards: neither on the node nor at the control plane.
//!
//! ```text
//! LATTICE_CRI_PODS=200 …          # 200 pods one after the other and 20 at once; 10 and 4 otherwise
//! ```

use std::{
    collections::BTreeSet,
    env,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use lattice_tests::{
    containerd::{Options, Pod},
    process::command,
};

use crate::{containerd_node::Node, world::wait_for};

/// How many one after the other; a tenth at once.
fn number() -> usize {
    env::var("LATTICE_CRI_PODS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

#[test]
fn many_pods_with_an_identity_leave_nothing() {
    let node = Node::new(true);
    // Its first pod makes what is made once.
    let before = node.daemon.remains();
    let theirs = || Theirs::of(&node);
    wait_for("the first pod's peer to go", || theirs().peers.len() == 1);
    let control = theirs();
    assert_eq!(control.peers.first().map(String::as_str), Some("tool"));

    let all = Mutex::new(Vec::new());
    for _ in 0..number() {
        note(&all, life(&node));
    }
    tell("one after the other", &all);
    node.daemon.assert_nothing_since(&before);

    all.lock().unwrap_or_else(PoisonError::into_inner).clear();
    thread::scope(|scope| {
        for _ in 0..(number() / 10).clamp(4, 20) {
            scope.spawn(|| note(&all, life(&node)));
        }
    });
    tell("at once", &all);
    node.daemon.assert_nothing_since(&before);
    wait_for("what the control plane has of pods to go", || theirs() == control);
    let kept = std::fs::read_dir(node.daemon.dir.path().join("credentials")).unwrap().flatten();
    assert_eq!(kept.map(|entry| entry.path()).collect::<Vec<_>>(), Vec::<PathBuf>::new(), "keys of pods");
}

/// One pod from beginning to end: the time that CRI's calls take, without the agent's own.
fn life(node: &Node) -> Duration {
    let begun = Instant::now();
    let pod = Pod::run(&node.daemon);
    let agent = pod.start("agent", &Options::default());
    let made = begun.elapsed();
    let group = node.group(&pod);
    assert_eq!(agent.shell("ip -o link show dev wg0 >&2 && echo up").0, "up\n", "{}", node.daemon.log());
    let begun = Instant::now();
    pod.remove();
    let taken = made + begun.elapsed();
    assert!(!group.exists(), "{}", group.display());
    taken
}

fn note(all: &Mutex<Vec<Duration>>, taken: Duration) {
    all.lock().unwrap_or_else(PoisonError::into_inner).push(taken);
}

fn tell(how: &str, all: &Mutex<Vec<Duration>>) {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner).clone();
    all.sort();
    let at = |percent: usize| all[(all.len() - 1) * percent / 100];
    println!("{} pods {how}: p50 {:?}, p99 {:?}, longest {:?}", all.len(), at(50), at(99), at(100));
}

/// What pods have at the control plane.
#[derive(Debug, PartialEq)]
struct Theirs {
    peers: BTreeSet<String>,
    /// Connections to NATS.
    connections: usize,
}

impl Theirs {
    fn of(node: &Node) -> Self {
        let peers = node.lab.admin(&["peer", "list", "--workspace", "demo", "--output", "json"]);
        let peers: Vec<serde_json::Value> = serde_json::from_str(&peers).unwrap();
        let mut ss = command(&node.lab.hub().path(), "ss".as_ref());
        let out = ss.args(["-Htn", "state", "established", "sport = :4222"]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        Self {
            peers: peers.iter().map(|peer| peer["name"].as_str().unwrap().to_owned()).collect(),
            connections: String::from_utf8_lossy(&out.stdout).lines().count(),
        }
    }
}
