//! Writing an audit file.

mod open;

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    AuditError, Class, Entry, Flow, FlowRecord, GapRecord, MAX_LINE, Timestamp,
    chain::{Chain, Link},
};

/// Why a line was not written.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("a record was longer than {MAX_LINE} bytes")]
    TooLong,
}

/// An audit file that is open to write. Nobody else writes it: it is locked as long as this lives.
#[derive(Debug)]
pub struct AuditFile {
    path: PathBuf,
    file: File,
    agent: String,
    class: Class,
    chain: Chain,
    /// Length of the whole lines.
    len: u64,
    /// A failed write could not be cut off yet.
    torn: bool,
    /// Records lost since the last that was written, and why the first of them was.
    lost: u64,
    why: String,
    buffer: Vec<u8>,
}

impl AuditFile {
    /// Opens the file at `path`, made with mode 0600 when it is missing, and begins an epoch behind what it holds.
    ///
    /// A last line that was not written to its end is cut off and counted in a gap record.
    ///
    /// # Errors
    /// When the file is a symbolic link, not regular, has other names, belongs to somebody else or can be written by
    /// others; when another process writes it; when it does not end like an audit file; or when it cannot be opened.
    pub fn open(path: &Path, agent: &str, class: Class) -> Result<Self, AuditError> {
        let file = open::exclusive(path)?;
        let tail = open::tail(path, &file)?;
        open::make_private(path, &file)?;
        let mut chain = tail.chain;
        chain.begin_epoch(u64::try_from(Timestamp::now().as_microsecond()).unwrap_or_default());
        let mut this = Self {
            path: path.to_owned(),
            file,
            agent: agent.to_owned(),
            class,
            chain,
            len: tail.len,
            torn: tail.torn,
            lost: u64::from(tail.torn),
            why: "the line being written when the writer was killed".to_owned(),
            buffer: Vec::new(),
        };
        if tail.torn {
            // When this fails the loss stays counted, and the first record tries again.
            let _ = this.settle();
        }
        Ok(this)
    }

    /// Writes a record down. Returns its number within the epoch.
    ///
    /// # Errors
    /// When it cannot be written. It then counts as lost, the file ends as it did before, and the next success is
    /// preceded by a gap record with the count.
    pub fn append(&mut self, flow: &Flow) -> Result<u64, AuditError> {
        let (class, agent) = (self.class, self.agent.clone());
        let written = self
            .settle()
            .and_then(|()| self.write(|link| Entry::Flow(FlowRecord::new(flow, class, &agent, link))));
        written.map_err(|failure| self.failed(1, failure))
    }

    /// Writes down that `lost` records are missing here, for example because a ring buffer overran. Returns the
    /// number of the gap record.
    ///
    /// # Errors
    /// As [`AuditFile::append`]; the count is kept.
    pub fn gap(&mut self, lost: u64, why: &str) -> Result<u64, AuditError> {
        let written = self.settle().and_then(|()| self.write_gap(lost, why));
        written.map_err(|failure| self.failed(lost, failure))
    }

    /// Waits until everything written is on the disk.
    ///
    /// # Errors
    /// When the disk fails, or the file is no more where it was: deleted, moved or replaced.
    pub fn sync(&self) -> Result<(), AuditError> {
        let fail = |source| AuditError::Write { path: self.path.clone(), source, lost: self.lost };
        let ours = self.file.metadata().map_err(fail)?;
        let is_there = fs::symlink_metadata(&self.path)
            .is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()));
        if !is_there {
            return Err(AuditError::Deleted { path: self.path.clone() });
        }
        self.file.sync_data().map_err(fail)
    }

    /// How many records were lost that no gap record accounts for yet.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Brings the file into order after a failure: cuts off what was half written and accounts for what was lost.
    fn settle(&mut self) -> Result<(), Failure> {
        if self.torn {
            self.file.set_len(self.len)?;
            self.torn = false;
        }
        if self.lost > 0 {
            let why = self.why.clone();
            self.write_gap(self.lost, &why)?;
            self.lost = 0;
        }
        Ok(())
    }

    fn write_gap(&mut self, lost: u64, why: &str) -> Result<u64, Failure> {
        let (class, agent, why) = (self.class, self.agent.clone(), why.chars().take(512).collect());
        let timestamp = Timestamp::now();
        self.write(|Link { epoch, seq, prev }| {
            Entry::Gap(GapRecord { timestamp, lost, why, class, agent, epoch, seq, prev })
        })
    }

    /// Writes one line, whole or not at all.
    fn write(&mut self, entry: impl FnOnce(Link) -> Entry) -> Result<u64, Failure> {
        let link = self.chain.next();
        self.buffer.clear();
        serde_json::to_writer(&mut self.buffer, &entry(link.clone()))?;
        if self.buffer.len() > MAX_LINE {
            return Err(Failure::TooLong);
        }
        self.buffer.push(b'\n');
        if let Err(error) = self.file.write_all(&self.buffer) {
            self.torn = self.file.set_len(self.len).is_err();
            return Err(error.into());
        }
        self.len += self.buffer.len() as u64;
        self.buffer.pop();
        self.chain.advance(&link, &self.buffer);
        Ok(link.seq)
    }

    /// Counts what was not written.
    fn failed(&mut self, lost: u64, failure: Failure) -> AuditError {
        if self.lost == 0 {
            self.why = failure.to_string();
        }
        self.lost = self.lost.saturating_add(lost);
        let path = self.path.clone();
        match failure {
            Failure::Io(source) => AuditError::Write { path, source, lost: self.lost },
            Failure::Json(source) => AuditError::Write { path, source: source.into(), lost: self.lost },
            Failure::TooLong => AuditError::TooLong { path },
        }
    }
}

/// The last chance to write down what was lost.
impl Drop for AuditFile {
    fn drop(&mut self) {
        let _ = self.settle();
    }
}
