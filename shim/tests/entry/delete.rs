//! Cleaning up after a shim, however it went.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use containerd_shim_protos::{api::DeleteResponse, protobuf::Message as _};
use lattice_shim::{
    delete::start_time,
    place::{PodPlace, Record},
};
use nix::sys::signal::{Signal, kill};

use super::place::{NAMESPACE, Place, eventually};

fn is_the_answer(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let response = DeleteResponse::parse_from_bytes(&output.stdout).unwrap();
    assert_eq!(response.exit_status, 137);
    assert!(response.exited_at.seconds > 0);
}

/// A process with the argument by which runsc's are known.
fn sandbox(root: &Path) -> Child {
    let mut shell = Command::new("/bin/sh");
    // It reads until its parent is gone.
    shell.args(["-c", "read line", &format!("--root={}", root.display())]).stdin(Stdio::piped());
    shell.spawn().unwrap()
}

/// Waits for its end by SIGKILL; to wait with std would close its standard input first, which ends it too.
fn was_killed(mut child: Child) {
    let status = std::cell::Cell::new(None);
    let child = std::cell::RefCell::new(&mut child);
    eventually("the sandbox is killed", || {
        status.set(child.borrow_mut().try_wait().unwrap());
        status.get().is_some()
    });
    assert_eq!(status.get().and_then(|status| status.signal()), Some(9));
}

fn pod(place: &Place, id: &str) -> PodPlace {
    PodPlace::new(&place.state(), NAMESPACE, id).unwrap()
}

#[test]
fn nothing_is_easily_deleted() {
    let place = Place::new();
    let bundle = place.bundle("p", "p");
    is_the_answer(&place.delete("p"));
    is_the_answer(&place.delete("p"));
    fs::write(bundle.join("config.json"), "{ no json").unwrap();
    is_the_answer(&place.delete("p"));
    fs::remove_file(bundle.join("config.json")).unwrap();
    is_the_answer(&place.delete("p"));
}

#[test]
fn what_a_killed_shim_left_is_removed() {
    let place = Place::new();
    place.bundle("p", "p");
    let address = place.address("p");
    let files = pod(&place, "p");
    files.create().unwrap();
    let pid = place.server().as_raw().cast_unsigned();
    files.write(&Record { pid, started: start_time(pid), ..Record::default() }).unwrap();
    let (ours, mut other) = (sandbox(&files.runsc_root()), sandbox(&files.runsc_root().join("other")));
    kill(place.server(), Signal::SIGKILL).unwrap();
    eventually("the shim is gone", || place.servers().is_empty());

    is_the_answer(&place.delete("p"));
    was_killed(ours);
    assert!(other.try_wait().unwrap().is_none(), "another sandbox lives on");
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(!files.dir().exists());
    assert!(!Path::new(address.strip_prefix("unix://").unwrap()).exists());
}

#[test]
fn a_shim_that_hangs_is_killed_but_not_who_has_its_pid() {
    let place = Place::new();
    place.bundle("p", "p");
    place.address("p");
    let files = pod(&place, "p");
    files.create().unwrap();
    let pid = place.server().as_raw().cast_unsigned();
    let record = Record { pid, started: start_time(pid), ..Record::default() };
    files.write(&Record { started: record.started + 1, ..record.clone() }).unwrap();
    is_the_answer(&place.delete("p"));
    assert_eq!(place.servers().len(), 1, "the record's process ended long ago");

    files.create().unwrap();
    files.write(&record).unwrap();
    kill(place.server(), Signal::SIGSTOP).unwrap();
    is_the_answer(&place.delete("p"));
    eventually("the shim is gone", || place.servers().is_empty());
}

#[test]
fn of_a_member_only_its_own_goes_while_the_shim_lives() {
    let place = Place::new();
    place.bundle("p", "p");
    place.bundle("c", "p");
    place.address("p");
    let address = place.address("c");
    let files = pod(&place, "p");
    files.create().unwrap();
    let pid = place.server().as_raw().cast_unsigned();
    files.write(&Record { pid, started: start_time(pid), ..Record::default() }).unwrap();
    let mut sandbox = sandbox(&files.runsc_root());
    is_the_answer(&place.delete("c"));
    assert!(sandbox.try_wait().unwrap().is_none());
    assert!(files.dir().exists() && place.servers().len() == 1);
    assert!(Path::new(address.strip_prefix("unix://").unwrap()).exists());

    // Without its shim nobody watches the pod: what runs in it ends with the first of its containers.
    kill(place.server(), Signal::SIGKILL).unwrap();
    eventually("the shim is gone", || place.servers().is_empty());
    let dir = files.create_bundle("c").unwrap();
    is_the_answer(&place.delete("c"));
    was_killed(sandbox);
    assert!(!dir.exists() && files.dir().exists());
}
