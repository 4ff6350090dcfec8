//! Drives nft(8) inside a namespace.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::UplinkError;
use crate::Netns;

/// Where nft is looked for besides `PATH`, which often lacks these.
const USUAL: [&str; 2] = ["/usr/sbin", "/sbin"];

/// How long it may take: many times what it does on a host with thousands of rules. A start and an end wait for it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks whether it has ended.
const BREATH: Duration = Duration::from_millis(1);
/// Most bytes that are read of what it prints: all sets of the host.
const MAX_OUTPUT: u64 = 64 << 20;

/// An installed nft.
#[derive(Debug, Clone)]
pub(super) struct Nft(PathBuf);

impl Nft {
    pub(super) fn find() -> Result<Self, UplinkError> {
        let path = env::var_os("PATH").unwrap_or_default();
        let dirs = env::split_paths(&path).chain(USUAL.iter().map(PathBuf::from));
        let runnable = |file: &PathBuf| {
            file.is_absolute()
                && fs::metadata(file)
                    .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        };
        dirs.map(|dir| dir.join("nft")).find(runnable).map(Self).ok_or(UplinkError::NoNft)
    }

    pub(super) fn into_path(self) -> PathBuf {
        self.0
    }

    /// Applies `script` as one transaction; `what` names it for an error.
    pub(super) fn apply(&self, netns: &Netns, script: &str, what: &str) -> Result<(), UplinkError> {
        self.run(netns, &["-f", "-"], script, what).map(drop)
    }

    /// What nft prints for `args`.
    pub(super) fn ask(&self, netns: &Netns, args: &[&str], what: &str) -> Result<String, UplinkError> {
        self.run(netns, args, "", what)
    }

    fn run(
        &self,
        netns: &Netns,
        args: &[impl AsRef<OsStr> + Sync],
        input: &str,
        what: &str,
    ) -> Result<String, UplinkError> {
        let fail = |source| UplinkError::Run { program: self.0.clone(), source };
        // Files, not pipes: nobody has to read while it writes, or to write while it complains.
        let files = || Ok((in_memory(input)?, in_memory("")?, in_memory("")?));
        let (script, mut printed, mut complaint) = files().map_err(fail)?;
        let start = || {
            Command::new(&self.0)
                .args(args)
                .env_clear()
                .env("LC_ALL", "C")
                .stdin(script)
                .stdout(printed.try_clone()?)
                .stderr(complaint.try_clone()?)
                .spawn()
        };
        let child = netns.run(start).and_then(|child| child).map_err(fail)?;
        if ended(child, PATIENCE).map_err(fail)?.success() {
            return text(&mut printed).map_err(fail);
        }
        let answer = text(&mut complaint).map_err(fail)?;
        // Further lines only point into the script.
        let answer = answer.lines().next().unwrap_or("no answer").trim().to_owned();
        Err(UplinkError::Nft { what: what.to_owned(), answer })
    }
}

/// Waits for the end of a child, which is killed when it takes longer than `patience`.
fn ended(mut child: Child, patience: Duration) -> io::Result<ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            let _gone = child.kill();
            // In the kernel even a killed program may stay for a while.
            let _ = thread::Builder::new().name("nft".into()).spawn(move || child.wait());
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it did not end in time and was killed"));
        }
        thread::sleep(BREATH);
    }
}

fn in_memory(text: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create("nft", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

fn text(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(MAX_OUTPUT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_killed() {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id();
        let begun = Instant::now();
        let error = ended(child, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(500), "it waited for the end");
        while fs::exists(format!("/proc/{pid}")).unwrap() {
            thread::sleep(BREATH);
        }
    }

    #[test]
    fn what_it_prints_and_complains_is_read() {
        let nft = Nft("/bin/sh".into());
        let here = Netns::current().unwrap();
        let long = nft.ask(&here, &["-c", "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2"], "test");
        assert_eq!(long.unwrap().len(), 300_000);
        let refused = nft.ask(&here, &["-c", "echo no >&2; echo where >&2; exit 1"], "test").unwrap_err();
        assert!(matches!(&refused, UplinkError::Nft { answer, .. } if answer == "no"), "{refused}");
        assert_eq!(nft.run(&here, &["-c", "cat"], &"x".repeat(200_000), "test").unwrap().len(), 200_000);
    }
}
