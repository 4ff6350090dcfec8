//! Files that appear whole or not at all.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use lattice_bootstrap::{Failure, Kind};

/// Puts the program `source` at `target`, unless the same is there. True when it was not. Shims that run keep theirs.
pub(super) fn install(source: &Path, target: &Path, dry_run: bool) -> Result<bool, Failure> {
    let content = fs::read(source).map_err(failed("read", source))?;
    let is_there = fs::read(target).is_ok_and(|there| there == content)
        && fs::metadata(target).is_ok_and(|meta| meta.permissions().mode() & 0o111 == 0o111);
    if is_there || dry_run {
        return Ok(!is_there);
    }
    replace(target, &content, 0o755).map_err(failed("write", target)).map(|()| true)
}

/// Makes `path` with this text, unless there is a file. True when there was none.
pub(super) fn create(path: &Path, text: &str, dry_run: bool) -> Result<bool, Failure> {
    let is_missing = !fs::exists(path).map_err(failed("look at", path))?;
    if is_missing && !dry_run {
        replace(path, text.as_bytes(), 0o644).map_err(failed("write", path))?;
    }
    Ok(is_missing)
}

fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir)?;
    let temporary = dir.join(format!(".lattice-{}", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&temporary)))
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure::new(Kind::Input, format!("cannot {verb} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("source"), dir.path().join("bin/target"));
        fs::write(&source, "one").unwrap();
        assert!(install(&source, &target, true).unwrap());
        assert!(!target.exists());
        assert!(install(&source, &target, false).unwrap());
        assert!(!install(&source, &target, false).unwrap());
        fs::write(&source, "two").unwrap();
        assert!(install(&source, &target, false).unwrap());
        assert_eq!(fs::read(&target).unwrap(), b"two");
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o7777, 0o755);
        assert_eq!(fs::read_dir(dir.path().join("bin")).unwrap().count(), 1);

        let config = dir.path().join("etc/shim.toml");
        assert!(create(&config, "a = 1", false).unwrap());
        assert!(!create(&config, "a = 2", false).unwrap());
        assert_eq!(fs::read(&config).unwrap(), b"a = 1");
    }
}
