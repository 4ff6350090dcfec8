//! Drives nft(8) inside a namespace.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use super::UplinkError;
use crate::Netns;

/// Where nft is looked for besides `PATH`, which often lacks these.
const USUAL: [&str; 2] = ["/usr/sbin", "/sbin"];

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
        let start = || -> std::io::Result<_> {
            let mut child = Command::new(&self.0)
                .args(args)
                .env_clear()
                .env("LC_ALL", "C")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            // A script is far smaller than a pipe's buffer. It may also end before it has read it all.
            let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
            let out = child.wait_with_output()?;
            if out.status.success() {
                written?;
            }
            Ok(out)
        };
        let out = netns
            .run(start)
            .and_then(|out| out)
            .map_err(|source| UplinkError::Run { program: self.0.clone(), source })?;
        if out.status.success() {
            return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
        }
        let answer = String::from_utf8_lossy(&out.stderr);
        // Further lines only point into the script.
        let answer = answer.lines().next().unwrap_or("no answer").trim().to_owned();
        Err(UplinkError::Nft { what: what.to_owned(), answer })
    }
}
