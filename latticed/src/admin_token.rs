//! The one-time admin token: the way in where nobody has an API token.

use std::path::PathBuf;

use lattice_wire::AdminToken;

use crate::{
    data_dir::DataDir,
    failure::Failure,
    keys::random,
    store::{
        Store,
        admin_tokens::{NewAdminToken, Role},
    },
};

/// Name of its file.
pub const FILE: &str = "admin-token";
const VALID_SECS: i64 = 86_400;

/// Makes one when there has never been an admin token; then the path of its file is returned.
///
/// # Errors
/// When the database or the file cannot be written.
pub async fn first(dir: &DataDir, store: &Store, now: i64) -> Result<Option<PathBuf>, Failure> {
    if store.has_admin_tokens().await? {
        return Ok(None);
    }
    make(dir, store, now).await.map(Some)
}

/// Makes one and returns the path of its file.
///
/// # Errors
/// When the database or the file cannot be written.
pub async fn make(dir: &DataDir, store: &Store, now: i64) -> Result<PathBuf, Failure> {
    let token = AdminToken::from_random(random(), random());
    // The file first: a token that the database knows and nobody has would keep the first start from making another.
    dir.write(FILE, token.expose().as_bytes())?;
    let new = NewAdminToken {
        id: token.id().to_owned(),
        name: "one-time".into(),
        secret_hash: token.secret_hash(),
        role: Role::Admin,
        workspace: None,
        one_time: true,
        expires_at: Some(now + VALID_SECS),
        created_by: "latticed".into(),
    };
    store.create_admin_token(&new, now).await?;
    Ok(dir.join(FILE))
}
