//! What other programs keep secret in their user's home: not for the command, unless it was named.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use lattice_bootstrap::{Failure, Kind};
use lattice_overlay::userns::hide::Found;

use super::files;
use crate::{args::Run, output};

/// Files and directories of a home, by the programs whose they are.
const SECRET: [&str; 44] = [
    // Shells on other hosts, signatures, stores of passwords.
    ".ssh",
    ".gnupg",
    ".netrc",
    ".password-store",
    ".local/share/keyrings",
    ".local/share/kwalletd",
    ".config/op",
    ".config/Bitwarden",
    ".vault-token",
    // Repositories and registries.
    ".git-credentials",
    ".config/git/credentials",
    ".config/gh",
    ".config/glab-cli",
    ".config/hub",
    ".npmrc",
    ".pypirc",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".gem/credentials",
    // Clouds and clusters.
    ".aws",
    ".azure",
    ".config/gcloud",
    ".config/doctl",
    ".oci",
    ".boto",
    ".s3cfg",
    ".config/rclone",
    ".terraform.d/credentials.tfrc.json",
    ".kube",
    ".docker",
    ".config/containers/auth.json",
    // Databases.
    ".pgpass",
    ".my.cnf",
    // Browsers and mail.
    ".mozilla",
    ".thunderbird",
    ".config/google-chrome",
    ".config/chromium",
    ".config/BraveSoftware",
    ".config/microsoft-edge",
    ".config/vivaldi",
    ".config/opera",
    "snap/firefox",
    "snap/chromium",
    ".var/app",
];

/// Entries of one such directory that are looked at.
const ENTRIES: usize = 4096;

/// Those that are there and not for the command, by the paths that no link changes.
///
/// # Errors
/// When something was named that cannot be shown.
pub(super) fn of_others(args: &Run, writable: &[Found]) -> Result<Vec<PathBuf>, Failure> {
    let here = env::current_dir().ok();
    let named = named(args)?;
    let (mut hidden, mut told) = (Vec::new(), Vec::new());
    for home in files::homes() {
        for name in SECRET {
            let known_as = home.join(name);
            let Ok(path) = fs::canonicalize(&known_as) else { continue };
            if hidden.contains(&path) || named.iter().any(|named| path.starts_with(named)) {
                continue;
            }
            if let Some(below) = named.iter().find(|named| named.starts_with(&path)) {
                let text = format!(
                    "--readable {}: it lies in {}, which is hidden from the command as a whole: name that",
                    below.display(),
                    path.display()
                );
                return Err(Failure::new(Kind::Usage, text));
            }
            let is_used = |dir: &Path| dir.starts_with(&path);
            if here.as_deref().is_some_and(is_used) || writable.iter().any(|dir| is_used(&dir.path)) {
                output::warn(&format!(
                    "the command sees {}, since it is started in it or may write there",
                    path.display()
                ));
                continue;
            }
            hidden.extend(linked_from(&path).into_iter().filter(|target| {
                let is_named = named.iter().any(|named| target.starts_with(named));
                !is_named && !here.as_deref().is_some_and(|here| here.starts_with(target))
            }));
            hidden.push(path);
            told.push(known_as.display().to_string());
        }
    }
    if !told.is_empty() {
        tracing::info!(hidden = told.join(", "), "not for the command; --readable shows what it names");
    }
    Ok(hidden)
}

/// What was named, without links.
fn named(args: &Run) -> Result<Vec<PathBuf>, Failure> {
    let found = |path: &PathBuf| {
        fs::canonicalize(path).map_err(|error| {
            let text = format!("--readable {}: {error}: name what is there", path.display());
            Failure::new(Kind::Usage, text)
        })
    };
    args.readable.iter().map(found).collect()
}

/// Where the links in a directory lead to, out of it: some keep their files elsewhere, and only links here.
fn linked_from(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().take(ENTRIES);
    let links = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
    let targets = links.filter_map(|link| fs::canonicalize(link.path()).ok());
    targets.filter(|target| target.is_file() && !target.starts_with(dir)).collect()
}
