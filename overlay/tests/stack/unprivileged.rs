//! A user who has no right at all. Needs root, to become one.

use std::{
    fs::{self, File},
    net::SocketAddr,
    os::fd::AsRawFd,
    process::Command,
};

use lattice_overlay::{Netns, endpoints, link};
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    unistd::geteuid,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::pair::{pair, v4};

const USER: u32 = 12345;

#[test]
fn a_user_without_any_right_can_have_one() {
    // By descriptor: the way to the program may lead through folders that the user may not enter.
    let program = File::open("/proc/self/exe").unwrap();
    fcntl(&program, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let user = format!("--reuid={USER}");
    let status = Command::new("setpriv")
        .args([&user, "--regid=12345", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"])
        .args(["--no-new-privs", &format!("/proc/self/fd/{}", program.as_raw_fd())])
        .args(["--exact", "unprivileged::in_the_child", "--ignored", "--nocapture"])
        .current_dir("/")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&status.stdout);
    assert!(
        status.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&status.stderr)
    );
}

#[test]
#[ignore = "run by the test above, as another user"]
fn in_the_child() {
    assert_eq!(geteuid().as_raw(), USER);
    let status = fs::read_to_string("/proc/self/status").unwrap();
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    let (a, b) = pair();
    let serving = b.spawn(|network| async move {
        let mut stream = network.listen(80).request().await.accept().await.unwrap();
        stream.write_all(b"hello").await.unwrap();
    });
    b.run(|_| async {});
    let heard = a.run(|network| async move {
        let mut stream = network.connect(SocketAddr::new(v4(2), 80)).await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        heard
    });
    serving.wait();
    assert_eq!(heard, b"hello");
    let here = Netns::current().unwrap();
    endpoints(&here, 1).unwrap();
    assert!(link::addresses(&here).unwrap().iter().any(|(name, _)| name == "lo"));
}
