//! `lattice login`: what it keeps, and to whom that is sent.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    time::Duration,
};

use lattice_tests::{Lab, process::Process};

const PRIVILEGE: i32 = 77;
const CREDENTIALS: i32 = 78;

#[test]
fn a_login_is_private_and_is_sent_to_its_own_server_only() {
    let mut lab = Lab::start();
    let host = lab.host();
    let (kept, token) = (host.dir.join("config/login.json"), host.dir.join("alice"));
    let made = lab.admin(&["admin-token", "create", "alice", "--role", "operator", "--workspace", "demo"]);
    fs::write(&token, made).unwrap();
    let lattice = |args: &[&str]| {
        let mut command = lab.lattice(&host);
        command.args(args).env("LATTICE_LOGIN_FILE", &kept).env_remove("LATTICE_ADMIN_TOKEN");
        let out = Process::spawn(command, "alice", lab.dir.path()).finish(Duration::from_secs(30));
        (out.code, out.stdout, out.stderr)
    };
    let refused = |args: &[&str], code: i32, says: &str| {
        let (got, _, stderr) = lattice(args);
        assert_eq!((got, stderr.contains(says)), (code, true), "{args:?}: {stderr}");
    };

    refused(&["whoami"], PRIVILEGE, "not logged in");
    let login = ["login", "--token-file", token.to_str().unwrap()];
    let (code, stdout, stderr) = lattice(&login);
    assert_eq!((code, stdout.contains("as alice (operator)")), (0, true), "{stdout}{stderr}");
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(kept.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(lattice(&["whoami"]).1.contains("alice"));
    refused(&["workspace", "create", "another"], PRIVILEGE, "role admin");
    refused(&["peer", "list", "--server-url", "http://192.0.2.1:1"], PRIVILEGE, "the login is for");

    fs::set_permissions(&kept, Permissions::from_mode(0o644)).unwrap();
    refused(&["whoami"], CREDENTIALS, "others can read it");
    fs::set_permissions(&kept, Permissions::from_mode(0o600)).unwrap();

    // It ends its own token, also when another one is at hand.
    let other = host.dir.join("bob");
    fs::write(&other, lab.admin(&["admin-token", "create", "bob", "--role", "viewer"])).unwrap();
    let bob = ["--admin-token-file", other.to_str().unwrap()];
    assert_eq!(lattice(&["logout", bob[0], bob[1]]).0, 0);
    assert_eq!(lattice(&["whoami", bob[0], bob[1]]).0, 0);
    assert!(!kept.exists());
    refused(&login, PRIVILEGE, "one-time");
}
