//! Audit files on a real file system.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::{FileExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use lattice_audit::{
    AuditError, AuditFile, Class, Entry, Fault, Flow, MAX_LINE, Summary, Timestamp, read, verify,
};
use lattice_policy::{Action, Direction, Reason, RuleId};
use tempfile::TempDir;

fn flow(action: Action) -> Flow {
    Flow {
        timestamp: Timestamp::now(),
        src: "10.42.0.3:49152".parse().unwrap(),
        dst: "10.42.0.10:8080".parse().unwrap(),
        proto: 6,
        direction: Direction::Egress,
        action,
        reason: Reason::RuleAllow,
        rule: RuleId(1),
        rule_text: Some("10.42.0.10/32:8080".into()),
        generation: 1,
        bytes: 60,
        name: None,
    }
}

fn open(path: &Path) -> Result<AuditFile, AuditError> {
    AuditFile::open(path, "demo-agent", Class::Kernel)
}

/// A directory and the path of an audit file in it, which holds `records` records that alternate between allow and
/// deny.
fn written(records: u64) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let mut file = open(&path).unwrap();
    for number in 1..=records {
        let action = if number % 2 == 1 { Action::Allow } else { Action::Deny };
        assert_eq!(file.append(&flow(action)).unwrap(), number);
    }
    file.sync().unwrap();
    (dir, path)
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

