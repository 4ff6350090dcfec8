//! What all commands share: what is read beforehand, how their ends are judged, what is cleaned up.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use lattice_runsc::{Cgroups, Globals, Verb, answer, kill_sandbox};
use nix::{sys::memfd, unistd::Pid};
use serde::Deserialize;
use std::{collections::HashMap, sync::atomic::Ordering};
use tokio::time::timeout;

use super::{
    Runsc,
    call::{self, Group, Output},
    control::{self, Control},
};
use crate::{
    annotations::{self, Annotations, Role},
    error::{Error, Result},
    io::ChildEnds,
    place::check_id,
};

/// More than any specification or log of one command holds.
const MAX_FILE: u64 = 8 << 20;
/// A sandbox answers at once or not at all.
const CONNECT: Duration = Duration::from_secs(5);

/// What of a bundle's `config.json` decides how runsc is called.
#[derive(Debug, Default, Deserialize)]
pub(super) struct About {
    #[serde(default)]
    linux: Linux,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Debug, Default, Deserialize)]
struct Linux {
    #[serde(default, rename = "cgroupsPath")]
    cgroups_path: Option<String>,
}

impl About {
    pub(super) fn read(bundle: &Path) -> Result<Self> {
        let path = bundle.join("config.json");
        let text = read_bounded(&path).map_err(Error::io(format!("read {}", path.display())))?;
        serde_json::from_slice(&text).map_err(|error| Error::Invalid(format!("{}: {error}", path.display())))
    }

    pub(super) fn role(&self) -> Role {
        annotations::role(&self.annotations)
    }
}

impl Runsc {
    /// What reaches a command line or a file name.
    pub(super) fn check(&self, id: &str) -> Result<()> {
        check_id(id)?;
        if id.starts_with('-') {
            return Err(Error::Invalid(format!("{id:?} is no identifier of containerd's")));
        }
        Ok(())
    }

    pub(super) fn exists(&self, id: &str) -> bool {
        control::state_file(&self.globals.root, id).is_some()
    }

    pub(super) fn streams(&self) -> MutexGuard<'_, HashMap<String, ChildEnds>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn next_number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) async fn connect(&self, id: &str) -> io::Result<Control> {
        timeout(CONNECT, Control::connect(&self.globals.root, id)).await?
    }

    /// The flags for a command whose standard error is the container's, and its log, empty.
    pub(super) fn logging_into(&self, bundle: &Path, about: &About) -> Result<(Globals, PathBuf)> {
        let log = bundle.join("log.json");
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&log)
            .map_err(Error::io(format!("create {}", log.display())))?;
        let cgroups = Cgroups::of_path(about.linux.cgroups_path.as_deref());
        Ok((Globals { log: Some(log.clone()), cgroups, ..self.globals.clone() }, log))
    }

    /// Runs a command to its end that says why it failed in its log alone.
    pub(super) async fn do_logged(
        &self,
        verb: &'static str,
        id: &str,
        command: Command,
        log: &Path,
    ) -> Result<()> {
        let group = Group::spawn(&self.reaper, command).map_err(self.not_runnable())?;
        match group.status(self.limit).await {
            Some(0) => Ok(()),
            Some(_) => Err(self.refusal(verb, id, Some(log), &[])),
            None => Err(self.took_too_long(verb, id)),
        }
    }

    /// Runs a command to its end, and gives what it printed.
    pub(super) async fn ask(&self, verb: Verb<'_>, id: &str) -> Result<Vec<u8>> {
        self.check(id)?;
        let output = self.run(verb.name(), id, self.runsc.command(&self.globals, &verb, id)).await?;
        match output.status {
            0 => Ok(output.stdout),
            _ => Err(self.refusal(verb.name(), id, None, &output.stderr)),
        }
    }

    pub(super) async fn run(&self, verb: &'static str, id: &str, command: Command) -> Result<Output> {
        let output = call::run(&self.reaper, command, Some(self.limit)).await.map_err(self.not_runnable())?;
        output.ok_or_else(|| self.took_too_long(verb, id))
    }

    /// Why a command failed.
    pub(super) fn refusal(&self, verb: &'static str, id: &str, log: Option<&Path>, stderr: &[u8]) -> Error {
        if verb != "create" && !self.exists(id) {
            return Error::NotFound(id.to_owned());
        }
        let logged = log.and_then(|log| answer::last_error(&read_bounded(log).ok()?));
        let reason = logged.or_else(|| answer::last_line(stderr));
        Error::Runsc { verb, reason: reason.unwrap_or_else(|| "it gave no reason".into()) }
    }

    pub(super) fn took_too_long(&self, verb: &str, id: &str) -> Error {
        Error::Timeout { what: format!("runsc {verb} of {id}"), seconds: self.limit.as_secs() }
    }

    pub(super) fn not_runnable(&self) -> impl FnOnce(io::Error) -> Error + use<> {
        Error::io(format!("run {}", self.runsc.path.display()))
    }

    pub(super) fn garbled(&self, verb: &'static str) -> impl FnOnce(serde_json::Error) -> Error + use<> {
        move |error| Error::Runsc { verb, reason: format!("its answer cannot be read: {error}") }
    }

    /// Removes what a create that failed may have left.
    pub(super) async fn forget(&self, id: &str) {
        if let Err(error) = self.delete(id).await {
            tracing::warn!(id, %error, "a container that could not be created could not be removed");
        }
        // A sandbox of which runsc has no record, such as when it was killed before it made one.
        if control::state_files(&self.globals.root).next().is_none()
            && let Err(error) = self.kill_sandbox().await
        {
            tracing::warn!(%error, "a sandbox that could not be created goes on");
        }
    }

    /// Ends every process of the pod's that runsc started.
    ///
    /// # Errors
    /// Why one goes on.
    pub async fn kill_sandbox(&self) -> Result<()> {
        let root = self.globals.root.clone();
        let killed = tokio::task::spawn_blocking(move || kill_sandbox(&root)).await;
        let reason = match killed {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(reason)) => reason,
            Err(error) => error.to_string(),
        };
        Err(Error::Runsc { verb: "kill", reason })
    }

    /// Whether the sandbox began with container `id`.
    pub(super) fn is_root(&self, id: &str) -> bool {
        self.globals.root.join(format!("{id}_sandbox:{id}.state")).exists()
    }
}

/// Nothing of ours is inherited: where there are no streams, there is `/dev/null`.
pub(super) fn set_streams(command: &mut Command, ends: Option<ChildEnds>) {
    match ends {
        Some(ends) => command.stdin(ends.stdin).stdout(ends.stdout).stderr(ends.stderr),
        None => command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()),
    };
}

/// A process id that runsc wrote.
pub(super) fn pid_in(path: &Path) -> Option<Pid> {
    let pid: i32 = fs::read_to_string(path).ok()?.trim().parse().ok()?;
    (pid > 1).then(|| Pid::from_raw(pid))
}

/// A file without a name that holds `text`, to be read from its beginning.
pub(super) fn input(text: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd::memfd_create(c"lattice-input", memfd::MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text)?;
    file.rewind()?;
    Ok(file)
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_FILE).read_to_end(&mut text)?;
    Ok(text)
}
