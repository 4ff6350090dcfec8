//! The gVisor runtime on this machine: which program, which version, which platform.

pub mod answer;
mod command;
mod prctl;
mod probe;
mod verb;

use std::{
    env, fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

pub(crate) use command::driver;
pub use command::{Cgroups, Globals, Network};
pub(crate) use prctl::start_in_group;
pub use verb::{Target, Verb};

use crate::RunscError;

/// How the sentry catches the agent's system calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Platform {
    /// seccomp traps: releases of 2023 and later; preferred.
    Systrap,
    /// ptrace(2): runs everywhere, slower.
    Ptrace,
    /// Hardware virtualisation. Hangs on some hosts that do have `/dev/kvm`, so it is used only when asked for.
    Kvm,
}

impl Platform {
    /// The value of runsc's `--platform`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Systrap => "systrap",
            Self::Ptrace => "ptrace",
            Self::Kvm => "kvm",
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Platform {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "systrap" => Ok(Self::Systrap),
            "ptrace" => Ok(Self::Ptrace),
            "kvm" => Ok(Self::Kvm),
            _ => Err(format!("unknown platform {text:?}: use systrap, ptrace or kvm")),
        }
    }
}

/// A runsc that runs here.
#[derive(Debug, Clone)]
pub struct Runsc {
    /// The program, absolute.
    pub path: PathBuf,
    /// Its version as it says it, such as `0.0~20240729.0` or `release-20250820.0`.
    pub version: String,
    /// The platform its sandboxes will use.
    pub platform: Platform,
}

impl Runsc {
    /// Finds runsc at `explicit`, else on `PATH`, and chooses its platform: `platform` if given, else systrap if this
    /// release has it and a sandbox starts with it here, else ptrace.
    ///
    /// What a program answered is remembered under `/run/lattice` until it is replaced or the machine restarts.
    ///
    /// # Errors
    /// One line that names the remedy, when there is no runsc, it is something else, or it lacks `platform`.
    pub fn find(explicit: Option<&Path>, platform: Option<Platform>) -> Result<Self, RunscError> {
        Self::find_with_cache(explicit, platform, Path::new("/run/lattice"))
    }

    /// [`Runsc::find`] with another directory (made 0700) for what is remembered.
    ///
    /// # Errors
    /// As [`Runsc::find`].
    pub fn find_with_cache(
        explicit: Option<&Path>,
        platform: Option<Platform>,
        cache: &Path,
    ) -> Result<Self, RunscError> {
        let path = match explicit {
            Some(path) => path.to_owned(),
            None => on_path().ok_or(RunscError::NotFound)?,
        };
        let path =
            path.canonicalize().map_err(|source| RunscError::NotRunnable { path: path.clone(), source })?;
        let known = probe::Answers::of(&path, cache)?;
        let platform = match platform {
            None => known.preferred,
            Some(asked) if known.platforms.iter().any(|has| has == asked.as_str()) => asked,
            Some(asked) => {
                return Err(RunscError::NoPlatform {
                    platform: asked.to_string(),
                    version: known.version,
                    available: known.platforms,
                });
            }
        };
        Ok(Self { path, version: known.version, platform })
    }
}

fn on_path() -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join("runsc")).find(|path| path.is_file())
}
