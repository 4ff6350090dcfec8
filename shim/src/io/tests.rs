//! Real FIFOs and processes. containerd's side is opened as containerd opens it, without blocking.

mod loggers;
mod outputs;
mod process;
mod terminals;

use std::{os::fd::AsFd, path::PathBuf};

use nix::{sys::stat::Mode, unistd::mkfifo};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::unix::pipe::{OpenOptions, Receiver, Sender},
    time::timeout,
};

use self::process::Process;
use super::*;

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(30);
/// Long enough that what should not happen mostly would have.
const A_WHILE: Duration = Duration::from_millis(200);

/// A directory with the three FIFOs that containerd makes, and this thread's reaper.
struct Fifos {
    dir: TempDir,
    reaper: Reaper,
}

impl Fifos {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["stdin", "stdout", "stderr"] {
            mkfifo(&dir.path().join(name), Mode::S_IRWXU).unwrap();
        }
        Self { dir, reaper: Reaper::start().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn name(&self, name: &str) -> String {
        self.path(name).into_os_string().into_string().unwrap()
    }

    fn stdio(&self) -> Stdio {
        let [stdin, stdout, stderr] = ["stdin", "stdout", "stderr"].map(|name| self.name(name));
        Stdio { stdin, stdout, stderr, terminal: false }
    }

    async fn open(&self, stdio: &Stdio) -> Result<(ChildEnds, Copies)> {
        within(stdio.open("default", "a", &self.reaper)).await
    }

    fn shell(&self, script: &str, ends: ChildEnds) -> Process {
        Process::shell(&self.reaper, script, ends)
    }

    fn reader(&self, name: &str) -> Receiver {
        OpenOptions::new().open_receiver(self.path(name)).unwrap()
    }

    fn writer(&self) -> Sender {
        OpenOptions::new().open_sender(self.path("stdin")).unwrap()
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(LONG, future).await.expect("nothing came of it")
}

async fn read_all(mut reader: Receiver) -> Vec<u8> {
    let mut all = Vec::new();
    within(reader.read_to_end(&mut all)).await.unwrap();
    all
}

/// Bytes in which a lost or doubled piece shows.
fn pattern(len: usize) -> Vec<u8> {
    (0_u32..).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).take(len).collect()
}

/// How many descriptors of this process are of the same pipe.
fn count_open(fd: &impl AsFd) -> usize {
    let ino = nix::sys::stat::fstat(fd).unwrap().st_ino;
    count_links(|target| target == format!("pipe:[{ino}]"))
}

fn count_links(is_meant: impl Fn(&str) -> bool) -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    links
        .filter(|link| std::fs::read_link(link.path()).is_ok_and(|to| to.to_str().is_some_and(&is_meant)))
        .count()
}

#[tokio::test]
async fn ten_megabytes_go_each_way() {
    let fifos = Fifos::new();
    let reader = fifos.reader("stdout");
    let (ends, copies) = fifos.open(&fifos.stdio()).await.unwrap();
    let _process = fifos.shell("exec cat", ends);
    let mut writer = fifos.writer();
    let send = async {
        within(writer.write_all(&pattern(10 << 20))).await.unwrap();
        drop(writer);
        copies.close_input();
    };
    let ((), received) = tokio::join!(send, read_all(reader));
    assert!(received == pattern(10 << 20), "{} bytes are not what was sent", received.len());
}

#[tokio::test]
async fn input_ends_by_close_input_and_not_with_a_writer() {
    let fifos = Fifos::new();
    let mut reader = fifos.reader("stdout");
    let (ends, copies) = fifos.open(&fifos.stdio()).await.unwrap();
    let mut process = fifos.shell("exec cat", ends);
    for line in [b"one\n", b"two\n"] {
        let mut writer = fifos.writer();
        within(writer.write_all(line)).await.unwrap();
        drop(writer);
        let mut seen = [0; 4];
        within(reader.read_exact(&mut seen)).await.unwrap();
        assert_eq!(&seen, line);
    }
    assert!(timeout(A_WHILE, reader.read_u8()).await.is_err(), "the input ended with its writer");
    copies.close_input();
    assert_eq!(read_all(reader).await, b"");
    assert_eq!(process.end().await, 0);
}

#[tokio::test]
async fn what_was_written_before_close_input_arrives() {
    let fifos = Fifos::new();
    let reader = fifos.reader("stdout");
    let (ends, copies) = fifos.open(&fifos.stdio()).await.unwrap();
    let mut writer = fifos.writer();
    within(writer.write_all(b"early")).await.unwrap();
    copies.close_input();
    within(writer.write_all(b" and late")).await.unwrap();
    drop(writer);
    let _process = fifos.shell("exec cat", ends);
    assert_eq!(read_all(reader).await, b"early and late");
}

#[tokio::test]
async fn nothing_named_is_dev_null() {
    let fifos = Fifos::new();
    let (ends, copies) = fifos.open(&Stdio::default()).await.unwrap();
    let mut process = fifos.shell("cat; echo out; echo error >&2", ends);
    assert_eq!(process.end().await, 0);
    within(copies.drain(LONG)).await;
}

#[tokio::test]
async fn what_cannot_be_opened_is_named() {
    let fifos = Fifos::new();
    let (file, missing) = (fifos.path("file"), fifos.name("missing"));
    std::fs::write(&file, "").unwrap();
    let dir = fifos.dir.path().to_str().unwrap().to_owned();
    for (stream, name) in [
        ("stdin", missing.clone()),
        ("stdin", file.into_os_string().into_string().unwrap()),
        ("stdin", "binary:///bin/true".into()),
        ("stdout", missing),
        ("stdout", dir.clone()),
        ("stderr", format!("file://{dir}")),
        ("stderr", "vsock://7".into()),
    ] {
        let mut stdio = Stdio::default();
        match stream {
            "stdin" => stdio.stdin.clone_from(&name),
            "stdout" => stdio.stdout.clone_from(&name),
            _ => stdio.stderr.clone_from(&name),
        }
        let error = fifos.open(&stdio).await.unwrap_err().to_string();
        let path = name.split_once("://").map_or(name.as_str(), |(_, path)| path);
        assert!(error.contains(stream) && error.contains(path), "{stream} {name}: {error}");
    }
}

#[tokio::test]
async fn no_descriptor_stays() {
    let fifos = Fifos::new();
    let (ends, copies) = fifos.open(&fifos.stdio()).await.unwrap();
    let pipe = ends.stdout.try_clone().unwrap();
    let dir = fifos.dir.path().to_str().unwrap();
    assert_eq!(count_open(&pipe), 3, "the process's, ours, this test's");
    assert_eq!(count_links(|to| to.starts_with(dir)), 6);
    drop(ends);
    copies.close_input();
    assert_eq!(count_links(|to| to.starts_with(dir)), 4);
    within(copies.drain(Duration::ZERO)).await;
    assert_eq!(count_open(&pipe), 1);
    assert_eq!(count_links(|to| to.starts_with(dir)), 0);
    within(copies.drain(LONG)).await;

    let (ends, copies) = fifos.open(&fifos.stdio()).await.unwrap();
    drop((ends, copies));
    let released = async {
        while count_links(|to| to.starts_with(dir)) > 0 {
            tokio::task::yield_now().await
        }
    };
    within(released).await;
}
