//! The shims that are compared.

use std::{fs, os::unix::fs::PermissionsExt as _};

use lattice_tests::{
    Lab,
    containerd::{Daemon, Release, Runtime},
};

/// The column that others are compared with.
pub(crate) const GVISORS: &str = "gVisor's";

/// A shim and the containerd that has it.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) daemon: Daemon,
}

impl Subject {
    /// All whose shim is here; says which are not.
    pub(crate) fn all(release: &Release, lab: &mut Lab) -> Vec<Self> {
        let all = [
            ("runc's", Runtime::Runc, false),
            (GVISORS, Runtime::Runsc, false),
            ("ours, `plain`", Runtime::Lattice, false),
            ("ours, `lattice`", Runtime::Lattice, true),
        ];
        let mut subjects = Vec::new();
        for (name, runtime, identity) in all {
            if runtime.found().is_none() {
                println!("not measured: {} is not here", runtime.shim());
                continue;
            }
            let daemon = Daemon::of(release.clone(), runtime);
            if identity {
                join(&daemon, lab);
            }
            subjects.push(Self { name, daemon });
        }
        subjects
    }
}

/// Gives the daemon's pods an identity each, by a token of the node, and one peer that they may reach.
fn join(daemon: &Daemon, lab: &mut Lab) {
    let token = lab.admin(&["token", "create", "--workspace", "demo", "--uses", "100000"]);
    let file = daemon.dir.path().join("token");
    fs::write(&file, token).expect("the token");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("the token's mode");
    let more = format!(
        "token_file = \"{}\"\nwireguard = \"userspace\"\nenforcer = \"ebpf\"\negress_allow = [\"10.42.0.0/16\"]\n\
         egress_default = [\"tcp:10.42.0.2/32:8080\"]\n",
        file.display()
    );
    daemon.join(lab, &more);
}
