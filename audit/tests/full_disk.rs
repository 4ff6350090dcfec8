//! An audit file on a file system without space: nothing is lost uncounted, and the chain stays whole.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    thread,
};

use lattice_audit::{AuditError, AuditFile, Class, Entry, Flow, Timestamp, read, verify};
use lattice_policy::{Action, Direction, Reason, RuleId};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// Runs `work` with a file system of 64 KiB mounted on its argument. Only this thread sees the mount, and it goes
/// when the thread ends.
fn on_a_tiny_disk(work: impl FnOnce(&Path) + Send + 'static) {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_owned();
    let thread = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).expect("needs CAP_SYS_ADMIN: run the tests as root");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).unwrap();
        work(&at);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn flow() -> Flow {
    Flow {
        timestamp: Timestamp::now(),
        src: "10.42.0.3:49152".parse().unwrap(),
        dst: "10.42.0.10:8080".parse().unwrap(),
        proto: 6,
        direction: Direction::Egress,
        action: Action::Deny,
        reason: Reason::DefaultDeny,
        rule: RuleId::NONE,
        rule_text: None,
        generation: 1,
        bytes: 60,
        name: None,
    }
}

/// Appends until the disk refuses a record. How many were written before it.
fn fill(file: &mut AuditFile) -> u64 {
    let mut written = 0;
    loop {
        match file.append(&flow()) {
            Ok(_) => written += 1,
            Err(AuditError::Write { source, .. }) if source.kind() == std::io::ErrorKind::StorageFull => {
                return written;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// A tiny disk that is nearly full, an audit file on it, and what to delete to make room.
fn nearly_full(dir: &Path) -> (PathBuf, PathBuf) {
    let ballast = dir.join("ballast");
    fs::write(&ballast, [0; 20_000]).unwrap();
    (dir.join("audit.jsonl"), ballast)
}

fn open(path: &Path) -> AuditFile {
    AuditFile::open(path, "demo-agent", Class::Kernel).unwrap()
}

#[test]
fn what_was_lost_is_counted_when_there_is_space_again() {
    on_a_tiny_disk(|dir| {
        let (path, ballast) = nearly_full(dir);
        let mut file = open(&path);
        let written = fill(&mut file);
        assert!(written > 10);
        for _ in 0..4 {
            assert!(file.append(&flow()).is_err());
            // A gap record is shorter than a flow record, so one may have found room where the other did not.
            let while_full = verify(&path).unwrap();
            assert_eq!(while_full.records, written);
        }
        assert_eq!(verify(&path).unwrap().lost + file.lost(), 5);

        fs::remove_file(&ballast).unwrap();
        file.append(&flow()).unwrap();
        let after = verify(&path).unwrap();
        assert_eq!((after.records, after.lost, file.lost()), (written + 1, 5, 0));
        for entry in read(&path).unwrap() {
            if let Entry::Gap(gap) = entry.unwrap() {
                assert!(gap.why.contains("No space left"), "{}", gap.why);
            }
        }
    });
}

#[test]
fn the_last_loss_is_written_down_at_the_end() {
    on_a_tiny_disk(|dir| {
        let (path, ballast) = nearly_full(dir);
        let mut file = open(&path);
        let written = fill(&mut file);
        fs::remove_file(&ballast).unwrap();
        drop(file);
        let summary = verify(&path).unwrap();
        assert_eq!((summary.records, summary.gaps, summary.lost), (written, 1, 1));
    });
}

#[test]
fn a_torn_line_stays_counted_while_the_disk_is_full() {
    on_a_tiny_disk(|dir| {
        let (path, ballast) = nearly_full(dir);
        fill(&mut open(&path));
        let before = verify(&path).unwrap();
        let mut torn = fs::OpenOptions::new().append(true).open(&path).unwrap();
        while torn.write_all(b"x").is_ok() {}

        let mut file = open(&path);
        fs::remove_file(&ballast).unwrap();
        file.append(&flow()).unwrap();
        let after = verify(&path).unwrap();
        assert_eq!((after.records, after.lost), (before.records + 1, before.lost + 1));
    });
}
