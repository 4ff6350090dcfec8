//! Where output goes, and what happens when nobody takes it.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::*;

/// More than all pipes on the way hold.
const MUCH: usize = 1 << 20;

/// What is left of a process that has closed the other two.
fn only_stdout(ends: ChildEnds) -> File {
    ends.stdout.into()
}

#[tokio::test]
async fn both_outputs_reach_their_readers_and_end() {
    let fifos = Fifos::new();
    let (stdout, stderr) = (fifos.reader("stdout"), fifos.reader("stderr"));
    let (ends, copies) = fifos.open(&fifos.stdio()).await.unwrap();
    let mut process = fifos.shell("echo out; echo error >&2; exit 7", ends);
    assert_eq!(tokio::join!(read_all(stdout), read_all(stderr)), (b"out\n".to_vec(), b"error\n".to_vec()));
    assert_eq!(process.end().await, 7);
    within(copies.drain(LONG)).await;
}

#[tokio::test]
async fn a_reader_that_goes_and_comes_back_misses_nothing() {
    let fifos = Fifos::new();
    let mut reader = fifos.reader("stdout");
    let (ends, _copies) = fifos.open(&fifos.stdio()).await.unwrap();
    let mut process = fifos.shell("head -c 1048576 /dev/zero | tr '\\0' 'x'; echo y", ends);
    let mut first = vec![0; 1000];
    within(reader.read_exact(&mut first)).await.unwrap();
    drop(reader);
    tokio::time::sleep(A_WHILE).await;
    let rest = read_all(fifos.reader("stdout")).await;
    assert_eq!(first.len() + rest.len(), MUCH + 2);
    assert!(rest.ends_with(b"xy\n"));
    assert_eq!(process.end().await, 0);
}

#[tokio::test]
async fn a_process_that_ends_while_its_reader_is_away_is_still_heard() {
    let fifos = Fifos::new();
    let (ends, copies) = fifos.open(&fifos.stdio()).await.unwrap();
    let mut process = fifos.shell("echo last words", ends);
    assert_eq!(process.end().await, 0);
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(read_all(fifos.reader("stdout")).await, b"last words\n");
    within(copies.drain(LONG)).await;
}

#[tokio::test]
async fn a_slow_reader_makes_the_process_wait() {
    let fifos = Fifos::new();
    let reader = fifos.reader("stdout");
    let (ends, _copies) = fifos.open(&fifos.stdio()).await.unwrap();
    let written = Arc::new(AtomicUsize::new(0));
    let (mut output, count) = (only_stdout(ends), Arc::clone(&written));
    let process = thread::spawn(move || {
        for piece in pattern(MUCH).chunks(1000) {
            output.write_all(piece).unwrap();
            count.fetch_add(piece.len(), Ordering::Relaxed);
        }
    });
    let mut before = usize::MAX;
    while before != written.load(Ordering::Relaxed) {
        before = written.load(Ordering::Relaxed);
        tokio::time::sleep(A_WHILE).await;
    }
    assert!(before <= 128 << 10, "{before} bytes are somewhere");
    assert!(read_all(reader).await == pattern(MUCH), "what was read is not what was written");
    process.join().unwrap();
}

#[tokio::test]
async fn drain_cuts_off_what_is_held_open() {
    let fifos = Fifos::new();
    let mut reader = fifos.reader("stdout");
    let (ends, copies) = fifos.open(&fifos.stdio()).await.unwrap();
    let _process = fifos.shell("echo here; sleep 600 & exit 0", ends);
    let mut said = [0; 5];
    within(reader.read_exact(&mut said)).await.unwrap();
    assert_eq!(&said, b"here\n");
    let rest = tokio::spawn(read_all(reader));
    tokio::time::sleep(A_WHILE).await;
    assert!(!rest.is_finished());
    within(copies.drain(Duration::from_millis(100))).await;
    assert_eq!(rest.await.unwrap(), b"");
}

#[tokio::test]
async fn drain_waits_for_a_slow_reader() {
    let fifos = Fifos::new();
    let reader = fifos.reader("stdout");
    let (ends, copies) = fifos.open(&fifos.stdio()).await.unwrap();
    let mut output = only_stdout(ends);
    let process = thread::spawn(move || output.write_all(&pattern(MUCH)));
    let read = async {
        tokio::time::sleep(A_WHILE).await;
        read_all(reader).await
    };
    let (read, ()) = tokio::join!(read, within(copies.drain(LONG)));
    assert!(read == pattern(MUCH), "what was read is not what was written");
    process.join().unwrap().unwrap();
}

#[tokio::test]
async fn drain_does_not_wait_for_readers_that_are_gone() {
    let fifos = Fifos::new();
    let (ends, copies) = fifos.open(&fifos.stdio()).await.unwrap();
    let mut output = only_stdout(ends);
    let process = thread::spawn(move || output.write_all(&pattern(MUCH)));
    tokio::time::sleep(A_WHILE).await;
    // Full, with a process that waits; then one that has ended, with words that nobody will read.
    within(copies.drain(LONG * 100)).await;
    assert!(process.join().unwrap().is_err());

    let (ends, copies) = fifos.open(&fifos.stdio()).await.unwrap();
    assert_eq!(fifos.shell("echo unread", ends).end().await, 0);
    tokio::time::sleep(A_WHILE).await;
    within(copies.drain(LONG * 100)).await;
}

#[tokio::test]
async fn files_are_appended_to_and_made_when_missing() {
    let fifos = Fifos::new();
    let made = fifos.path("logs/of a/log");
    let name = format!("file://{}", made.display()).replace(' ', "%20");
    for round in 1..=2 {
        let stdio = Stdio { stdout: name.clone(), stderr: name.clone(), ..Stdio::default() };
        let (ends, copies) = fifos.open(&stdio).await.unwrap();
        let mut process = fifos.shell("head -c 300000 /dev/zero; echo error >&2", ends);
        assert_eq!(process.end().await, 0);
        within(copies.drain(LONG)).await;
        assert_eq!(fs::read(&made).unwrap().len(), round * 300_006);
    }
    assert_eq!(fs::metadata(&made).unwrap().permissions().mode() & 0o133, 0);

    let there = fifos.path("there");
    fs::write(&there, "before\n").unwrap();
    let stdio = Stdio { stdout: there.to_str().unwrap().into(), ..Stdio::default() };
    let (ends, copies) = fifos.open(&stdio).await.unwrap();
    assert_eq!(fifos.shell("echo after; echo nowhere >&2", ends).end().await, 0);
    within(copies.drain(LONG)).await;
    assert_eq!(fs::read_to_string(&there).unwrap(), "before\nafter\n");
}
