//! The process that `start` leaves.

use std::{
    fs::{self, File, OpenOptions},
    io::Read as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use containerd_shim_protos::{
    api::{ConnectRequest, ShutdownRequest, StateRequest},
    ttrpc::{self, Code, context},
};
use nix::{
    sys::{
        signal::{Signal, kill},
        stat::Mode,
    },
    unistd::{getsid, mkfifo},
};

use super::place::{LIMIT, Place, ask, eventually};

#[test]
fn it_has_nothing_of_containerd_s_and_answers() {
    let place = Place::new();
    let bundle = place.bundle("p", "p");
    let address = place.address("p");
    let pid = place.server();
    assert_eq!(getsid(Some(pid)).unwrap(), pid, "a session of its own");
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), bundle.canonicalize().unwrap());
    for stream in 0..3 {
        assert_eq!(fs::read_link(format!("/proc/{pid}/fd/{stream}")).unwrap(), Path::new("/dev/null"));
    }
    let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    let names: Vec<_> = environment.split_terminator('\0').filter_map(|one| one.split('=').next()).collect();
    assert!(names.iter().all(|name| ["PATH", "TTRPC_ADDRESS"].contains(name)), "{names:?}");
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    assert_eq!(threads, 1);

    let state = ask(&address, async |client| {
        let request = StateRequest { id: "nobody".into(), ..StateRequest::default() };
        client.state(context::with_duration(LIMIT), &request).await
    });
    match state {
        Err(ttrpc::Error::RpcStatus(status)) => assert_eq!(status.code(), Code::NOT_FOUND),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_killed_one_is_replaced_at_the_same_address() {
    let place = Place::new();
    place.bundle("p", "p");
    let address = place.address("p");
    let first = place.server();
    kill(first, Signal::SIGKILL).unwrap();
    eventually("the shim is gone", || place.servers().is_empty());
    assert_eq!(place.address("p"), address);
    assert_ne!(place.server(), first);
    let _ = ask(&address, async |client| {
        client.connect(context::with_duration(LIMIT), &ConnectRequest::new()).await
    });
}

#[test]
fn it_ends_by_shutdown_or_signal_and_takes_its_socket_along() {
    let place = Place::new();
    place.bundle("p", "p");
    for by_signal in [true, false, true] {
        let address = place.address("p");
        let socket = address.strip_prefix("unix://").unwrap();
        if by_signal {
            kill(place.server(), Signal::SIGTERM).unwrap();
        } else {
            let request = ShutdownRequest { id: "p".into(), ..ShutdownRequest::default() };
            ask(&address, async |client| client.shutdown(context::with_duration(LIMIT), &request).await)
                .unwrap();
        }
        eventually("the shim is gone", || place.servers().is_empty());
        assert!(!Path::new(socket).exists());
    }
}

#[test]
fn its_log_is_containerd_s_fifo() {
    let place = Place::new();
    let bundle = place.bundle("p", "p");
    let fifo = bundle.join("log");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let mut reader: File = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo).unwrap();
    let flags = ["-namespace", "k8s.io", "-address", "/run/c.sock", "-id", "p", "-debug", "start"];
    assert!(place.run(&bundle, &flags, &place.options()).status.success());
    let mut text = Vec::new();
    // It ends with "would block": the shim holds the other end.
    eventually("the log says that the shim serves", || !place.servers().is_empty());
    let deadline = std::time::Instant::now() + LIMIT;
    while !String::from_utf8_lossy(&text).contains("the shim serves") {
        assert!(std::time::Instant::now() < deadline, "{}", String::from_utf8_lossy(&text));
        let _ = reader.read_to_end(&mut text);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.lines().all(|line| line.starts_with("time=\"") && line.contains(" level=")), "{text}");
}
