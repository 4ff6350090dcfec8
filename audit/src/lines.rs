//! Lines of bounded length from a reader that may still grow.

use std::io::{self, BufRead};

use crate::MAX_LINE;

/// Splits a reader into lines without ever holding more than [`MAX_LINE`] bytes of one.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    reader: R,
    /// The line that is being gathered; kept when the reader ends, because more of it may come.
    line: Vec<u8>,
    too_long: bool,
    /// `line` was handed out and is to be cleared.
    taken: bool,
}

/// One whole line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// Without its newline.
    Whole(&'a [u8]),
    /// Longer than [`MAX_LINE`]; skipped.
    TooLong,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, line: Vec::new(), too_long: false, taken: false }
    }

    /// The next whole line; `None` when the reader has no more for now.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        if std::mem::take(&mut self.taken) {
            self.line.clear();
            self.too_long = false;
        }
        loop {
            let bytes = match self.reader.fill_buf() {
                Ok([]) => return Ok(None),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let newline = bytes.iter().position(|byte| *byte == b'\n');
            let part = &bytes[..newline.unwrap_or(bytes.len())];
            self.too_long |= self.line.len() + part.len() > MAX_LINE;
            if self.too_long {
                self.line.clear();
            } else {
                self.line.extend_from_slice(part);
            }
            let used = part.len() + usize::from(newline.is_some());
            self.reader.consume(used);
            if newline.is_some() {
                self.taken = true;
                let line = if self.too_long { Line::TooLong } else { Line::Whole(&self.line) };
                return Ok(Some(line));
            }
        }
    }

    /// Whether the reader ended within a line.
    pub(crate) fn is_torn(&self) -> bool {
        !self.taken && (self.too_long || !self.line.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    #[test]
    fn long_lines_are_skipped_and_torn_ones_kept_back() {
        let long = "x".repeat(MAX_LINE + 1);
        let text = format!("one\n\n{long}\n{}\ntorn", "y".repeat(MAX_LINE));
        for capacity in [1, 7, 1 << 20] {
            let mut lines = Lines::new(BufReader::with_capacity(capacity, text.as_bytes()));
            assert_eq!(lines.next().unwrap(), Some(Line::Whole(b"one")));
            assert_eq!(lines.next().unwrap(), Some(Line::Whole(b"")));
            assert_eq!(lines.next().unwrap(), Some(Line::TooLong));
            assert!(matches!(lines.next().unwrap(), Some(Line::Whole(line)) if line.len() == MAX_LINE));
            assert_eq!(lines.next().unwrap(), None);
            assert_eq!(lines.next().unwrap(), None);
            assert!(lines.is_torn());
        }
    }

    #[test]
    fn a_reader_that_ends_with_a_newline_is_not_torn() {
        let mut lines = Lines::new(&b"a\n"[..]);
        assert!(lines.next().unwrap().is_some());
        assert!(lines.next().unwrap().is_none());
        assert!(!lines.is_torn());
    }
}
