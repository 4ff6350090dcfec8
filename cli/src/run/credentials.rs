//! What other programs keep secret in their user's home, or where its variables say: not for the command, unless it was named.
//!
//! Hidden is what is there at the start. A file that its owner replaces by another meanwhile, or makes, is seen from then on (what covered the old one
//! goes with it), so where a whole directory is for secrets or its program alone needs it, that is hidden, and not the file in it.

mod known;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use lattice_bootstrap::{Failure, Kind};
use lattice_overlay::userns::hide::Found;

use super::files;
use crate::{args::Run, output};

/// Entries of one such directory that are looked at.
const ENTRIES: usize = 4096;

/// Places that links lead to, in all, and the bytes of their paths: the helper is told of everything hidden in one message, in which a byte can take four.
const LINKED: usize = 256;
const LINKED_BYTES: usize = 8 << 10;

/// Those that are there and not for the command, by the paths that no link changes.
///
/// # Errors
/// When something was named that cannot be shown.
pub(super) fn of_others(args: &Run, writable: &[Found]) -> Result<Vec<PathBuf>, Failure> {
    let homes = files::homes();
    if homes.is_empty() {
        output::warn(
            "no home directory of this user is known (HOME, or the system's list of users): what other programs keep secret in it is not hidden \
             from the command",
        );
    }
    let used = env::current_dir().into_iter().chain(writable.iter().map(|dir| dir.path.clone()));
    let used = used.chain(homes.iter().cloned()).collect();
    let mut choice = Choice { named: named(args)?, used, hidden: Vec::new(), told: Vec::new() };
    let mut places: Vec<(PathBuf, PathBuf)> = Vec::new();
    for known_as in known::places(&homes, &|name| env::var_os(name)) {
        let Ok(path) = fs::canonicalize(&known_as) else { continue };
        if (path.is_file() || path.is_dir()) && !places.iter().any(|(other, _)| *other == path) {
            places.push((path, known_as));
        }
    }
    let (mut linked, mut bytes) = (Vec::new(), 0);
    for (path, known_as) in places {
        if !choice.hide(&path, &known_as)? {
            continue;
        }
        for target in linked_from(&path, &homes) {
            if linked.contains(&target) {
                continue;
            }
            bytes += target.as_os_str().len();
            if linked.len() == LINKED || bytes > LINKED_BYTES {
                output::warn(&format!(
                    "{} has links to more places than are hidden ({LINKED}): the command sees the others, such as {}",
                    path.display(),
                    target.display()
                ));
                break;
            }
            choice.hide(&target, &target)?;
            linked.push(target);
        }
    }
    let Choice { hidden, told, .. } = choice;
    if !told.is_empty() {
        tracing::info!(hidden = told.join(", "), "not for the command; --readable shows what it names");
    }
    Ok(hidden)
}

/// What is hidden, and what is not.
struct Choice {
    /// What the command may read, by its user's word.
    named: Vec<PathBuf>,
    /// What lies above these stays.
    used: Vec<PathBuf>,
    hidden: Vec<PathBuf>,
    told: Vec<String>,
}

impl Choice {
    /// Hides what is at `path`, which has no links, if it may be. Whether it is hidden then.
    fn hide(&mut self, path: &Path, known_as: &Path) -> Result<bool, Failure> {
        if self.named.iter().any(|named| path.starts_with(named)) {
            return Ok(false);
        }
        if self.hidden.iter().any(|hidden| path.starts_with(hidden)) {
            return Ok(true);
        }
        if let Some(used) = self.used.iter().find(|used| used.starts_with(path)) {
            output::warn(&format!(
                "the command sees {}, since {} is where it is started, what it may write, or a home",
                path.display(),
                used.display()
            ));
            return Ok(false);
        }
        if let Some(below) = self.named.iter().find(|named| named.starts_with(path)) {
            let text = format!(
                "--readable {}: it lies in {}, which is hidden from the command as a whole: name that",
                below.display(),
                path.display()
            );
            return Err(Failure::new(Kind::Usage, text));
        }
        self.hidden.push(path.to_owned());
        self.told.push(known_as.display().to_string());
        Ok(true)
    }
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

/// Where the links in a directory lead to in a home, and out of the directory: some keep their files elsewhere, and only links here. What is in no home
/// is shared, such as the certificates of the system.
fn linked_from(dir: &Path, homes: &[PathBuf]) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().take(ENTRIES);
    let links = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
    let targets = links.filter_map(|link| fs::canonicalize(link.path()).ok());
    let is_in_a_home = |target: &Path| homes.iter().any(|home| target != home && target.starts_with(home));
    targets
        .filter(|target| !target.starts_with(dir) && !dir.starts_with(target) && is_in_a_home(target))
        .filter(|target| target.is_file() || target.is_dir())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_to_what_is_in_a_home_and_not_shared() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let home = root.join("home");
        for name in ["home/.ssh/inside", "home/dotfiles/keys", "etc"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        for name in ["home/dotfiles/config", "etc/ca.pem"] {
            fs::write(root.join(name), "x").unwrap();
        }
        for (link, to) in [
            ("keys", "dotfiles/keys"),
            ("config", "dotfiles/config"),
            ("ca.pem", "../etc/ca.pem"),
            ("again", ".ssh/inside"),
            ("above", "."),
            ("nowhere", "nothing"),
        ] {
            symlink(home.join(to), home.join(".ssh").join(link)).unwrap();
        }
        let mut found = linked_from(&home.join(".ssh"), std::slice::from_ref(&home));
        found.sort();
        assert_eq!(found, [home.join("dotfiles/config"), home.join("dotfiles/keys")]);
    }

    #[test]
    fn what_is_above_a_used_directory_stays() {
        let mut choice = Choice {
            named: vec!["/home/me/.aws".into(), "/home/me/.kube/config".into()],
            used: vec!["/home/me/work/part".into(), "/home/me".into()],
            hidden: Vec::new(),
            told: Vec::new(),
        };
        for (path, is_hidden) in [
            ("/home/me/.ssh", true),
            ("/home/me/.ssh/keys", true),
            ("/home/me/.aws", false),
            ("/home/me/.aws/credentials", false),
            ("/home/me/work", false),
            ("/home/me/work/part", false),
            ("/home/me/work/other", true),
            ("/home", false),
        ] {
            let path = Path::new(path);
            assert_eq!(choice.hide(path, path).ok(), Some(is_hidden), "{}", path.display());
        }
        assert!(choice.hide(Path::new("/home/me/.kube"), Path::new("")).is_err());
        assert_eq!(choice.hidden, ["/home/me/.ssh", "/home/me/work/other"].map(PathBuf::from));
    }
}
