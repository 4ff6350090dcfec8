//! `lattice login`, `lattice logout` and `lattice whoami`: the API token that every administration command uses.

use std::{
    env, fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use lattice_bootstrap::{Failure, Kind};
use serde::{Deserialize, Serialize};
use serde_json::json;
use ureq::http::Method;
use zeroize::Zeroizing;

use crate::{
    admin::{Client, encoded, read, segment},
    args::{Admin, Format, Login},
    output,
};

const ONE_TIME_FILE: &str = "/var/lib/latticed/admin-token";
const MAX_FILE: u64 = 16 << 10;

/// What `lattice login` keeps, in `~/.config/lattice/login.json` or `LATTICE_LOGIN_FILE`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stored {
    /// With the fingerprint of its authority, if it was given with one.
    pub(crate) server_url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) server_ca: Option<PathBuf>,
    pub(crate) token: Zeroizing<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Who {
    id: String,
    name: String,
    role: String,
    workspace: Option<String>,
    expires_at: Option<String>,
}

#[derive(Deserialize)]
struct Made {
    token: Zeroizing<String>,
    name: String,
    role: String,
}

pub(crate) fn login(args: &Login) -> Result<ExitCode, Failure> {
    let token = match (&args.token_file, env::var("LATTICE_ADMIN_TOKEN")) {
        (Some(path), _) => read(path)?,
        (None, Ok(token)) => Zeroizing::new(token),
        (None, Err(_)) => read(Path::new(ONE_TIME_FILE))?,
    };
    // Found now, not when the one-time token is spent.
    let path = path()?;
    let client = Client::with(&args.server_url, args.server_ca.as_deref(), &token)?;
    let (token, name, role) = match client.ask::<Who>(Method::GET, "/api/v1/whoami", Vec::new())? {
        // An API token that somebody else made.
        Ok(who) => (Zeroizing::new(token.trim().to_owned()), who.name, who.role),
        // A one-time token opens nothing but this.
        Err(refused) if refused.status == 401 => {
            let name = args.name.clone().unwrap_or_else(own_name);
            let made: Made = client.post("/api/v1/login", &json!({ "name": name }))?;
            (made.token, made.name, made.role)
        }
        Err(refused) => return Err(refused.into_failure()),
    };
    let server_url = args.server_url.clone();
    // Other commands run in other directories.
    let server_ca = args.server_ca.as_ref().map(|file| file.canonicalize().unwrap_or_else(|_| file.clone()));
    write(&path, &encoded(&Stored { server_url, server_ca, token })?).map_err(|error| {
        let text = format!("cannot write {}: {error}; set LATTICE_LOGIN_FILE to a place of yours, run `latticed admin-token`, and log in again", path.display());
        Failure::new(Kind::Credentials, text)
    })?;
    output::print(&format!("logged in to {} as {name} ({role})", args.server_url));
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn logout(admin: &Admin) -> Result<ExitCode, Failure> {
    let stored = Stored::read()?;
    // What is removed here is what must be revoked, whichever token other commands would use.
    let client = Client::with(
        &stored.server_url,
        admin.server_ca.as_deref().or(stored.server_ca.as_deref()),
        &stored.token,
    )?;
    match client.ask::<Who>(Method::GET, "/api/v1/whoami", Vec::new())? {
        Ok(who) => client.delete(&format!("/api/v1/admin-tokens/{}", segment(&who.id)?))?,
        // It opens nothing any more.
        Err(refused) if refused.status == 401 => {}
        Err(refused) => return Err(refused.into_failure()),
    }
    let path = path()?;
    fs::remove_file(&path).map_err(|error| {
        Failure::new(
            Kind::Credentials,
            format!("the token is revoked, but {} stays: {error}", path.display()),
        )
    })?;
    output::print(&format!("logged out of {}", stored.server_url));
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn whoami(admin: &Admin) -> Result<ExitCode, Failure> {
    let who: Who = Client::new(admin)?.get("/api/v1/whoami")?;
    match admin.output {
        Format::Json => output::print(&json!(who).to_string()),
        Format::Table => {
            let row = vec![
                who.id,
                who.name,
                who.role,
                who.workspace.unwrap_or_else(|| "all".into()),
                who.expires_at.unwrap_or_else(|| "never".into()),
            ];
            output::table(&["ID", "NAME", "ROLE", "WORKSPACE", "EXPIRES"], &[row]);
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Stored {
    /// What `lattice login` kept.
    pub(crate) fn read() -> Result<Self, Failure> {
        let path = path()?;
        let fail = |kind, reason: String| {
            Failure::new(kind, format!("{}: {reason}; run `lattice login`", path.display()))
        };
        let file = fs::File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::new(
                Kind::Privilege,
                "not logged in: run `lattice login`, or give --admin-token-file or LATTICE_ADMIN_TOKEN",
            ),
            _ => fail(Kind::Credentials, error.to_string()),
        })?;
        let open = file.metadata().is_ok_and(|metadata| metadata.mode() & 0o077 != 0);
        if open {
            return Err(fail(
                Kind::Credentials,
                "others can read it: revoke its token, and remove it".into(),
            ));
        }
        let mut text = Zeroizing::new(Vec::new());
        file.take(MAX_FILE)
            .read_to_end(&mut text)
            .map_err(|error| fail(Kind::Credentials, error.to_string()))?;
        serde_json::from_slice(&text).map_err(|_| fail(Kind::Credentials, "is damaged".into()))
    }
}

/// Where the login is kept.
pub(crate) fn path() -> Result<PathBuf, Failure> {
    let of = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    of("LATTICE_LOGIN_FILE")
        .or_else(|| of("XDG_CONFIG_HOME").map(|dir| dir.join("lattice/login.json")))
        .or_else(|| of("HOME").map(|home| home.join(".config/lattice/login.json")))
        .ok_or_else(|| {
            Failure::new(Kind::Usage, "HOME is not set: set LATTICE_LOGIN_FILE to where the login is kept")
        })
}

/// By rename, so that what was there stays whole when this fails.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// `user@host`.
fn own_name() -> String {
    let user = env::var("USER").unwrap_or_else(|_| "admin".into());
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "localhost".into());
    format!("{user}@{}", host.trim())
}
