use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

use super::*;

fn rootfs() -> (tempfile::TempDir, AgentSpec) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::write(root.join("bin/agent"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(root.join("bin/agent"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(root.join("bin/data"), "").unwrap();
    let spec = AgentSpec {
        name: "a".into(),
        rootfs: root,
        binary: "/bin/agent".into(),
        args: vec![],
        env: vec![],
        cwd: "/".into(),
        uid: 0,
        gid: 0,
        memory_bytes: None,
        cpus: None,
        pids: None,
        rootfs_writable: Writable::Overlay,
        resolv_conf: None,
        hosts: None,
        terminal: false,
    };
    (dir, spec)
}

fn refusal(change: impl FnOnce(&mut AgentSpec)) -> String {
    let (_dir, mut spec) = rootfs();
    validate(&spec).unwrap();
    change(&mut spec);
    validate(&spec).unwrap_err().to_string()
}

#[test]
fn each_bad_field_is_named() {
    assert!(refusal(|s| s.name = "../x".into()).contains("invalid name"));
    assert!(refusal(|s| s.binary = "bin/agent".into()).contains("absolute path"));
    assert!(refusal(|s| s.binary = "/bin/none".into()).contains("/bin/none"));
    assert!(refusal(|s| s.binary = "/bin/data".into()).contains("not executable"));
    assert!(refusal(|s| s.binary = "/bin".into()).contains("not a regular file"));
    assert!(refusal(|s| s.cwd = "/none".into()).contains("working directory"));
    assert!(refusal(|s| s.args = vec!["a\0b".into()]).contains("NUL"));
    assert!(refusal(|s| s.env = vec![("A=B".into(), String::new())]).contains("environment"));
    assert!(refusal(|s| s.args = vec!["x".repeat(MAX_STRINGS)]).contains("limit"));
    assert!(refusal(|s| s.memory_bytes = Some(1 << 20)).contains("64 MiB"));
    assert!(refusal(|s| s.cpus = Some(f64::NAN)).contains("CPU"));
    assert!(refusal(|s| s.pids = Some(0)).contains("process limit"));
    assert!(refusal(|s| s.rootfs = "/".into()).contains("host's own root"));
    assert!(refusal(|s| s.rootfs = "/nonexistent".into()).contains("make rootfs"));
    assert!(refusal(|s| s.rootfs = s.rootfs.join("bin/data")).contains("not a directory"));
}

#[test]
fn a_symlinked_rootfs_is_refused() {
    let why = refusal(|s| {
        let link = s.rootfs.with_file_name("link");
        symlink(&s.rootfs, &link).unwrap();
        s.rootfs = link;
    });
    assert!(why.contains("not followed"), "{why}");
}

#[test]
fn links_never_lead_out_of_the_rootfs() {
    for target in ["/etc/passwd", "../../../../../../../../bin/true", "/proc/self/exe", "/usr/bin/env"] {
        let why = refusal(|s| {
            symlink(target, s.rootfs.join("bin/out")).unwrap();
            s.binary = "/bin/out".into();
        });
        assert!(why.contains("No such file"), "{target}: {why}");
    }
}

#[test]
fn links_inside_the_rootfs_are_followed() {
    let (_dir, mut spec) = rootfs();
    symlink("/bin", spec.rootfs.join("sbin")).unwrap();
    spec.binary = "/sbin/../sbin/agent".into();
    validate(&spec).unwrap();
}

#[test]
fn debug_shows_no_environment_value() {
    let (_dir, mut spec) = rootfs();
    spec.env = vec![("API_KEY".into(), "hunter2".into())];
    let shown = format!("{spec:?}");
    assert!(shown.contains("API_KEY") && !shown.contains("hunter2"), "{shown}");
}
