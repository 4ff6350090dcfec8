//! The FIFO.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::PathBuf,
};

/// PIPE_BUF: what is no longer is written whole or not at all (`pipe(7)`).
const MAX_LINE: usize = 4096;
/// The end of a longer one.
const CUT: &[u8] = b" ...\n";

/// Takes one line per write. Opened at the first, and again when its reader was replaced.
#[derive(Debug)]
pub(super) struct Fifo {
    path: PathBuf,
    open: Option<File>,
    dropped: u64,
}

impl Fifo {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path, open: None, dropped: 0 }
    }

    fn line(&mut self, line: &[u8]) {
        let mut all = Vec::new();
        if self.dropped > 0 {
            // Together with the line: alone it would fit where lines do not, and fill the rest.
            all = format!("level=warning msg=\"{} lines of the log were lost\"\n", self.dropped).into_bytes();
        }
        all.extend_from_slice(line);
        if all.len() > MAX_LINE {
            all.truncate(MAX_LINE - CUT.len());
            all.extend_from_slice(CUT);
        }
        self.dropped = if self.try_write(&all) { 0 } else { self.dropped + 1 };
    }

    /// Tries the open FIFO, and once a newly opened one.
    fn try_write(&mut self, line: &[u8]) -> bool {
        for _ in 0..2 {
            if self.open.is_none() {
                self.open = self.reopen().ok();
            }
            match self.open.as_mut().map(|file| file.write(line)) {
                Some(Ok(_)) => return true,
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Some(Err(_)) => self.open = None,
                None => return false,
            }
        }
        false
    }

    /// Fails without a reader, instead of waiting for one.
    fn reopen(&self) -> io::Result<File> {
        let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let file = OpenOptions::new().write(true).custom_flags(flags).open(&self.path)?;
        if file.metadata()?.file_type().is_fifo() {
            Ok(file)
        } else {
            Err(io::ErrorKind::InvalidInput.into())
        }
    }
}

impl Write for Fifo {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    fn fifo() -> (tempfile::TempDir, Fifo) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        (dir, Fifo::at(path))
    }

    fn reader(fifo: &Fifo) -> File {
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo.path).unwrap()
    }

    fn read(reader: &mut File) -> String {
        let mut text = Vec::new();
        // It ends with "would block" or the end of the file.
        let _ = reader.read_to_end(&mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn lines_without_a_reader_are_counted_and_a_new_reader_is_found() {
        let (_dir, mut fifo) = fifo();
        fifo.line(b"one\n");
        fifo.line(b"two\n");
        let mut first = reader(&fifo);
        fifo.line(b"three\n");
        let text = read(&mut first);
        assert!(text.contains("2 lines") && text.ends_with("three\n"), "{text}");
        drop(first);
        fifo.line(b"four\n");
        let mut second = reader(&fifo);
        fifo.line(b"five\n");
        let text = read(&mut second);
        assert!(text.contains("1 lines") && text.ends_with("five\n"), "{text}");
    }

    #[test]
    fn a_reader_that_does_not_read_holds_nobody_up() {
        let (_dir, mut fifo) = fifo();
        let mut slow = reader(&fifo);
        let line = [b"x".repeat(999), b"\n".to_vec()].concat();
        (0..200).for_each(|_| fifo.line(&line));
        assert!(fifo.dropped > 100);
        assert!(read(&mut slow).lines().all(|line| line.len() == 999), "no line is torn");
        fifo.line(b"again\n");
        assert!(read(&mut slow).ends_with("again\n"));
    }

    #[test]
    fn a_long_line_is_cut_and_a_plain_file_is_left_alone() {
        let (dir, mut fifo) = fifo();
        let mut all = reader(&fifo);
        fifo.line(&b"y".repeat(10_000));
        let text = read(&mut all);
        assert!(text.len() == MAX_LINE && text.ends_with(" ...\n"));
        let plain = dir.path().join("plain");
        std::fs::write(&plain, "").unwrap();
        Fifo::at(plain.clone()).line(b"one\n");
        assert_eq!(std::fs::read(plain).unwrap(), b"");
    }
}
