//! Opening an audit file so that nobody else has a hand in it, and finding where its chain stands.
//!
//! The default place is a directory that everybody may write: whatever is found under the name may have been put there.

use std::{
    fs::{File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use nix::{libc, unistd::geteuid};

use crate::{AuditError, Entry, MAX_LINE, chain::Chain};

/// Opens and locks `path`, or refuses it.
pub(super) fn exclusive(path: &Path) -> Result<File, AuditError> {
    let refuse = |why| AuditError::Unsafe { path: path.to_owned(), why };
    let fail = |source| AuditError::Open { path: path.to_owned(), source };

    // A device in the file's place must neither block nor become our terminal. For a regular file both mean nothing.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let opened =
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).custom_flags(flags).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => refuse("is a symbolic link"),
        _ => fail(error),
    })?;

    let found = file.metadata().map_err(fail)?;
    if !found.is_file() {
        return Err(refuse("is not a regular file"));
    }
    if found.uid() != geteuid().as_raw() {
        return Err(refuse("belongs to another user"));
    }
    if found.nlink() != 1 {
        return Err(refuse("has other names (hard links)"));
    }
    if found.mode() & 0o022 != 0 {
        return Err(refuse("can be written by others"));
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(AuditError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => return Err(fail(error)),
    }
    Ok(file)
}

/// Takes the rights of everybody else away: records name what an agent talks to.
pub(super) fn make_private(path: &Path, file: &File) -> Result<(), AuditError> {
    let fail = |source| AuditError::Open { path: path.to_owned(), source };
    if file.metadata().map_err(fail)?.mode() & 0o7777 == 0o600 {
        return Ok(());
    }
    file.set_permissions(Permissions::from_mode(0o600)).map_err(fail)
}

/// How an existing file ends.
pub(super) struct Tail {
    /// Behind its last whole line.
    pub(super) chain: Chain,
    /// Length of its whole lines.
    pub(super) len: u64,
    /// Something follows that is not a whole line.
    pub(super) torn: bool,
}

/// Looks at the end of `file` without changing it.
pub(super) fn tail(path: &Path, file: &File) -> Result<Tail, AuditError> {
    let (end, at) = last_bytes(file).map_err(|source| AuditError::Open { path: path.to_owned(), source })?;
    let foreign = || AuditError::Foreign { path: path.to_owned() };

    let Some(newline) = end.iter().rposition(|byte| *byte == b'\n') else {
        // Not one whole line: the first one may be torn. Nothing else may be cut off.
        let ours = at == 0 && BEGIN.starts_with(&end[..end.len().min(BEGIN.len())]);
        let tail = Tail { chain: Chain::START, len: 0, torn: !end.is_empty() };
        return if ours { Ok(tail) } else { Err(foreign()) };
    };
    let begin = end[..newline].iter().rposition(|byte| *byte == b'\n').map_or(0, |before| before + 1);
    let line = &end[begin..newline];
    let entry: Entry = serde_json::from_slice(line).map_err(|_| foreign())?;
    let mut chain = Chain::START;
    chain.advance(&entry.link(), line);
    Ok(Tail { chain, len: at + newline as u64 + 1, torn: newline + 1 < end.len() })
}

/// Every line begins so.
const BEGIN: &[u8] = br#"{"timestamp":""#;

/// Enough of the file's end for a whole and a torn line, and where it begins.
fn last_bytes(file: &File) -> io::Result<(Vec<u8>, u64)> {
    let len = file.metadata()?.len();
    let at = len.saturating_sub(2 * (MAX_LINE as u64 + 1));
    let mut bytes = vec![0; usize::try_from(len - at).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, at)?;
    Ok((bytes, at))
}
