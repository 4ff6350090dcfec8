//! The program `nft`, run in the agent's network namespace.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    os::fd::AsFd,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::memfd::{MFdFlags, memfd_create},
};

use crate::NftError;

/// Runs a closure in the agent's network namespace, on whichever thread, and returns when it is done.
pub type Enter = Arc<dyn Fn(&mut (dyn FnMut() + Send)) -> io::Result<()> + Send + Sync>;

/// Never looked up in `PATH`, which is the caller's.
const PROGRAMS: [&str; 4] = ["/usr/sbin/nft", "/sbin/nft", "/usr/local/sbin/nft", "/usr/bin/nft"];

/// Longest part of what `nft` says that goes into an error.
const MESSAGE: usize = 300;

/// How long `nft` may take, many times what the biggest policy does. Whoever changes a policy waits for it, also to take
/// rights away.
const PATIENCE: Duration = Duration::from_secs(30);

/// Most bytes that are read of what it prints: several times the counters of the biggest policy.
const MAX_OUTPUT: u64 = 64 << 20;

/// Between two looks at a child that has closed its output and is about to end.
const BREATH: Duration = Duration::from_micros(100);

#[derive(Clone)]
pub(crate) struct Nft {
    enter: Enter,
    program: &'static str,
    patience: Duration,
}

impl Nft {
    pub(crate) fn find(enter: Enter) -> Result<Self, NftError> {
        let program = PROGRAMS.into_iter().find(|path| Path::new(path).exists()).ok_or(NftError::NoNft)?;
        Ok(Self { enter, program, patience: PATIENCE })
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
        let mut complaint = in_memory("").map_err(fail)?;
        let stderr = complaint.try_clone().map_err(fail)?;
        command.args(arguments).env_clear().env("LC_ALL", "C").stdin(Stdio::from(script));
        command.stdout(Stdio::piped()).stderr(Stdio::from(stderr));
        let mut child = self.inside(|| command.spawn()).and_then(|child| child).map_err(fail)?;
        let done = finished(&mut child, Instant::now() + self.patience);
        let (status, stdout) = match done {
            Ok(done) => done,
            Err(error) => {
                let _gone = child.kill();
                // In the kernel even a killed program may stay for a while.
                let _ = thread::Builder::new().name("nft".into()).spawn(move || child.wait());
                return Err(fail(error));
            }
        };
        if status.success() {
            return Ok(stdout);
        }
        Err(refusal(doing, status, &text(&mut complaint).map_err(fail)?))
    }
}

/// What the child prints until it ends.
fn finished(child: &mut Child, deadline: Instant) -> io::Result<(ExitStatus, Vec<u8>)> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "it did not end in time and was killed");
    let left = || Some(deadline.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero());
    let mut stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let (mut printed, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let timeout = PollTimeout::try_from(left().ok_or_else(late)?).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(Errno::EINTR) => continue,
            ready => ready?,
        };
        match stdout.read(&mut buffer)? {
            0 => break,
            length => printed.extend(&buffer[..length]),
        }
        if printed.len() as u64 > MAX_OUTPUT {
            return Err(io::Error::other("it prints too much and was killed"));
        }
    }
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, printed));
        }
        left().ok_or_else(late)?;
        thread::sleep(BREATH);
    }
}

fn text(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(MAX_OUTPUT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A file, not a pipe: nobody needs to write while the program complains.
fn in_memory(text: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create("ruleset", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

fn refusal(doing: &'static str, status: ExitStatus, said: &str) -> NftError {
    if said.contains("Operation not permitted") {
        return NftError::NotPermitted { doing: "nftables", missing: "CAP_NET_ADMIN" };
    }
    let line = said.lines().find(|line| line.contains("Error:")).or(said.lines().next());
    let message = match line {
        Some(line) => {
            line.split_once("Error: ").map_or(line, |(_, error)| error).chars().take(MESSAGE).collect()
        }
        None => status.to_string(),
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
            refusal("make a table", status, stderr).to_string()
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

    /// `nft` replaced by a script of the shell.
    fn run(patience: Duration, script: &str) -> Result<Vec<u8>, NftError> {
        let enter: Enter = Arc::new(|work| {
            work();
            Ok(())
        });
        Nft { enter, program: "/bin/sh", patience }.run("test", &["-c", script], "")
    }

    #[test]
    fn a_program_that_hangs_is_killed() {
        for script in ["echo $$; exec sleep 1000", "echo $$; exec >&-; exec sleep 1000"] {
            let begun = Instant::now();
            let error = run(Duration::from_millis(200), script).unwrap_err();
            assert!(error.to_string().contains("did not end in time"), "{error}");
            assert!(begun.elapsed() < Duration::from_secs(500), "it waited for the end");
        }
    }

    #[test]
    fn what_it_prints_is_read_to_the_end_and_bounded() {
        let long = Duration::from_secs(300);
        let printed = run(long, "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2").unwrap();
        assert_eq!(printed.len(), 300_000);
        let error = run(long, "echo 'Error: no' >&2; exit 1").unwrap_err();
        assert!(error.to_string().starts_with("nft failed to test: no;"), "{error}");
        let error = run(long, "exec cat /dev/zero").unwrap_err();
        assert!(error.to_string().contains("prints too much"), "{error}");
    }
}
