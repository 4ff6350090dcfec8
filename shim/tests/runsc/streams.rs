//! Whose output goes where.

use std::{
    fs::File,
    io::{IoSliceMut, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::net::UnixListener,
    },
    path::Path,
};

use lattice_shim::runsc::Streams;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use oci_spec::runtime::Process;

use crate::place::{Place, oci_process};

pub(crate) async fn root_and_member_write_to_their_own_and_close_them(place: Place) {
    let (_, root) =
        place.run(&place.id, "echo root; echo root error >&2; exec sleep 600 >/dev/null 2>&1").await;
    let (_, member) = place.run("m", "echo member; echo member error >&2").await;
    assert_eq!(
        member.text().await,
        ("member\n".into(), "member error\n".into()),
        "while its sandbox goes on"
    );
    place.runsc.delete(&place.id).await.unwrap();
    place.runsc.delete("m").await.unwrap();
    assert_eq!(root.text().await, ("root\n".into(), "root error\n".into()));
    place.clean_up(&["m"]).await;
}

pub(crate) async fn a_terminal_is_sent_for_containers_and_execs(place: Place) {
    let path = place.pod.dir().join("console");
    let says = "[ -t 0 ] && [ -t 1 ] && read x && echo got $x; exit 5";
    let mut masters = Vec::new();
    for id in [place.id.as_str(), "m"] {
        let listener = listen(&path);
        let mut spec = place.spec(id, "exec sleep 600");
        spec["process"]["terminal"] = true.into();
        spec["process"]["args"][2] = format!("({says}); exec sleep 600").into();
        let bundle = place.bundle(id, &spec);
        let created = place.runsc.create(id, &bundle, Streams::Console(&path), None).await.unwrap();
        let master = accept(listener).await;
        place.start(id).await;
        // Without a master there is a hang-up.
        masters.push(talk(master).await);
        assert!(created.as_raw() > 1);
    }
    let listener = listen(&path);
    let mut process: Process = oci_process(says);
    process.set_terminal(Some(true));
    let dir = place.pod.bundle("m").unwrap();
    let (mut awaited, pid) = place.runsc.exec("m", &process, &dir, Streams::Console(&path)).await.unwrap();
    assert!(pid > 1);
    let master = accept(listener).await;
    let _master = talk(master).await;
    assert_eq!(awaited.exit().await.status, 5);
    place.clean_up(&["m"]).await;
}

fn listen(path: &Path) -> UnixListener {
    drop(std::fs::remove_file(path));
    // The path is longer than an address may be.
    let parent = File::open(path.parent().unwrap()).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    UnixListener::bind(format!("/proc/self/fd/{}/{name}", parent.as_raw_fd())).unwrap()
}

async fn accept(listener: UnixListener) -> File {
    let received = tokio::task::spawn_blocking(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut space = nix::cmsg_space!([i32; 1]);
        let mut text = [0; 256];
        let mut into = [IoSliceMut::new(&mut text)];
        let message =
            recvmsg::<()>(stream.as_raw_fd(), &mut into, Some(&mut space), MsgFlags::empty()).unwrap();
        let ControlMessageOwned::ScmRights(fds) = message.cmsgs().unwrap().next().unwrap() else {
            panic!("no descriptor came")
        };
        // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
        #[allow(unsafe_code)]
        File::from(unsafe { OwnedFd::from_raw_fd(fds[0]) })
    });
    received.await.unwrap()
}

async fn talk(mut master: File) -> File {
    let talked = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        let mut chunk = [0; 256];
        master.write_all(b"word\n").unwrap();
        while !text.contains("got word") {
            let n = master.read(&mut chunk).unwrap();
            text.push_str(std::str::from_utf8(&chunk[..n]).unwrap());
        }
        master
    });
    talked.await.unwrap()
}
