//! Flow records: one line of JSON per verdict, in a file whose lines are chained by hash.
//!
//! ```text
//! {"timestamp":…,"srcIP":…,…,"epoch":E,"seq":1,…,"prev":"000…0"}
//! {"timestamp":…,"srcIP":…,…,"epoch":E,"seq":2,…,"prev":SHA-256 of the line above}
//! {"timestamp":…,"lost":3,"why":…,"epoch":E,"seq":3,"prev":SHA-256 of the line above}
//! ```
//!
//! The chain shows a line that was changed, moved, inserted or taken out. It cannot show that the end of the file
//! was cut at a line's end, or that the whole file was written anew: that takes a second place that remembers the
//! last hash, which is what shipping the records is for. Whoever opens the file again begins a new epoch, in which
//! `seq` counts from 1.
//!
//! A record that could not be written is counted, and a gap record says how many were lost as soon as one can be
//! written again.

#![forbid(unsafe_code)]

mod chain;
mod error;
mod file;
mod lines;
mod read;
pub mod record;
mod verify;

use std::path::PathBuf;

pub use error::{AuditError, Fault, VerifyError};
pub use file::AuditFile;
pub use jiff::Timestamp;
use lattice_wire::PeerName;
pub use read::{Entries, read};
pub use record::{Class, Entry, Flow, FlowRecord, GapRecord};
pub use verify::{Summary, verify};

/// Longest line, in bytes without its newline. Nothing longer is written or read.
pub const MAX_LINE: usize = 16 << 10;

/// Where the records of the sandbox `name` are kept unless configured otherwise.
pub fn default_path(name: &PeerName) -> PathBuf {
    format!("/tmp/lattice-audit-{name}.jsonl").into()
}
