//! Audit files, which whoever could write to them may have changed.

use std::{fs::File, io::Write as _, os::fd::AsRawFd as _, path::PathBuf};

use lattice_audit::{Entry, read, verify};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::json;

/// One line.
pub(crate) fn line(bytes: &[u8]) -> bool {
    json::read::<Entry>(bytes).is_some()
}

/// A whole file.
pub(crate) fn file(bytes: &[u8]) -> bool {
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    let memory = Memory::new(bytes);
    let entries = read(&memory.path()).expect("a file").count();
    assert_eq!(entries, lines, "each whole line is an entry or an error");
    let Ok(summary) = verify(&memory.path()) else { return false };
    assert_eq!(summary.records + summary.gaps, lines as u64);
    assert_eq!(summary.allowed + summary.denied, summary.records);
    assert!(summary.epochs <= lines as u64);
    assert!(bytes.is_empty() || bytes.ends_with(b"\n"));

    // Any other byte anywhere above the last line breaks the chain.
    let above =
        bytes[..bytes.len().saturating_sub(1)].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if above > 0 {
        let mut changed = bytes.to_vec();
        let at = bytes.iter().fold(0, |at: usize, byte| at.wrapping_mul(31) + usize::from(*byte)) % above;
        changed[at] ^= 1;
        assert!(verify(&Memory::new(&changed).path()).is_err(), "byte {at} was changed and nobody sees it");
    }
    true
}

/// A file that is on no disk.
struct Memory(File);

impl Memory {
    fn new(bytes: &[u8]) -> Self {
        let mut file = File::from(memfd_create("audit", MFdFlags::MFD_CLOEXEC).expect("memory for a file"));
        file.write_all(bytes).expect("memory for a file");
        Self(file)
    }

    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}
