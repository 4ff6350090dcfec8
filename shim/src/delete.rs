//! `delete`: cleans up after a shim that is gone, however it went. Never fails for want of something to clean.
//!
//! containerd runs it whenever a shim's connection is gone, also after an orderly end, and kills it after 5 s. Unless it succeeds
//! the bundle stays, and with it the id. So everything is tried, what fails is told on standard error, and the answer is always
//! given in time.

use std::{
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use containerd_shim_protos::{
    api::DeleteResponse,
    protobuf::{self, Message as _, MessageField, well_known_types::timestamp::Timestamp},
};
use nix::unistd::Pid;

use crate::{
    bundle::Bundle,
    cgroup,
    cli::Flags,
    config::Config,
    error::Result,
    mounts, network,
    place::{PodPlace, Record, check_id},
    procfs, socket,
};

/// Of containerd's 5 s.
const LIMIT: Duration = Duration::from_secs(4);
/// A shim that was told to shut down is about to be gone.
const GRACE: Duration = Duration::from_secs(1);
/// 128 + SIGKILL: that is how whatever still ran has ended.
const KILLED: u32 = 137;

/// Cleans up, and gives what to write to standard output. `warn` is told what could not be done.
///
/// # Errors
/// When the answer cannot be encoded.
pub fn run(flags: &Flags, bundle: Bundle, mut warn: impl FnMut(&str)) -> protobuf::Result<Vec<u8>> {
    let (sender, warnings) = channel();
    let (namespace, id) = (flags.namespace.clone(), flags.id.clone());
    let worker =
        thread::spawn(move || clean(&namespace, &id, &bundle, &|warning| drop(sender.send(warning))));
    let deadline = std::time::Instant::now() + LIMIT;
    loop {
        match warnings.recv_timeout(deadline.saturating_duration_since(std::time::Instant::now())) {
            Ok(warning) => warn(&warning),
            Err(RecvTimeoutError::Timeout) => {
                warn("something takes too long: what is left is for \"lattice doctor --fix\"");
                break;
            }
            Err(RecvTimeoutError::Disconnected) => {
                if worker.join().is_err() {
                    warn("a step failed unexpectedly");
                }
                break;
            }
        }
    }
    DeleteResponse {
        exit_status: KILLED,
        exited_at: MessageField::some(Timestamp::now()),
        ..DeleteResponse::default()
    }
    .write_to_bytes()
}

/// When process `pid` began, in clock ticks since boot (`proc_pid_stat(5)`, field 22); 0 when it is gone.
pub fn start_time(pid: u32) -> u64 {
    procfs::stat(Pid::from_raw(pid.cast_signed())).filter(|stat| !stat.ended).map_or(0, |stat| stat.started)
}

fn clean(namespace: &str, id: &str, bundle: &Bundle, warn: &dyn Fn(String)) {
    let tell = |done: Result<()>| {
        if let Err(error) = done {
            warn(error.to_string());
        }
    };
    if let Err(error) = check_id(namespace).and_then(|()| check_id(id)) {
        return warn(error.to_string());
    }
    let pod = bundle.pod_id(id).unwrap_or_else(|error| {
        warn(error.to_string());
        id.to_owned()
    });
    let config = Config::read(bundle.config().as_deref()).unwrap_or_else(|error| {
        warn(error.to_string());
        Config::default()
    });
    match PodPlace::new(&config.state_dir, namespace, &pod) {
        Ok(place) if pod == id => clean_pod(&place, &config, &tell),
        Ok(place) => clean_member(&place, id, &tell),
        Err(error) => warn(error.to_string()),
    }
    tell(mounts::unmount_all(&bundle.rootfs()));
    if pod == id
        && let Some(socket) = bundle.socket()
    {
        tell(socket::remove_stale(&socket));
    }
}

/// Everything, in the reverse order of its making: no process outlives the policy that holds it.
fn clean_pod(place: &PodPlace, config: &Config, tell: &dyn Fn(Result<()>)) {
    let record = place.read().unwrap_or_default();
    tell(end_shim(&record));
    if let Err(error) = kill_sandbox(place) {
        // The policy stays with it, and the record for whoever tries again.
        return tell(Err(error));
    }
    // They were noted before they were made.
    let groups = record.groups();
    if !groups.is_empty() {
        tell(cgroup::remove(&groups));
    }
    if let Some(peer) = &record.peer {
        tell(
            network::clean_up(config, peer).map_err(|error| crate::error::Error::Network(error.to_string())),
        );
    }
    match mounts::unmount_all(place.dir()) {
        // Removing what a mount leads to would remove somebody else's files.
        Err(error) => tell(Err(error)),
        Ok(()) => tell(place.remove()),
    }
}

/// Of a container that joined a pod. Its processes are the sandbox's: they end with the shim, and only if that is gone.
fn clean_member(place: &PodPlace, id: &str, tell: &dyn Fn(Result<()>)) {
    let is_alive = place.read().is_some_and(|record| is_alive(&record));
    if is_alive && place.bundle(id).is_ok_and(|dir| dir.exists()) {
        // The shim has this container: removing it is the shim's work.
        return;
    }
    if !is_alive {
        tell(kill_sandbox(place));
    }
    let removed = place.bundle(id).and_then(|dir| {
        mounts::unmount_all(&dir)?;
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(crate::error::Error::io(format!("remove {}", dir.display()))(error))
            }
            _ => Ok(()),
        }
    });
    tell(removed);
}

fn is_alive(record: &Record) -> bool {
    record.pid != 0 && start_time(record.pid) == record.started
}

fn end_shim(record: &Record) -> Result<()> {
    if record.pid == 0 {
        return Ok(());
    }
    lattice_runsc::end_process(record.pid, || is_alive(record), GRACE)
        .map_err(crate::error::Error::FailedPrecondition)
}

fn kill_sandbox(place: &PodPlace) -> Result<()> {
    lattice_runsc::kill_sandbox(&place.runsc_root()).map_err(crate::error::Error::FailedPrecondition)
}
