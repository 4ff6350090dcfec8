//! The program `nft`, run in the agent's network namespace.

use std::{
    fs::File,
    io::{self, Seek, Write},
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::NftError;

/// Runs a closure in the agent's network namespace, on whichever thread, and returns when it is done.
pub type Enter = Arc<dyn Fn(&mut (dyn FnMut() + Send)) -> io::Result<()> + Send + Sync>;

/// Never looked up in `PATH`, which is the caller's.
const PROGRAMS: [&str; 4] = ["/usr/sbin/nft", "/sbin/nft", "/usr/local/sbin/nft", "/usr/bin/nft"];

/// Longest part of what `nft` says that goes into an error.
const MESSAGE: usize = 300;

#[derive(Clone)]
pub(crate) struct Nft {
    enter: Enter,
    program: &'static str,
}

impl Nft {
    pub(crate) fn find(enter: Enter) -> Result<Self, NftError> {
        let program = PROGRAMS.into_iter().find(|path| Path::new(path).exists()).ok_or(NftError::NoNft)?;
        Ok(Self { enter, program })
    }

    /// Puts `script` in force, all of it or nothing.
    pub(crate) fn apply(&self, doing: &'static str, script: &str) -> Result<(), NftError> {
        self.run(doing, &["-f", "-"], script).map(drop)
    }

    /// Asks the kernel whether it would take `script`.
    pub(crate) fn check(&self, script: &str) -> Result<(), NftError> {
        self.run("check a rule", &["-c", "-f", "-"], script).map(drop)
    }

    /// What `nft` says to `arguments`, in JSON.
    pub(crate) fn ask(&self, doing: &'static str, arguments: &[&str]) -> Result<Vec<u8>, NftError> {
        self.run(doing, &[&["-j"], arguments].concat(), "")
    }

    /// Runs `work` in the agent's network namespace.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let (mut work, mut result) = (Some(work), None);
        (self.enter)(&mut || {
            if let Some(work) = work.take() {
                result = Some(work());
            }
        })?;
        result.ok_or_else(|| io::Error::other("the network namespace was not entered"))
    }

    fn run(&self, doing: &'static str, arguments: &[&str], script: &str) -> Result<Vec<u8>, NftError> {
        let fail = |source| NftError::Run { program: self.program, source };
        let script = in_memory(script).map_err(fail)?;
        let mut command = Command::new(self.program);
        command.args(arguments).env_clear().env("LC_ALL", "C").stdin(Stdio::from(script));
        let done = self.inside(|| command.output()).and_then(|done| done).map_err(fail)?;
        if done.status.success() { Ok(done.stdout) } else { Err(refusal(doing, &done)) }
    }
}

/// A file, not a pipe: nobody needs to write while the program complains.
fn in_memory(text: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create("ruleset", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

fn refusal(doing: &'static str, done: &Output) -> NftError {
    let said = String::from_utf8_lossy(&done.stderr);
    if said.contains("Operation not permitted") {
        return NftError::NotPermitted { doing: "nftables", missing: "CAP_NET_ADMIN" };
    }
    let line = said.lines().find(|line| line.contains("Error:")).or(said.lines().next());
    let message = match line {
        Some(line) => {
            line.split_once("Error: ").map_or(line, |(_, error)| error).chars().take(MESSAGE).collect()
        }
        None => done.status.to_string(),
    };
    NftError::Nft { doing, message }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn an_error_of_nft_is_one_line_that_says_what() {
        let told = |stderr: &str| {
            let status = std::process::ExitStatus::from_raw(1 << 8);
            refusal("make a table", &Output { status, stdout: Vec::new(), stderr: stderr.into() }).to_string()
        };
        let said = "/dev/stdin:3:5-9: Error: Could not process rule: No such file or directory\nadd rule x\n    ^^^\n";
        assert!(
            told(said).starts_with(
                "nft failed to make a table: Could not process rule: No such file or directory;"
            )
        );
        assert!(
            told("netlink: Error: cache initialization failed: Operation not permitted\n")
                .contains("CAP_NET_ADMIN")
        );
        assert!(told("").contains("exit status: 1"));
        assert!(told(&"x".repeat(10_000)).len() < 500);
    }
}
