//! Every call of runsc starts from the same clean process: no environment, descriptors or network rights of ours.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{Runsc, Verb, prctl};

/// Which network runsc makes for a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// The sockets of the namespace that the OCI spec names.
    Host,
    /// Loopback only.
    None,
}

/// What runsc does about cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cgroups {
    /// Nothing.
    Ignored,
    /// It makes the group of the OCI spec's `cgroupsPath`.
    Direct,
    /// It has systemd make it: `cgroupsPath` is `slice:prefix:name`.
    Systemd,
}

impl Cgroups {
    /// By the form of `linux.cgroupsPath`.
    pub fn of_path(cgroups_path: Option<&str>) -> Self {
        match cgroups_path {
            None | Some("") => Self::Ignored,
            Some(path) if !path.starts_with('/') && path.split(':').count() == 3 => Self::Systemd,
            Some(_) => Self::Direct,
        }
    }
}

/// What runsc is told before its verb.
#[derive(Debug, Clone)]
pub struct Globals {
    /// Where it keeps its state. Two releases must not share one.
    pub root: PathBuf,
    /// Where its errors go, as JSON; only to standard error without.
    pub log: Option<PathBuf>,
    /// Which network.
    pub network: Network,
    /// What of cgroups.
    pub cgroups: Cgroups,
    /// Further flags, `name=value` or a name alone.
    pub further: Vec<String>,
}

impl Globals {
    /// For a sandbox in the namespace that its spec names, without cgroups.
    pub fn new(root: PathBuf) -> Self {
        Self { root, log: None, network: Network::Host, cgroups: Cgroups::Ignored, further: Vec::new() }
    }

    fn flags(&self) -> Vec<OsString> {
        let mut flags = vec![flag("root", &self.root)];
        if let Some(log) = &self.log {
            flags.extend([flag("log", log), "--log-format=json".into()]);
        }
        flags.push(match self.network {
            Network::Host => "--network=host".into(),
            Network::None => "--network=none".into(),
        });
        flags.push("--host-uds=none".into());
        match self.cgroups {
            Cgroups::Ignored => flags.push("--ignore-cgroups".into()),
            Cgroups::Direct => {}
            Cgroups::Systemd => flags.push("--systemd-cgroup".into()),
        }
        flags.extend(self.further.iter().map(|further| format!("--{further}").into()));
        flags
    }
}

impl Runsc {
    /// The command that does `verb` to container `id`. It has no streams but `/dev/null` as standard input until they are set.
    ///
    /// It dies with the thread that spawns it: spawn it from a thread that outlives it.
    pub fn command(&self, globals: &Globals, verb: &Verb<'_>, id: &str) -> Command {
        let mut command = driver(&self.path);
        command.args(globals.flags()).arg(format!("--platform={}", self.platform));
        command.arg(verb.name()).args(verb.arguments(id));
        command
    }
}

/// `--name=value`, of a path that need not be UTF-8.
pub(super) fn flag(name: &str, value: &Path) -> OsString {
    let mut flag = OsString::from(format!("--{name}="));
    flag.push(value);
    flag
}

/// A command for `runsc` that inherits nothing but what is set on it afterwards.
///
/// It dies with the thread that spawns it: spawn it from a thread that outlives it.
pub(crate) fn driver(runsc: &Path) -> Command {
    let mut command = Command::new(runsc);
    command
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::null());
    prctl::confine(&mut command);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_the_path_says_who_makes_the_group() {
        for (path, cgroups) in [
            (None, Cgroups::Ignored),
            (Some(""), Cgroups::Ignored),
            (Some("/kubepods/pod1/c"), Cgroups::Direct),
            (Some("/a:b:c"), Cgroups::Direct),
            (Some("relative"), Cgroups::Direct),
            (Some("kubepods-pod1.slice:cri-containerd:c"), Cgroups::Systemd),
        ] {
            assert_eq!(Cgroups::of_path(path), cgroups, "{path:?}");
        }
    }

    #[test]
    fn what_comes_before_the_verb() {
        let globals = Globals {
            log: Some("/l".into()),
            cgroups: Cgroups::Systemd,
            network: Network::None,
            further: vec!["overlay2=none".into()],
            ..Globals::new("/r".into())
        };
        assert_eq!(
            globals.flags(),
            [
                "--root=/r",
                "--log=/l",
                "--log-format=json",
                "--network=none",
                "--host-uds=none",
                "--systemd-cgroup",
                "--overlay2=none"
            ]
        );
        assert_eq!(
            Globals::new("/r".into()).flags(),
            ["--root=/r", "--network=host", "--host-uds=none", "--ignore-cgroups"]
        );
    }
}
