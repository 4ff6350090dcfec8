//! Loggers that are shell scripts.

use std::{fs, os::unix::fs::PermissionsExt as _};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::*;

/// What a good one does, into the file that its argument names.
const GOOD: &str = r#"exec 5>&-; cat <&3 > "$2.out" & cat <&4 > "$2.err" & exec 3<&- 4<&-; wait
echo "$CONTAINER_NAMESPACE $CONTAINER_ID $*" > "$2""#;

impl Fifos {
    /// A logger of this script; its name for containerd, with where it logs to.
    pub(super) fn logger(&self, scheme: &str, script: &str) -> (String, PathBuf) {
        let (program, log) = (self.path("logger"), self.path("log"));
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        (format!("{scheme}://{}?log={}&plain", program.display(), log.display()), log)
    }
}

fn to_logger(name: &str) -> Stdio {
    Stdio { stdout: name.to_owned(), stderr: name.to_owned(), ..Stdio::default() }
}

#[tokio::test]
async fn a_logger_reads_both_outputs_to_their_end() {
    let fifos = Fifos::new();
    let (name, log) = fifos.logger("binary", GOOD);
    let (ends, copies) = fifos.open(&to_logger(&name)).await.unwrap();
    let mut process = fifos.shell("head -c 10485760 /dev/zero; echo error >&2", ends);
    assert_eq!(process.end().await, 0);
    within(copies.drain(LONG)).await;
    assert_eq!(fs::metadata(log.with_extension("out")).unwrap().len(), 10 << 20);
    assert_eq!(fs::read_to_string(log.with_extension("err")).unwrap(), "error\n");
    // The script's `$2` is the value of the first key; a key alone has an empty value.
    assert_eq!(fs::read_to_string(&log).unwrap(), format!("default a log {} plain \n", log.display()));
}

#[tokio::test]
async fn a_logger_that_does_not_end_is_ended() {
    let fifos = Fifos::new();
    let (name, log) = fifos.logger(
        "binary",
        "trap 'echo asked > \"$2\"' TERM; echo $$ > \"$2.pid\"; exec 5>&-; while :; do sleep 1; done",
    );
    let (ends, copies) = fifos.open(&to_logger(&name)).await.unwrap();
    drop(ends);
    within(copies.drain(Duration::from_secs(3))).await;
    assert_eq!(fs::read_to_string(&log).unwrap(), "asked\n");
    assert!(!is_alive(&log));
}

#[tokio::test]
async fn a_dropped_logger_ends() {
    let fifos = Fifos::new();
    let (name, log) =
        fifos.logger("binary", "trap '' TERM; echo $$ > \"$2.pid\"; exec 5>&-; while :; do sleep 1; done");
    let (_ends, copies) = fifos.open(&to_logger(&name)).await.unwrap();
    assert!(is_alive(&log));
    drop(copies);
    within(async {
        while is_alive(&log) {
            tokio::task::yield_now().await
        }
    })
    .await;
}

#[tokio::test]
async fn a_logger_that_fails_is_named() {
    let fifos = Fifos::new();
    let (name, _) = fifos.logger("binary-v2", "exit 1");
    let error = fifos.open(&to_logger(&name)).await.unwrap_err().to_string();
    assert!(error.contains("/logger") && error.contains("without a byte"), "{error}");
    let (name, _) = fifos.logger("binary-v2", "echo >&5; exec 5>&-; cat <&3 <&4");
    fifos.open(&to_logger(&name)).await.unwrap();

    let missing = fifos.name("missing");
    let error = fifos.open(&to_logger(&format!("binary://{missing}"))).await.unwrap_err().to_string();
    assert!(error.contains(&missing) && error.contains("No such file"), "{error}");
    let stdio = Stdio { stderr: name, ..Stdio::default() };
    assert!(fifos.open(&stdio).await.unwrap_err().to_string().contains("both"));
}

#[tokio::test]
async fn stderr_may_go_elsewhere() {
    let fifos = Fifos::new();
    let reader = fifos.reader("stderr");
    let (name, log) = fifos.logger("binary", GOOD);
    let stdio = Stdio { stderr: fifos.name("stderr"), ..to_logger(&name) };
    let (ends, copies) = fifos.open(&stdio).await.unwrap();
    assert_eq!(fifos.shell("echo out; echo error >&2", ends).end().await, 0);
    within(copies.drain(LONG)).await;
    assert_eq!(read_all(reader).await, b"error\n");
    assert_eq!(fs::read_to_string(log.with_extension("out")).unwrap(), "out\n");
    assert_eq!(fs::read_to_string(log.with_extension("err")).unwrap(), "");
}

#[tokio::test]
async fn a_logger_has_no_other_descriptor_of_ours() {
    let fifos = Fifos::new();
    let secret = fs::File::open("/proc/self/status").unwrap();
    fcntl(&secret, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let (name, log) = fifos.logger("binary", "exec 5>&-; readlink /proc/self/fd/* > \"$2\"");
    let (ends, copies) = fifos.open(&to_logger(&name)).await.unwrap();
    drop(ends);
    within(copies.drain(LONG)).await;
    let seen = fs::read_to_string(&log).unwrap();
    assert!(seen.contains("pipe:") && !seen.contains("status"), "{seen}");
}

fn is_alive(log: &std::path::Path) -> bool {
    let pid = fs::read_to_string(log.with_extension("pid")).unwrap();
    fs::exists(format!("/proc/{}/exe", pid.trim())).unwrap()
}
