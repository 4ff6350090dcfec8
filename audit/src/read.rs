//! Reading an audit file, also while it is being written.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use nix::libc;

use crate::{
    Entry, Fault, VerifyError,
    chain::Link,
    lines::{Line, Lines},
};

/// The entries of an audit file. After `None` there may be more once more was written.
#[derive(Debug)]
pub struct Entries {
    lines: Lines<BufReader<File>>,
    number: u64,
}

/// Opens the audit file at `path` for reading. The hash chain is not looked at: that is [`crate::verify()`].
///
/// # Errors
/// When `path` is not a regular file or cannot be opened.
pub fn read(path: &Path) -> Result<Entries, VerifyError> {
    let open = || {
        // Without O_NONBLOCK a named pipe in the file's place would block for ever.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(file)
    };
    let file = open().map_err(|error| VerifyError { line: 0, why: error.into() })?;
    Ok(Entries { lines: Lines::new(BufReader::new(file)), number: 0 })
}

/// A bad line does not end the iteration, except when the file cannot be read.
impl Iterator for Entries {
    type Item = Result<Entry, VerifyError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_with(|_, _| Ok(()))
    }
}

impl Entries {
    /// The next entry, once `check` has seen its link and the bytes it was read from.
    pub(crate) fn next_with(
        &mut self,
        check: impl FnOnce(&Link, &[u8]) -> Result<(), Fault>,
    ) -> Option<Result<Entry, VerifyError>> {
        let line = self.lines.next().transpose()?;
        self.number += 1;
        let entry = line.map_err(Fault::from).and_then(|line| match line {
            Line::TooLong => Err(Fault::TooLong),
            Line::Whole(bytes) => {
                let entry: Entry = serde_json::from_slice(bytes)?;
                check(&entry.link(), bytes)?;
                Ok(entry)
            }
        });
        Some(entry.map_err(|why| VerifyError { line: self.number, why }))
    }

    /// [`Fault::Torn`] when the file ends within a line.
    pub(crate) fn end(&self) -> Result<(), VerifyError> {
        let torn = VerifyError { line: self.number + 1, why: Fault::Torn };
        if self.lines.is_torn() { Err(torn) } else { Ok(()) }
    }
}
