//! What must hold whatever fails: no program without the policy, none told of twice, nothing that stays.

use std::{
    collections::HashMap,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::{Duration, Instant},
};

use nix::{sys::signal::kill, unistd::Pid};
use oci_spec::runtime::Spec;
use serde_json::json;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    create, delete, exits, network,
    pod::{Container, Exec, Pod, Sandbox, Settings},
    process::{Phase, Process},
};
use crate::{
    annotations::Role, cgroup::Cgroup, config::Config, error::Error, events::Publisher, io::Stdio as Streams,
    reaper::Reaper,
};

/// For what should be at once.
const SOON: Duration = Duration::from_secs(60);

fn pod(dir: &Path) -> Arc<Pod> {
    let text = format!(
        "state_dir = {dir:?}\n[lattice]\nserver = \"http://192.0.2.1:8080\"\ncredentials_dir = {:?}\n",
        dir.join("credentials")
    );
    let settings = Settings {
        namespace: "test".into(),
        pod: "p".into(),
        config: Ok(Config::parse(&text).unwrap()),
        config_path: None,
        reaper: Reaper::start().unwrap(),
        publisher: Publisher::start(None, "test"),
    };
    let pod = Pod::new(settings).unwrap();
    pod.place.create().unwrap();
    Arc::new(pod)
}

fn spec(kind: Option<&str>) -> Spec {
    let annotations = kind.map_or(json!({}), |kind| json!({"io.kubernetes.cri.container-type": kind}));
    let namespaces = json!([{"type": "network", "path": "/run/netns/none"}]);
    let text =
        json!({"ociVersion": "1.1.0", "annotations": annotations, "linux": {"namespaces": namespaces}});
    serde_json::from_value(text).unwrap()
}

fn container(pod: &Arc<Pod>, id: &str, role: Role) -> Arc<Container> {
    let made = Arc::new(Container {
        id: id.into(),
        role,
        bundle: pod.place.dir().join("containerd"),
        place: pod.place.create_bundle(id).unwrap(),
        init: Process::new(String::new(), Streams::default()),
        execs: Mutex::new(HashMap::new()),
        cgroup: Cgroup::of_spec(Some("/lattice-test-none"), id),
        checkpoint: None,
        begun: watch::Sender::new(false),
        ending: watch::Sender::new(false),
        oom_told: AtomicU64::default(),
    });
    pod.reserve(id).unwrap().fill(made.clone());
    made
}

/// A process that runs until its standard input ends, with `arguments` that it does not read.
fn process(arguments: &[String]) -> Child {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "read line"]).args(arguments).stdin(Stdio::piped()).spawn().unwrap()
}

#[tokio::test]
async fn an_agent_never_waits_for_its_network_running() {
    let dir = tempfile::tempdir().unwrap();
    let pod = pod(dir.path());
    let refused = network::prepare(&pod, &spec(None), None).await.map(drop).unwrap_err().to_string();
    assert!(refused.contains("token"), "{refused}");
    assert!(network::check(&pod, Role::Root).await.is_err());
    assert!(network::prepare(&pod, &spec(Some("sandbox")), None).await.unwrap().is_none());
    network::check(&pod, Role::Root).await.unwrap();
    assert!(network::check(&pod, Role::Member).await.is_err());
    pod.close();
    assert!(network::check(&pod, Role::Root).await.is_err());
    assert!(network::prepare(&pod, &spec(Some("sandbox")), None).await.is_err());
}

#[tokio::test]
async fn nothing_starts_after_the_network_was_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let pod = pod(dir.path());
    network::prepare(&pod, &spec(Some("sandbox")), None).await.unwrap();
    container(&pod, "p", Role::Root);
    network::stop(&pod).await;
    let refused = super::start::start(pod, "p", "").await.unwrap_err().to_string();
    assert!(refused.contains("no network"), "{refused}");
}

#[tokio::test]
async fn a_sandbox_that_does_not_end_keeps_its_policy() {
    let dir = tempfile::tempdir().unwrap();
    let pod = pod(dir.path());
    network::prepare(&pod, &spec(Some("sandbox")), None).await.unwrap();
    container(&pod, "p", Role::Root);
    // Nobody tells of its end.
    let mut sandbox = process(&[]);
    pod.sandbox.send_replace(Sandbox { pid: sandbox.id(), exit: None });
    let failed = delete::delete(pod.clone(), "p", "").await;
    drop(sandbox.stdin.take());
    let _ = sandbox.wait();
    assert!(matches!(failed, Err(Error::Timeout { .. })), "{failed:?}");
    pod.container("p").unwrap();
    network::check(&pod, Role::Root).await.unwrap();
}

