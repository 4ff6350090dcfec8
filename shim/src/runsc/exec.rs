//! `runsc exec`: a further process of a container.
//!
//! runsc stays until that process ends, and ends with its status. That it has begun is told by its pid, which runsc writes to a
//! file; that it could not begin by runsc ending without one. With a terminal runsc makes the process that stays itself, and ours by
//! orphaning it.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use lattice_runsc::{Globals, Verb};
use nix::{
    sys::stat::Mode,
    unistd::{Pid, mkfifo},
};
use oci_spec::runtime::Process;
use tokio::{net::unix::pipe, time::timeout};

use super::{
    Runsc, Streams,
    about::{pid_in, set_streams},
    call::Group,
};
use crate::{
    error::{Error, Result},
    io::ChildEnds,
    reaper::Awaited,
};

/// The files of one exec. Dropping it removes them.
struct Files {
    process: PathBuf,
    log: PathBuf,
    /// A FIFO.
    internal_pid: PathBuf,
    pid: PathBuf,
}

impl Runsc {
    /// See [`Runsc::exec`].
    pub(super) async fn begin(
        &self,
        id: &str,
        process: &Process,
        dir: &Path,
        streams: Streams<'_>,
    ) -> Result<(Awaited, i32)> {
        let (files, told) = Files::make(dir, self.next_number(), process)?;
        let globals = Globals { log: Some(files.log.clone()), ..self.globals.clone() };
        match streams {
            Streams::Ends(ends) => self.attached(id, &globals, &files, told, ends).await,
            Streams::Console(console) => self.detached(id, &globals, &files, &told, console).await,
        }
    }

    async fn attached(
        &self,
        id: &str,
        globals: &Globals,
        files: &Files,
        told: pipe::Receiver,
        ends: ChildEnds,
    ) -> Result<(Awaited, i32)> {
        let verb = Verb::Exec { process: &files.process, internal_pid_file: &files.internal_pid };
        let mut command = self.runsc.command(globals, &verb, id);
        set_streams(&mut command, Some(ends));
        let mut group = Group::spawn(&self.reaper, command).map_err(self.not_runnable())?;
        let began = async {
            tokio::select! {
                biased;
                readable = told.readable() => readable.map_err(Error::io(format!("read {}", files.internal_pid.display()))),
                _ = group.exit() => Ok(()),
            }
        };
        timeout(self.limit, began).await.map_err(|_| self.took_too_long("exec", id))??;
        let process = read_pid(&told).zip(group.release());
        process
            .map(|(pid, process)| (process, pid))
            .ok_or_else(|| self.refusal("exec", id, Some(&files.log), &[]))
    }

    async fn detached(
        &self,
        id: &str,
        globals: &Globals,
        files: &Files,
        told: &pipe::Receiver,
        console: &Path,
    ) -> Result<(Awaited, i32)> {
        let verb = Verb::ExecDetached {
            process: &files.process,
            internal_pid_file: &files.internal_pid,
            pid_file: &files.pid,
            console,
        };
        let mut command = self.runsc.command(globals, &verb, id);
        set_streams(&mut command, None);
        let group = Group::spawn(&self.reaper, command).map_err(self.not_runnable())?;
        let status = group.status(self.limit).await.ok_or_else(|| self.took_too_long("exec", id))?;
        let stays = pid_in(&files.pid);
        match (status, stays, read_pid(told)) {
            (0, Some(stays), Some(pid)) => Ok((self.reaper.adopt(stays), pid)),
            _ => Err(self.refusal("exec", id, Some(&files.log), &[])),
        }
    }
}

impl Files {
    fn make(dir: &Path, number: u64, process: &Process) -> Result<(Self, pipe::Receiver)> {
        let at = |what: &str| dir.join(format!("exec-{number}.{what}"));
        let files = Self { process: at("json"), log: at("log"), internal_pid: at("fifo"), pid: at("pid") };
        let written = serde_json::to_vec(process).map_err(std::io::Error::from).and_then(|text| {
            fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&files.process)?
                .write_all(&text)
        });
        written.map_err(Error::io(format!("write {}", files.process.display())))?;
        let told = mkfifo(&files.internal_pid, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(std::io::Error::from)
            // As a writer too, we never see an end of it.
            .and_then(|()| pipe::OpenOptions::new().read_write(true).open_receiver(&files.internal_pid))
            .map_err(Error::io(format!("create {}", files.internal_pid.display())))?;
        Ok((files, told))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for path in [&self.process, &self.log, &self.internal_pid, &self.pid] {
            // Some were never made.
            let _ = fs::remove_file(path);
        }
    }
}

/// runsc writes it at once, so that it is there whole or not at all.
fn read_pid(told: &pipe::Receiver) -> Option<i32> {
    let mut text = [0; 16];
    let n = told.try_read(&mut text).ok()?;
    let pid: i32 = std::str::from_utf8(&text[..n]).ok()?.trim().parse().ok()?;
    (Pid::from_raw(pid) > Pid::from_raw(0)).then_some(pid)
}
