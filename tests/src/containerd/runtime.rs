//! The runtimes and the containerds of the suite.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::tools;

/// A containerd runtime: each passes the same suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// `io.containerd.runc.v2`, containerd's own: the reference. No sandbox but the kernel's namespaces.
    Runc,
    /// `io.containerd.runsc.v1`, gVisor's own, with one shim per pod.
    Runsc,
    /// `io.containerd.lattice.v1`, ours, without a network identity.
    Lattice,
}

impl Runtime {
    /// Its name as a CRI runtime handler.
    pub fn handler(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Runsc => "runsc",
            Self::Lattice => "lattice",
        }
    }

    /// containerd's name for it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Runc => "io.containerd.runc.v2",
            Self::Runsc => "io.containerd.runsc.v1",
            Self::Lattice => "io.containerd.lattice.v1",
        }
    }

    /// The file name of its shim.
    pub fn shim(self) -> &'static str {
        match self {
            Self::Runc => "containerd-shim-runc-v2",
            Self::Runsc => "containerd-shim-runsc-v1",
            Self::Lattice => "containerd-shim-lattice-v1",
        }
    }

    /// Where its shim is, if this machine has it; containerd brings runc's.
    pub fn found(self) -> Option<PathBuf> {
        let dir = match self {
            Self::Runc => "/usr/bin".into(),
            Self::Runsc => tools::fetched("gvisor-shim"),
            Self::Lattice => tools::shim_dir(),
        };
        Some(dir.join(self.shim())).filter(|path| path.is_file())
    }

    /// Its containers are sandboxed by gVisor.
    pub fn gvisor(self) -> bool {
        self != Self::Runc
    }

    /// The runsc for it: the newest that is here.
    pub fn runsc() -> PathBuf {
        tools::runsc().unwrap_or_else(|| "/usr/bin/runsc".into())
    }

    /// The platform for runsc, if it must be named: releases before 2023 have only ptrace and take it by themselves.
    pub(super) fn toml(self, dir: &Path) -> Option<PathBuf> {
        let runsc = Self::runsc();
        let runsc = runsc.display();
        let text = match self {
            Self::Runc => return None,
            Self::Runsc => {
                format!("binary_name = \"{runsc}\"\ngrouping = true\n[runsc_config]\nnetwork = \"host\"\n")
            }
            Self::Lattice => format!("network = \"plain\"\nrunsc = \"{runsc}\"\n"),
        };
        let file = dir.join(format!("{}.toml", self.handler()));
        fs::write(&file, text).expect("the runtime's configuration");
        Some(file)
    }
}

/// A containerd, by the Debian that it is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Release {
    /// `installed`, or a suite such as `trixie`.
    pub name: &'static str,
    /// The directory of containerd, ctr and runc's shim.
    pub dir: PathBuf,
}

impl Release {
    /// The system's own.
    pub fn installed() -> Self {
        Self { name: "installed", dir: "/usr/bin".into() }
    }

    /// The one of that name, if it was to be had; `LATTICE_CONTAINERD` chooses which one tests use that do not care.
    pub fn named(name: &str) -> Option<Self> {
        let known = ["installed", "trixie", "sid"].into_iter().find(|known| *known == name)?;
        if known == "installed" {
            return Some(Self::installed());
        }
        let dir = tools::fetched(&format!("containerd-{known}")).join("usr/bin");
        dir.join("containerd").is_file().then_some(Self { name: known, dir })
    }

    /// The one for tests that do not care: the system's, or what `LATTICE_CONTAINERD` names. gVisor's shim answers as containerd 1.7
    /// wants it and works with nothing older.
    pub fn usual(runtime: Runtime) -> Option<Self> {
        let name = env::var("LATTICE_CONTAINERD").unwrap_or_else(|_| "installed".into());
        let release = Self::named(&name)?;
        if runtime == Runtime::Runsc && release.version() < (1, 7) {
            return Self::named("trixie");
        }
        Some(release)
    }

    /// Its major and minor number.
    ///
    /// # Panics
    /// When it does not run.
    pub fn version(&self) -> (u32, u32) {
        let out = Command::new(self.dir.join("containerd")).arg("--version").output().expect("containerd");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let numbers = text.split_whitespace().find_map(|word| {
            let mut parts = word.trim_start_matches('v').split('.').map(|part| part.parse().ok());
            Some((parts.next()??, parts.next()??))
        });
        numbers.unwrap_or_else(|| panic!("no version in {text:?}"))
    }
}
