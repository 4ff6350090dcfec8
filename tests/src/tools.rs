//! Where the programs under test and their tools are.

use std::{env, path::PathBuf};

/// A program of this workspace, beside the running test.
///
/// # Panics
/// When it was not built: `make test` builds it first.
pub fn built(name: &str) -> PathBuf {
    let exe = env::current_exe().unwrap_or_default();
    let candidates = exe.ancestors().skip(1).take(2).map(|dir| dir.join(name));
    candidates
        .into_iter()
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is not built beside {}: run make test", exe.display()))
}

/// The top of the repository.
pub fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map(PathBuf::from).unwrap_or_default()
}

/// The agent root file system that `make rootfs` builds; `LATTICE_ROOTFS` names another one.
///
/// # Panics
/// When it was not built.
pub fn rootfs() -> PathBuf {
    let path = env::var_os("LATTICE_ROOTFS").map_or_else(|| top().join("target/rootfs"), PathBuf::from);
    assert!(
        path.join("usr/bin/python3").exists(),
        "no agent root file system at {}: run make rootfs",
        path.display()
    );
    path
}

/// The newest runsc that `tests/setup` found; none means the one on PATH.
pub fn runsc() -> Option<PathBuf> {
    env::var_os("LATTICE_RUNSC").map(PathBuf::from).filter(|path| path.is_file())
}

/// What `tests/setup` fetched of the stock Debian kernel `version`, for `tests/vm/boot`; it may be absent.
pub fn kernel(version: &str) -> PathBuf {
    fetched(&format!("kernel-{version}"))
}

/// The directory of something that `tests/setup` fetched or built; it may be absent.
pub fn fetched(name: &str) -> PathBuf {
    env::var_os("LATTICE_TOOLS").map_or_else(|| top().join("target/tools"), PathBuf::from).join(name)
}

/// The directory of the programs of this workspace; see [`built`].
pub fn built_dir() -> PathBuf {
    let exe = env::current_exe().unwrap_or_default();
    let above: Vec<PathBuf> = exe.ancestors().skip(1).take(2).map(PathBuf::from).collect();
    let tests = above.first().is_some_and(|dir| dir.ends_with("deps") || dir.ends_with("examples"));
    above.into_iter().nth(usize::from(tests)).unwrap_or_default()
}

/// The directory of our shim: that of the other programs, or what `LATTICE_SHIM_DIR` names, such as one of `make static`.
pub fn shim_dir() -> PathBuf {
    env::var_os("LATTICE_SHIM_DIR").map_or_else(built_dir, PathBuf::from)
}
