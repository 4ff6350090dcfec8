//! `latticed backup`: a copy of the data directory, made while latticed runs.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use crate::{
    data_dir::{DataDir, DataDirError},
    failure::Failure,
    run::DATABASE,
    store::Store,
};

/// What cannot be made again. Peers trust these.
const KEYS: [&str; 6] = ["operator.nk", "system-account.nk", "account.nk", "relay.nk", "ca.key", "ca.pem"];

/// Copies keys and database to the new directory `to`, which nobody else can read. False when the database is in Postgres and was
/// not copied.
///
/// # Errors
/// When `to` exists, or cannot be written; then it is not there afterwards.
pub async fn make(dir: &DataDir, store: &Store, to: &Path) -> Result<bool, Failure> {
    let failed = |source| Failure::Backup { path: to.to_owned(), source };
    DirBuilder::new().mode(0o700).create(to).map_err(failed)?;
    let made = fill(dir, store, to, &failed).await;
    if made.is_err() {
        let _ = fs::remove_dir_all(to);
    }
    made
}

async fn fill(
    dir: &DataDir,
    store: &Store,
    to: &Path,
    failed: &impl Fn(io::Error) -> Failure,
) -> Result<bool, Failure> {
    for name in KEYS {
        let path = dir.join(name);
        copy(&path, &to.join(name)).map_err(|source| DataDirError::Io { action: "copy", path, source })?;
    }
    let database = to.join(DATABASE);
    let copied = store.copy_to(&database).await?;
    if copied {
        File::open(&database).and_then(|file| file.sync_all()).map_err(failed)?;
    }
    File::open(to).and_then(|dir| dir.sync_all()).map_err(failed)?;
    Ok(copied)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    file.write_all(&fs::read(from)?)?;
    file.sync_all()
}
