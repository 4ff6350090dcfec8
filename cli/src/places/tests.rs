use std::{
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    thread,
};

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use tempfile::TempDir;

use super::*;

/// A user who may write nothing but what the test gives him; where the tests do not run as root, it is who runs them.
const USER: u32 = 12345;

struct Lab(TempDir);

impl Lab {
    fn new() -> Self {
        let lab = Self(tempfile::tempdir().unwrap());
        lab.chmod("", 0o755);
        for (name, mode) in [("etc", 0o555), ("run", 0o555), ("home", 0o555), ("tmp", 0o1777)] {
            fs::create_dir(lab.path(name)).unwrap();
            lab.chmod(name, mode);
        }
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn chmod(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn give(&self, name: &str, mode: u32) {
        self.chmod(name, mode);
        if geteuid().is_root() {
            chown(self.path(name), Some(USER), Some(USER)).unwrap();
        }
    }

    fn make(&self, name: &str) {
        let parent = self.path(name).parent().unwrap().to_owned();
        let mode = fs::metadata(&parent).unwrap().mode();
        fs::set_permissions(&parent, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(self.path(name)).unwrap();
        fs::set_permissions(&parent, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// As the user, in a thread of its own: the ids that files are reached with are a thread's (setfsuid(2)).
    fn user<T: Send>(&self, variables: &[(&str, PathBuf)], work: impl FnOnce(&Host<'_>) -> T + Send) -> T {
        let inside = || {
            let mut uid = geteuid();
            if uid.is_root() {
                uid = Uid::from_raw(USER);
                setfsgid(Gid::from_raw(USER));
                setfsuid(uid);
            }
            let variable = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, path)| path.clone().into_os_string())
            };
            work(&Host {
                config: self.path("etc/lattice"),
                state: self.path("run/lattice"),
                temporary: self.path("tmp"),
                uid: uid.as_raw(),
                variable: &variable,
            })
        };
        thread::scope(|scope| scope.spawn(inside).join().unwrap())
    }

    fn config(&self, variables: &[(&str, PathBuf)]) -> Result<PathBuf, Failure> {
        self.user(variables, |host| host.config(None, Role::Sandbox))
    }

    fn state(&self, variables: &[(&str, PathBuf)]) -> Result<PathBuf, Failure> {
        self.user(variables, |host| host.state(None))
    }
}

#[test]
fn credentials_are_the_systems_where_they_can_be_and_the_users_else() {
    let lab = Lab::new();
    let home = [("HOME", lab.path("home"))];
    let own = lab.path("home/.local/state/lattice");
    assert_eq!(lab.config(&home), Ok(own.clone()));
    let state = ("XDG_STATE_HOME", lab.path("state"));
    assert_eq!(lab.config(&[home[0].clone(), state]), Ok(lab.path("state/lattice")));
    let relative = ("XDG_STATE_HOME", PathBuf::from("state"));
    assert_eq!(lab.config(&[home[0].clone(), relative]), Ok(own.clone()), "a relative one does not count");
    let nowhere = lab.config(&[]).unwrap_err();
    assert!(nowhere.message.contains("LATTICE_CONFIG_DIR"), "{nowhere}");

    lab.make("etc/lattice");
    lab.chmod("etc/lattice", 0o755);
    let file = credentials::path(&lab.path("etc/lattice"), Role::Sandbox);
    fs::write(&file, "{}").unwrap();
    lab.chmod("etc/lattice", 0o555);
    if geteuid().is_root() {
        assert_eq!(lab.config(&home), Ok(own.clone()), "credentials of another user are not ours");
        chown(&file, Some(USER), Some(USER)).unwrap();
    }
    assert_eq!(lab.config(&home), Ok(lab.path("etc/lattice")), "it holds ours");
    let node = lab.user(&home, |host| host.config(None, Role::Node));
    assert_eq!(node, Ok(own), "a node's are others");
    fs::remove_file(&file).ok();
    lab.give("etc/lattice", 0o700);
    assert_eq!(lab.config(&home), Ok(lab.path("etc/lattice")), "it can be written");
    let asked = lab.path("asked");
    assert_eq!(lab.user(&home, |host| host.config(Some(&asked), Role::Sandbox)), Ok(asked.clone()));
}

#[test]
fn what_runs_is_listed_in_a_directory_of_nobody_else() {
    let lab = Lab::new();
    lab.make("run/user");
    lab.give("run/user", 0o700);
    let runtime = [("XDG_RUNTIME_DIR", lab.path("run/user"))];
    assert_eq!(lab.state(&runtime), Ok(lab.path("run/user/lattice")));
    lab.chmod("run/user", 0o500);
    let shared = lab.state(&runtime).unwrap();
    assert_eq!(shared.parent(), Some(lab.path("tmp").as_path()), "a directory of others is no place");
    assert_eq!(fs::metadata(&shared).unwrap().mode() & 0o777, 0o700);
    assert_eq!(lab.state(&[]), Ok(shared.clone()), "it is found again");
    let listed = lab.user(&[], |host| host.listed(None));
    assert_eq!(listed, [shared.clone(), lab.path("run/lattice")]);
    lab.give("run", 0o700);
    assert_eq!(lab.state(&runtime), Ok(lab.path("run/lattice")), "the system's comes first");
    let asked = lab.path("asked");
    assert_eq!(lab.user(&[], |host| host.state(Some(&asked))), Ok(asked.clone()));
}

#[test]
fn what_somebody_put_into_the_shared_directory_is_refused() {
    let lab = Lab::new();
    let shared = lab.state(&[]).unwrap();
    let refused = |what: &str| {
        let refused = lab.state(&[]).unwrap_err();
        assert_eq!(refused.kind, Kind::Privilege, "{what}");
        assert!(refused.message.contains("--state-dir"), "{what}: {refused}");
        let listed = lab.user(&[], |host| host.listed(None));
        assert_eq!(listed, [lab.path("run/lattice")], "{what} is not looked into");
    };
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).unwrap();
    refused("a directory that others may enter");
    fs::remove_dir(&shared).unwrap();
    fs::write(&shared, "").unwrap();
    refused("a file");
    fs::remove_file(&shared).unwrap();
    let private = lab.path("tmp/private");
    fs::create_dir(&private).unwrap();
    lab.give("tmp/private", 0o700);
    symlink(&private, &shared).unwrap();
    refused("a link, even to a directory of the user's own");
    if geteuid().is_root() {
        fs::remove_file(&shared).unwrap();
        fs::create_dir(&shared).unwrap();
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o700)).unwrap();
        refused("a directory of another user");
    }
}
