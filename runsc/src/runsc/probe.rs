//! What a runsc program says about itself, and whether systrap works here.
//!
//! Asking costs some 50 ms and trying systrap 300 ms, so the answers are kept in a file named after the program's
//! inode and time of change. Those of programs that are gone, or were replaced, go when another is asked.

use std::{
    fs::{self, DirBuilder},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{Platform, driver};
use crate::RunscError;

/// An idle machine needs 0.3 s. A platform that hangs must not hang us.
const TRIAL: Duration = Duration::from_secs(15);
/// A version and a list of platforms are some 100 bytes; a program that is not runsc may print for ever.
const MAX_ANSWER: u64 = 64 << 10;

/// Of the files' names.
const PREFIX: &str = "runsc-";

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answers {
    /// Whose they are.
    #[serde(default)]
    program: PathBuf,
    pub(super) version: String,
    pub(super) platforms: Vec<String>,
    pub(super) preferred: Platform,
}

impl Answers {
    pub(super) fn of(path: &Path, cache: &Path) -> Result<Self, RunscError> {
        let key = file_name(path)
            .map(|name| cache.join(name))
            .map_err(|source| RunscError::NotRunnable { path: path.to_owned(), source })?;
        if let Some(known) = read_trusted(cache, &key) {
            return Ok(known);
        }
        let answers = Self::ask(path)?;
        if let Err(error) = write(cache, &key, &answers) {
            tracing::debug!(path = %key.display(), %error, "cannot remember what runsc answered");
        }
        Ok(answers)
    }

    fn ask(path: &Path) -> Result<Self, RunscError> {
        let first = answer(path, &["--version"])?;
        let version = parse_version(&first).ok_or_else(|| RunscError::NotRunsc {
            path: path.to_owned(),
            answer: first.chars().take(80).collect(),
        })?;
        let platforms: Vec<String> =
            answer(path, &["help", "platforms"])?.split_whitespace().map(str::to_owned).collect();
        let has_systrap = platforms.iter().any(|name| name == Platform::Systrap.as_str());
        let preferred =
            if has_systrap && starts(path, Platform::Systrap) { Platform::Systrap } else { Platform::Ptrace };
        Ok(Self { program: path.to_owned(), version, platforms, preferred })
    }
}

/// `runsc version X` on the first line.
fn parse_version(text: &str) -> Option<String> {
    let version = text.lines().next()?.strip_prefix("runsc version ")?.trim();
    (!version.is_empty()).then(|| version.to_owned())
}

fn answer(path: &Path, args: &[&str]) -> Result<String, RunscError> {
    let not_runnable = |source| RunscError::NotRunnable { path: path.to_owned(), source };
    let mut child =
        driver(path).args(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(not_runnable)?;
    let mut text = Vec::new();
    let read = match child.stdout.take() {
        Some(out) => out.take(MAX_ANSWER).read_to_end(&mut text),
        None => Ok(0),
    };
    // The pipe is closed by now, so that a program which still writes ends of it.
    child.wait().and(read).map_err(not_runnable)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn starts(path: &Path, platform: Platform) -> bool {
    trial(path, platform).unwrap_or_else(|error| {
        tracing::debug!(%platform, %error, "the trial sandbox could not be run");
        false
    })
}

fn trial(path: &Path, platform: Platform) -> io::Result<bool> {
    let mut child = driver(path)
        .arg(format!("--platform={platform}"))
        .args(["--network=none", "--ignore-cgroups", "do", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let deadline = Instant::now() + TRIAL;
    loop {
        match child.try_wait()? {
            Some(status) => return Ok(status.success()),
            None if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            None => {
                child.kill()?;
                child.wait()?;
                return Ok(false);
            }
        }
    }
}

/// A directory that others may write to could tell us to use a platform that does not confine.
fn read_trusted(cache: &Path, key: &PathBuf) -> Option<Answers> {
    let dir = fs::symlink_metadata(cache).ok()?;
    let ours = dir.is_dir() && dir.uid() == nix::unistd::geteuid().as_raw() && dir.mode() & 0o022 == 0;
    ours.then(|| serde_json::from_slice(&fs::read(key).ok()?).ok())?
}

fn write(cache: &Path, key: &Path, answers: &Answers) -> io::Result<()> {
    DirBuilder::new().mode(0o700).recursive(true).create(cache)?;
    let temporary = key.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&temporary, serde_json::to_vec(answers)?)?;
    fs::rename(&temporary, key)?;
    for entry in fs::read_dir(cache)?.flatten().filter(|entry| is_stale(&entry.path())) {
        let _ = fs::remove_file(entry.path());
    }
    Ok(())
}

/// `runsc-<device>-<inode>-<time of change>`.
fn file_name(program: &Path) -> io::Result<String> {
    let meta = fs::metadata(program)?;
    Ok(format!("{PREFIX}{}-{}-{}.{}", meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec()))
}

/// Whether `path` holds answers of a program that is no more. A file that is being written is left alone.
fn is_stale(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    if !name.starts_with(PREFIX) || name.ends_with(".tmp") {
        return false;
    }
    let answers = fs::read(path).ok().and_then(|text| serde_json::from_slice::<Answers>(&text).ok());
    answers.is_none_or(|answers| !file_name(&answers.program).is_ok_and(|now| now == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_both_styles_are_read() {
        assert_eq!(
            parse_version("runsc version 0.0~20221219.0\nspec: 1.0.2-dev\n").unwrap(),
            "0.0~20221219.0"
        );
        assert_eq!(parse_version("runsc version release-20250820.0\n").unwrap(), "release-20250820.0");
        assert_eq!(parse_version("runc version 1.1.5\n"), None);
        assert_eq!(parse_version(""), None);
    }

    #[test]
    fn a_program_that_is_not_runsc_is_refused() {
        let cache = tempfile::tempdir().unwrap();
        for path in ["/bin/true", "/bin/echo"] {
            let error = Answers::of(Path::new(path), cache.path()).unwrap_err();
            assert!(matches!(error, RunscError::NotRunsc { .. }), "{error}");
        }
    }

    #[test]
    fn a_cache_others_can_write_to_is_not_read() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        let answers =
            Answers { program: "/".into(), version: "1".into(), platforms: vec![], preferred: Platform::Kvm };
        write(dir.path(), &key, &answers).unwrap();
        assert_eq!(read_trusted(dir.path(), &key).unwrap().version, "1");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(read_trusted(dir.path(), &key).is_none());
    }

    #[test]
    fn answers_go_with_their_program() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        let programs = ["kept", "removed", "replaced"].map(|name| dir.path().join(name));
        let answered = |program: &PathBuf| {
            let answers = Answers {
                program: program.clone(),
                version: "1".into(),
                platforms: vec![],
                preferred: Platform::Ptrace,
            };
            let key = cache.join(file_name(program).unwrap());
            write(&cache, &key, &answers).unwrap();
            key
        };
        for program in &programs {
            fs::write(program, "").unwrap();
        }
        let [kept, removed, replaced] = programs.each_ref().map(answered);
        let others = ["runsc", "sandboxes", "runsc-1-2-3.9.tmp"].map(|name| cache.join(name));
        for other in &others {
            fs::write(other, "").unwrap();
        }
        let before_format = cache.join("runsc-1-2-3.4");
        fs::write(&before_format, r#"{"version":"1","platforms":[],"preferred":"ptrace"}"#).unwrap();
        fs::remove_file(&programs[1]).unwrap();
        fs::write(dir.path().join("new"), "").unwrap();
        fs::rename(dir.path().join("new"), &programs[2]).unwrap();
        let new = answered(&programs[2]);
        assert_ne!(new, replaced);
        for gone in [&removed, &replaced, &before_format] {
            assert!(!gone.exists(), "{}", gone.display());
        }
        for there in others.iter().chain([&kept, &new]) {
            assert!(there.exists(), "{}", there.display());
        }
    }
}
