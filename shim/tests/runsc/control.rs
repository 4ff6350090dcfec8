//! The control socket, and doing without.

use std::{fs, path::PathBuf, time::Duration};

use lattice_shim::error::Error;

use crate::place::{Place, processes_with};

pub(crate) async fn a_wait_keeps_no_process(place: Place) {
    place.pause().await;
    place.run("m", "exec sleep 600").await;
    let before = processes_with(&place.root_flag());
    let mut waiting = Box::pin(place.runsc.wait("m"));
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut waiting).await.is_err());
    assert_eq!(processes_with(&place.root_flag()), before);
    place.runsc.kill("m", 15, None, false).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().status, 143);
    place.clean_up(&["m"]).await;
}

pub(crate) async fn the_command_answers_where_the_socket_does_not(place: Place) {
    let sandbox = place.pause().await;
    place.run("m", "trap 'exit 4' TERM; while :; do sleep 0.05; done").await;
    let files = hide_sockets(&place);
    let pids = place.runsc.processes("m").await.unwrap();
    assert!(!pids.is_empty());
    let missing = place.runsc.kill("m", 15, Some(4242), false).await.unwrap_err();
    assert!(matches!(missing, Error::NotFound(_)), "{missing}");
    let mut waiting = Box::pin(place.runsc.wait("m"));
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut waiting).await.is_err());
    place.runsc.kill("m", 15, None, false).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().status, 4);
    for (path, text) in files {
        fs::write(path, text).unwrap();
    }
    nix::sys::signal::kill(sandbox, nix::sys::signal::Signal::SIGKILL).unwrap();
    place.end(sandbox).await;
    assert_eq!(place.runsc.wait("m").await.unwrap(), None);
    place.clean_up(&["m"]).await;
}

/// Makes the driver find that another process listens than the sandbox; runsc itself does not look at that. Gives the files as they were:
/// whom they name, runsc may kill.
fn hide_sockets(place: &Place) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = place.records().into_iter().map(|name| place.pod.runsc_root().join(name));
    paths
        .map(|path| {
            let text = fs::read(&path).unwrap();
            let mut state: serde_json::Value = serde_json::from_slice(&text).unwrap();
            state["sandbox"]["pid"] = std::process::id().into();
            fs::write(&path, state.to_string()).unwrap();
            (path, text)
        })
        .collect()
}