fn rewrite(path: &Path, lines: &[String]) {
    fs::write(path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

fn append_raw(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

#[test]
fn what_was_written_is_read_and_verified() {
    let (_dir, path) = written(5);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let expected = Summary { records: 5, epochs: 1, gaps: 0, lost: 0, allowed: 3, denied: 2 };
    assert_eq!(verify(&path).unwrap(), expected);
    let entries: Vec<Entry> = read(&path).unwrap().map(Result::unwrap).collect();
    assert_eq!(entries.len(), 5);
    let Entry::Flow(last) = &entries[4] else { panic!("a flow") };
    assert_eq!((last.seq, last.agent.as_str(), last.class), (5, "demo-agent", Class::Kernel));
}

#[test]
fn an_empty_file_is_unbroken() {
    let (_dir, path) = written(0);
    assert_eq!(verify(&path).unwrap(), Summary::default());
}

#[test]
fn a_restart_goes_on_with_the_chain_in_a_new_epoch() {
    let (_dir, path) = written(3);
    let mut file = open(&path).unwrap();
    assert_eq!(file.append(&flow(Action::Deny)).unwrap(), 1);
    drop(file);
    let expected = Summary { records: 4, epochs: 2, gaps: 0, lost: 0, allowed: 2, denied: 2 };
    assert_eq!(verify(&path).unwrap(), expected);
}

#[test]
fn a_reader_follows_a_growing_file() {
    let (_dir, path) = written(1);
    let mut entries = read(&path).unwrap();
    assert!(entries.next().unwrap().is_ok());
    assert!(entries.next().is_none());
    let mut file = open(&path).unwrap();
    file.append(&flow(Action::Allow)).unwrap();
    assert!(entries.next().unwrap().is_ok());
    assert!(entries.next().is_none());
}

#[test]
fn a_torn_line_is_cut_and_counted() {
    for torn in [&b"{"[..], br#"{"timestamp":"2026-"#, &[b'x'; MAX_LINE]] {
        let (_dir, path) = written(2);
        append_raw(&path, torn);
        let error = verify(&path).unwrap_err();
        assert!(matches!(error.why, Fault::Torn), "{error}");
        assert_eq!(error.line, 3);

        let mut file = open(&path).unwrap();
        assert_eq!(file.append(&flow(Action::Allow)).unwrap(), 2, "the gap record is the first");
        let expected = Summary { records: 3, epochs: 2, gaps: 1, lost: 1, allowed: 2, denied: 1 };
        assert_eq!(verify(&path).unwrap(), expected);
    }
}

#[test]
fn a_torn_first_line_is_cut_too() {
    let (_dir, path) = written(0);
    append_raw(&path, br#"{"timestamp":"2026-11-22T0"#);
    drop(open(&path).unwrap());
    let expected = Summary { epochs: 1, gaps: 1, lost: 1, ..Summary::default() };
    assert_eq!(verify(&path).unwrap(), expected);
}

#[test]
fn a_file_of_another_kind_is_left_alone() {
    for content in ["hello", "hello\n", "{\"a\":1}\n", "\n", &"x".repeat(5 * MAX_LINE), "\0\0\0\0"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes");
        fs::write(&path, content).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        let error = open(&path).unwrap_err();
        assert!(matches!(error, AuditError::Foreign { .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode(), mode);
    }
}

#[test]
fn refuses_links_pipes_devices_and_what_others_may_write() {
    let (dir, path) = written(1);
    let at = |name: &str| dir.path().join(name);
    let why = |path: &Path| match open(path) {
        Err(AuditError::Unsafe { why, .. }) => why,
        other => panic!("{other:?}"),
    };

    symlink(&path, at("symlink")).unwrap();
    assert!(why(&at("symlink")).contains("symbolic link"));
    symlink(at("nowhere"), at("dangling")).unwrap();
    assert!(why(&at("dangling")).contains("symbolic link"));
    assert!(!at("nowhere").exists());

    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(why(&at("fifo")).contains("not a regular file"));
    assert!(matches!(read(&at("fifo")).unwrap_err().why, Fault::Io(_)));
    assert!(why(Path::new("/dev/null")).contains("not a regular file"));
    assert!(matches!(open(dir.path()), Err(AuditError::Open { .. })));

    fs::hard_link(&path, at("other-name")).unwrap();
    assert!(why(&path).contains("other names"));
    fs::remove_file(at("other-name")).unwrap();

    for mode in [0o620, 0o602, 0o666] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert!(why(&path).contains("written by others"));
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    drop(open(&path).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn refuses_a_file_of_another_user() {
    assert!(nix::unistd::geteuid().is_root(), "needs CAP_CHOWN: run the tests as root");
    let (_dir, path) = written(1);
    std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(error, AuditError::Unsafe { why: "belongs to another user", .. }), "{error}");
}

#[test]
fn one_writer_at_a_time() {
    let (_dir, path) = written(1);
    let first = open(&path).unwrap();
    assert!(matches!(open(&path), Err(AuditError::Locked { .. })));
    drop(first);
    assert!(open(&path).is_ok());
}

#[test]
fn every_change_of_a_line_is_found() {
    let (_dir, path) = written(4);
    let original = lines(&path);
    let broken_at = |lines: &[String]| {
        rewrite(&path, lines);
        verify(&path).unwrap_err()
    };

    let mut changed = original.clone();
    changed[1] = changed[1].replace(r#""action":"deny""#, r#""action":"allow""#);
    assert_eq!(broken_at(&changed).line, 3, "a changed line");

    let mut reordered = original.clone();
    reordered.swap(1, 2);
    assert_eq!(broken_at(&reordered).line, 2, "two lines swapped");

    for gone in 0..3 {
        let mut shorter = original.clone();
        shorter.remove(gone);
        assert_eq!(broken_at(&shorter).line, gone as u64 + 1, "line {gone} taken out");
    }

    let mut twice = original.clone();
    twice.insert(2, original[1].clone());
    assert_eq!(broken_at(&twice).line, 3, "a line repeated");

    let mut blank = original.clone();
    blank.insert(2, String::new());
    assert_eq!(broken_at(&blank).line, 3, "a blank line");

    let mut long = original.clone();
    long.push("x".repeat(MAX_LINE + 1));
    assert!(matches!(broken_at(&long).why, Fault::TooLong));

    rewrite(&path, &original);
    assert_eq!(verify(&path).unwrap().records, 4);
}

#[test]
fn every_flipped_bit_is_found() {
    // The last line's content is protected by the line that comes after it, so the search ends before it.
    let (_dir, path) = written(3);
    let end: usize = lines(&path)[..2].iter().map(|line| line.len() + 1).sum();
    let bytes = fs::read(&path).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    for (at, byte) in bytes.iter().enumerate().take(end) {
        file.write_all_at(&[byte ^ 1 << (at % 8)], at as u64).unwrap();
        assert!(verify(&path).is_err(), "byte {at}");
        file.write_all_at(&[*byte], at as u64).unwrap();
    }
    assert!(verify(&path).is_ok());
}

#[test]
fn gaps_are_records_of_the_chain() {
    let (_dir, path) = written(1);
    let mut file = open(&path).unwrap();
    file.gap(17, "the ring buffer was full").unwrap();
    file.append(&flow(Action::Allow)).unwrap();
    let summary = verify(&path).unwrap();
    assert_eq!((summary.records, summary.gaps, summary.lost), (2, 1, 17));
}

#[test]
fn a_record_that_is_too_long_counts_as_lost() {
    let (_dir, path) = written(0);
    let mut file = open(&path).unwrap();
    let huge = Flow { rule_text: Some("x".repeat(MAX_LINE)), ..flow(Action::Allow) };
    assert!(matches!(file.append(&huge), Err(AuditError::TooLong { .. })));
    assert_eq!(file.lost(), 1);
    assert_eq!(file.append(&flow(Action::Allow)).unwrap(), 2);
    assert_eq!(file.lost(), 0);
    let summary = verify(&path).unwrap();
    assert_eq!((summary.records, summary.gaps, summary.lost), (1, 1, 1));
}

#[test]
fn a_deleted_file_is_noticed() {
    let (_dir, path) = written(0);
    let mut file = open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    file.append(&flow(Action::Allow)).unwrap();
    assert!(matches!(file.sync(), Err(AuditError::Deleted { .. })));
}
