//! `lattice shim install` as an operator runs it, with a script in the shim's place: what is tested is where things go.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

fn install(dir: &Path, more: &[&str]) -> Output {
    let at = |name: &str| dir.join(name).into_os_string();
    Command::new(env!("CARGO_BIN_EXE_lattice"))
        .args(["shim", "install", "--from"])
        .arg(at("shim"))
        .arg("--bin-dir")
        .arg(at("bin"))
        .arg("--config")
        .arg(at("etc/shim.toml"))
        .arg("--containerd-config")
        .arg(at("config.toml"))
        .args(more)
        .output()
        .unwrap()
}

#[test]
fn it_changes_nothing_twice_and_nothing_of_the_users() {
    if !nix::unistd::geteuid().is_root() || Command::new("containerd").arg("--version").output().is_err() {
        println!("SKIPPED: lattice shim install: it takes root and containerd");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let config = "version = 2\n# mine\n";
    fs::write(dir.join("config.toml"), config).unwrap();
    fs::write(dir.join("shim"), "#!/bin/sh\necho something else\n").unwrap();
    fs::set_permissions(dir.join("shim"), fs::Permissions::from_mode(0o755)).unwrap();
    let refused = install(dir, &[]);
    assert_eq!(refused.status.code(), Some(66), "{refused:?}");
    assert!(!dir.join("bin").exists() && !dir.join("etc").exists());

    fs::write(dir.join("shim"), "#!/bin/sh\necho containerd-shim-lattice-v1 0\n").unwrap();
    let dry = install(dir, &["--dry-run"]);
    assert!(dry.status.success() && !dir.join("bin").exists() && !dir.join("etc").exists(), "{dry:?}");
    for word in ["written", "already"] {
        let output = install(dir, &[]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains(word), "{text}");
        assert!(text.contains("runtimes.lattice]") && text.contains("restart containerd"), "{text}");
        assert!(dir.join("bin/containerd-shim-lattice-v1").exists() && dir.join("etc/shim.toml").exists());
        assert_eq!(fs::read_to_string(dir.join("config.toml")).unwrap(), config);
    }
}

#[test]
fn the_shim_toml_that_it_writes_is_one() {
    let text = include_str!("../../deploy/containerd/shim.toml");
    let config = lattice_shim::config::Config::parse(text).unwrap();
    assert_eq!(config.network, lattice_shim::config::NetworkKind::Lattice);
    assert!(config.lattice.server.is_empty());
}
