//! Who may use the proxy: credentials from a private file or from the environment, never from the command line.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use lattice_bootstrap::{Failure, Kind};
use lattice_proxy::Credentials;
use nix::unistd::geteuid;
use zeroize::Zeroizing;

/// The variable that holds them where no file does.
pub(super) const VARIABLE: &str = "LATTICE_PROXY_AUTH";
/// More than the longest line of credentials.
const MAX_FILE: u64 = 1024;

/// Those of `file`, else those of the environment, else none.
pub(super) fn credentials(file: Option<&Path>) -> Result<Option<Credentials>, Failure> {
    let (text, origin) = match (file, std::env::var(VARIABLE)) {
        (Some(file), _) => (read(file)?, format!("--proxy-auth-file {}", file.display())),
        (None, Ok(text)) => (Zeroizing::new(text), VARIABLE.to_owned()),
        (None, Err(_)) => return Ok(None),
    };
    let line = text.strip_suffix('\n').unwrap_or(&text);
    line.parse().map(Some).map_err(|error| Failure::new(Kind::Usage, format!("{origin}: {error}")))
}

/// The text of a file that nobody but this user can read.
fn read(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let refused =
        |why: String| Failure::new(Kind::Usage, format!("--proxy-auth-file {}: {why}", path.display()));
    let failed = |error: io::Error| refused(format!("cannot read it: {error}"));
    // O_NONBLOCK: a FIFO in its place must not make us wait.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file: File = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(refused("not a regular file".into()));
    }
    if meta.uid() != geteuid().as_raw() || meta.mode() & 0o077 != 0 {
        return Err(refused(format!(
            "may be read by others (owner {}, mode {:o}): chown it to this user and chmod 600, or use {VARIABLE}",
            meta.uid(),
            meta.mode() & 0o7777
        )));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_FILE).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    const GOOD: &str = "merlin:0123456789abcdef\n";

    #[test]
    fn only_a_private_file_of_one_line_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth");
        let with = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            credentials(Some(&path)).map(|found| found.is_some()).map_err(|failure| failure.message)
        };
        assert_eq!(with(GOOD, 0o600), Ok(true));
        assert_eq!(with(GOOD.trim_end(), 0o400), Ok(true));
        for mode in [0o640, 0o604, 0o660] {
            assert!(with(GOOD, mode).unwrap_err().contains("may be read by others"), "{mode:o}");
        }
        for (text, why) in [
            ("", "expected USER:PASSWORD"),
            ("merlin\n", "expected USER:PASSWORD"),
            ("merlin:short\n", "openssl rand"),
            ("merlin:0123456789abcdef\nmore\n", "control character"),
        ] {
            let told = with(text, 0o600).unwrap_err();
            assert!(told.contains(why), "{text:?}: {told}");
            assert!(!told.contains("merlin") && !told.contains("0123456789"), "it tells the secret: {told}");
        }
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for odd in [link.as_path(), dir.path(), &dir.path().join("missing"), Path::new("/dev/zero")] {
            assert!(credentials(Some(odd)).is_err(), "{}", odd.display());
        }
    }

    #[test]
    fn a_file_of_another_user_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth");
        fs::write(&path, GOOD).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        if std::os::unix::fs::chown(&path, Some(12345), None).is_err() {
            println!("SKIPPED: a file of another user: needs root");
            return;
        }
        assert!(credentials(Some(&path)).unwrap_err().message.contains("owner 12345"));
    }
}
