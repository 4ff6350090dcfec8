//! The clocks of one process, as a test sets them: by a library that is loaded before libc. Its children take after it.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::tools;

/// Clocks of the commands that are given them.
pub struct Clock {
    dir: TempDir,
    file: File,
}

impl Clock {
    /// Clocks that are right. `None` where there is no C compiler, which is said.
    ///
    /// # Panics
    /// When there is no room for a file.
    pub fn new() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let source = tools::top().join("latticed/tests/control_plane/clock.c");
        let library = dir.path().join("clock.so");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(library).arg(source).stderr(Stdio::inherit());
        if !cc.status().is_ok_and(|status| status.success()) {
            println!("SKIPPED: a clock that is set: no C compiler (cc)");
            return None;
        }
        let clocks = dir.path().join("clocks");
        fs::write(&clocks, [0; 40]).expect("a file");
        let file = File::options().write(true).open(clocks).expect("the file");
        Some(Self { dir, file })
    }

    /// Has `command` go by these clocks.
    pub fn give(&self, command: &mut Command) {
        let path = |name: &str| Path::new(self.dir.path()).join(name);
        command.env("LD_PRELOAD", path("clock.so")).env("TEST_CLOCK", path("clocks"));
    }

    /// Sets the time of day so many seconds ahead of what it is.
    pub fn set(&self, ahead: i64) {
        self.write(0, ahead);
    }

    /// Has so many seconds passed since the machine was started, beside those that have. The kernel's own clock stays right.
    pub fn boot(&self, ahead: i64) {
        self.write(4, ahead);
    }

    fn write(&self, field: u64, value: i64) {
        self.file.write_all_at(&value.to_ne_bytes(), 8 * field).expect("the clocks");
    }
}
