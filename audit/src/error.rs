//! What can go wrong with an audit file.

use std::{io, path::PathBuf};

use crate::MAX_LINE;

/// Why records cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The file cannot be opened or inspected.
    #[error("cannot open audit file {path}: {source}; choose another with --audit-file")]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else has, or may have, a hand in the file.
    #[error("refusing audit file {path}: it {why}; remove it or choose another with --audit-file")]
    Unsafe {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Another process writes it.
    #[error(
        "audit file {path} is being written by another process; end that one or choose another file with --audit-file"
    )]
    Locked {
        /// Which.
        path: PathBuf,
    },
    /// It holds something else than flow records, or its end is damaged.
    #[error("{path} does not end like an audit file; move it away or choose another with --audit-file")]
    Foreign {
        /// Which.
        path: PathBuf,
    },
    /// A record was not written. The file is as it was before.
    #[error(
        "cannot write audit file {path}: {source}; {lost} record(s) lost so far, \
         a gap record will say so: is the disk full?"
    )]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
        /// Records lost since the last success, this one included.
        lost: u64,
    },
    /// The record would be longer than any reader accepts.
    #[error(
        "a record for audit file {path} is longer than {MAX_LINE} bytes and was not written: \
         shorten the rule's text"
    )]
    TooLong {
        /// Which.
        path: PathBuf,
    },
    /// The file is no more where it was: what is written is read by nobody who looks there.
    #[error(
        "audit file {path} was deleted, moved or replaced while in use: what stands there now is not this sandbox's record"
    )]
    Deleted {
        /// Which.
        path: PathBuf,
    },
}

/// Where reading or verifying an audit file stopped.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct VerifyError {
    /// From 1; 0 when the file cannot be opened.
    pub line: u64,
    /// What is wrong there.
    pub why: Fault,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The file cannot be read.
    #[error("cannot read the audit file: {0}")]
    Io(#[from] io::Error),
    /// The line is too long.
    #[error("longer than {MAX_LINE} bytes: not a flow record")]
    TooLong,
    /// The line is no record.
    #[error("not a flow record: {0}")]
    Syntax(#[from] serde_json::Error),
    /// The last line has no end.
    #[error("incomplete: the writer was killed or is still writing")]
    Torn,
    /// The line before was changed, or lines were moved, inserted or taken out.
    #[error("the chain is broken: prev is {found}, but SHA-256 of the line above is {expected}")]
    Chain {
        /// What the line says.
        found: String,
        /// What it should say.
        expected: String,
    },
    /// The numbers do not count up.
    #[error("epoch {epoch} seq {seq} does not follow epoch {last_epoch} seq {last_seq}")]
    Sequence {
        /// Of this line.
        epoch: u64,
        /// Of this line.
        seq: u64,
        /// Of the line above.
        last_epoch: u64,
        /// Of the line above.
        last_seq: u64,
    },
}