#[tokio::test]
async fn a_create_that_failed_leaves_no_sandbox_without_a_policy() {
    let dir = tempfile::tempdir().unwrap();
    let pod = pod(dir.path());
    let mut sandbox = process(&[format!("--root={}", pod.place.runsc_root().display())]);
    create::undo(&pod, "p", &dir.path().join("bundle"), &spec(None), Role::Root).await;
    let pid = Pid::from_raw(sandbox.id().cast_signed());
    let end = Instant::now() + SOON;
    while kill(pid, None).is_ok() && Instant::now() < end {
        sleep(Duration::from_millis(10)).await;
    }
    let is_gone = kill(pid, None).is_err();
    drop(sandbox.stdin.take());
    let _ = sandbox.wait();
    assert!(is_gone && !pod.place.dir().exists());
}

#[tokio::test]
async fn the_last_shim_leaves_no_state_for_a_group_that_stays_but_for_a_network() {
    let dir = tempfile::tempdir().unwrap();
    let pod = pod(dir.path());
    // No group, so it cannot be removed as one.
    let stays = dir.path().join("stays");
    std::fs::create_dir(&stays).unwrap();
    pod.note(|record| (record.cgroups, record.peer) = (vec![stays.clone()], Some("p".into()))).unwrap();
    delete::finish(&pod).await;
    assert!(pod.place.read().is_some());
    pod.note(|record| record.peer = None).unwrap();
    delete::finish(&pod).await;
    assert!(stays.exists() && !pod.place.dir().exists());
}

#[tokio::test]
async fn the_last_shim_leaves_no_state_for_a_group_that_somebody_else_has_removed() {
    let dir = tempfile::tempdir().unwrap();
    let pod = pod(dir.path());
    pod.note(|record| record.cgroups = vec![dir.path().join("gone")]).unwrap();
    delete::finish(&pod).await;
    assert!(!pod.place.dir().exists());
}

#[tokio::test]
async fn an_exec_that_is_deleted_unstarted_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let pod = pod(dir.path());
    let container = container(&pod, "a", Role::Member);
    let process = Process::new("e".into(), Streams::default());
    let spec = oci_spec::runtime::Process::default();
    let exec = Arc::new(Exec { process, spec });
    container.execs().insert("e".into(), exec.clone());
    delete::delete(pod, "a", "e").await.unwrap();
    assert_eq!(exec.process.phase(), Phase::Stopped);
    assert_eq!(timeout(SOON, exec.process.wait()).await.unwrap().status, 137);
}

/// One of which nobody hears that it ended.
#[tokio::test]
async fn the_end_of_a_late_exec_is_told_before_its_containers() {
    let dir = tempfile::tempdir().unwrap();
    let pod = pod(dir.path());
    let container = container(&pod, "a", Role::Member);
    let process_of_exec = Process::new("e".into(), Streams::default());
    let mut late = process(&[]);
    process_of_exec.born(late.id(), Some(2));
    process_of_exec.enter(Phase::Running);
    let spec = oci_spec::runtime::Process::default();
    let exec = Arc::new(Exec { process: process_of_exec, spec });
    container.execs().insert("e".into(), exec.clone());
    timeout(SOON, exits::tell(&pod, &container, exits::killed())).await.unwrap();
    let (of_exec, of_container) = (exec.process.exit(), container.init.exit());
    // The reaper may have it by now.
    let pid = Pid::from_raw(late.id().cast_signed());
    let is_gone = late.wait().is_err() || kill(pid, None).is_err();
    assert!(is_gone, "it is killed");
    assert_eq!(of_exec.map(|exit| exit.status), Some(137));
    assert!(of_container.is_some());
}

#[tokio::test]
async fn nobody_waits_for_a_container_that_was_deleted_unstarted() {
    let dir = tempfile::tempdir().unwrap();
    let pod = pod(dir.path());
    let made = container(&pod, "a", Role::Member);
    exits::watch(pod.clone(), made.clone());
    tokio::task::yield_now().await;
    exits::tell_locked(&pod, &made, exits::killed());
    pod.remove("a");
    let waiting = Arc::downgrade(&made);
    drop(made);
    let end = Instant::now() + SOON;
    while waiting.strong_count() > 0 && Instant::now() < end {
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(waiting.strong_count(), 0);
}
