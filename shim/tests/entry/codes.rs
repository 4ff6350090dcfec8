//! The codes of refusals, by which containerd decides what to do: asked over the socket, without a container.

use std::{fs, io::Write as _, os::unix::net::UnixStream};

use containerd_shim_protos::{
    api::{
        CheckpointTaskRequest, CloseIORequest, CreateTaskRequest, DeleteRequest, ExecProcessRequest,
        KillRequest, PauseRequest, PidsRequest, ResizePtyRequest, ResumeRequest, StartRequest, StateRequest,
        StatsRequest, UpdateTaskRequest, WaitRequest,
    },
    ttrpc::{self, Code, context},
};

use super::place::{LIMIT, NAMESPACE, Place, ask};

fn code<T: std::fmt::Debug>(what: &str, answer: ttrpc::Result<T>) -> (Code, String) {
    match answer {
        Err(ttrpc::Error::RpcStatus(status)) => (status.code(), status.message),
        other => panic!("{what}: {other:?}"),
    }
}

/// Asks each of these methods about a task that there is not.
macro_rules! asked_about_nobody {
    ($client:ident, $id:expr, $($method:ident: $request:ident),+ $(,)?) => {
        [$({
            let request = $request { id: $id.into(), ..$request::default() };
            let answer = $client.$method(context::with_duration(LIMIT), &request).await;
            (stringify!($method), code(stringify!($method), answer))
        }),+]
    };
}

#[test]
fn every_method_knows_that_there_is_no_such_task() {
    let place = Place::new();
    place.bundle("p", "p");
    let address = place.address("p");
    for id in ["nobody", "p", "../p", "--root=/", ""] {
        let codes = ask(&address, async |client| {
            asked_about_nobody! {
                client, id, state: StateRequest, start: StartRequest, delete: DeleteRequest, pids: PidsRequest,
                pause: PauseRequest, resume: ResumeRequest, checkpoint: CheckpointTaskRequest, kill: KillRequest,
                exec: ExecProcessRequest, resize_pty: ResizePtyRequest, close_io: CloseIORequest,
                update: UpdateTaskRequest, wait: WaitRequest, stats: StatsRequest,
            }
        });
        for (method, (code, message)) in codes {
            assert_eq!(code, Code::NOT_FOUND, "{method} of {id:?}: {message}");
            assert!(!message.contains('\n'), "{message:?}");
        }
    }
}

#[test]
fn what_cannot_be_created_is_refused_and_leaves_nothing() {
    let place = Place::new();
    let bundle = place.bundle("p", "p");
    let member = place.bundle("c", "p");
    let address = place.address("p");
    let image = place.state().with_file_name("image");
    fs::create_dir(&image).unwrap();
    let create = |id: &str, bundle: &str, image: &str| {
        let request = CreateTaskRequest {
            id: id.into(),
            bundle: bundle.into(),
            checkpoint: image.into(),
            ..CreateTaskRequest::default()
        };
        ask(&address, async |client| {
            code("create", client.create(context::with_duration(LIMIT), &request).await)
        })
    };
    let own = bundle.to_str().unwrap().to_owned();
    let member = member.to_str().unwrap().to_owned();
    for (id, bundle, image, expected, words) in [
        ("p", "/nowhere", "", Code::UNKNOWN, "/nowhere/config.json"),
        ("x", own.as_str(), "", Code::INVALID_ARGUMENT, "cannot be the"),
        ("../p", own.as_str(), "", Code::INVALID_ARGUMENT, "../p"),
        ("c", member.as_str(), "/nowhere", Code::UNIMPLEMENTED, "one container of several"),
        ("p", own.as_str(), image.to_str().unwrap(), Code::INVALID_ARGUMENT, "checkpoint.img"),
    ] {
        let (code, message) = create(id, bundle, image);
        assert_eq!(code, expected, "{id} {bundle}: {message}");
        assert!(message.contains(words) && !message.contains('\n'), "{message:?}");
    }
    for text in ["", "{ no json", "{\"ociVersion\": 7}", "[]"] {
        fs::write(bundle.join("config.json"), text).unwrap();
        assert_eq!(create("p", &own, "").0, Code::INVALID_ARGUMENT, "{text}");
    }
    // No id stays taken, and the shim has nothing to hold it.
    let pids = ask(&address, async |client| {
        let request = PidsRequest { id: "p".into(), ..PidsRequest::default() };
        code("pids", client.pids(context::with_duration(LIMIT), &request).await)
    });
    assert_eq!(pids.0, Code::NOT_FOUND);
    assert!(!place.state().join("shim").join(NAMESPACE).join("p").exists());
}

#[test]
fn bytes_that_are_no_message_end_a_connection_and_nothing_else() {
    let place = Place::new();
    place.bundle("p", "p");
    let address = place.address("p");
    let server = place.server();
    // A header of ttrpc: length, stream, kind, flags. Then lengths that no message has, and messages that are none.
    for header in [[0xff; 10], [0, 0, 0, 4, 0, 0, 0, 1, 1, 0], [0, 64, 0, 0, 0, 0, 0, 1, 1, 0], [0; 10]] {
        let mut stream = UnixStream::connect(address.strip_prefix("unix://").unwrap()).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        // It may hang up before it has read all.
        let _ = stream.write_all(&[&header[..], &[0xfe; 4096]].concat());
        drop(stream);
        let state = ask(&address, async |client| {
            code("state", client.state(context::with_duration(LIMIT), &StateRequest::new()).await)
        });
        assert_eq!(state.0, Code::NOT_FOUND);
    }
    assert_eq!(place.server(), server);
}
