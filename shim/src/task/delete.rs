//! `Delete`: what a container leaves is removed, and with the last of them the pod.

use std::{fs, sync::Arc, time::Duration};

use containerd_shim_protos::{api::DeleteResponse, events::task::TaskDelete};
use tokio::time::timeout;

use super::{
    exits, network,
    pod::{Container, Exec, Pod, ProcessOf},
    process::{Phase, Process},
    start,
};
use crate::{
    annotations::Role,
    cgroup,
    error::{Error, Result},
    events::Event,
    mounts,
    reaper::Exit,
};

/// How long output may take that was written before the end. Go's shim allows the same.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a killed sandbox may take to end.
const END: Duration = Duration::from_secs(5);

/// Removes a container or an exec that has ended or was never started.
pub(super) async fn delete(pod: Arc<Pod>, id: &str, exec_id: &str) -> Result<DeleteResponse> {
    let container = pod.container(id)?;
    match container.process(exec_id)? {
        ProcessOf::Init(container) => delete_container(&pod, &container).await,
        ProcessOf::Exec(exec) => delete_exec(&container, &exec).await,
    }
}

async fn delete_exec(container: &Container, exec: &Exec) -> Result<DeleteResponse> {
    let process = &exec.process;
    let _order = process.order.lock().await;
    deletable(process, &process.exec_id)?;
    drain(process).await;
    container.execs().remove(&process.exec_id);
    let exit = process.exit().unwrap_or_else(exits::killed);
    // One that was never started: a start that waits for its turn finds it ended, and so does whoever waits for its end.
    process.stop(exit);
    Ok(reply(process, exit))
}

async fn delete_container(pod: &Arc<Pod>, container: &Container) -> Result<DeleteResponse> {
    let (id, init) = (&container.id, &container.init);
    let _order = init.order.lock().await;
    deletable(init, id)?;
    // Two deletes at once: the other has done it.
    pod.container(id)?;
    let log = |what: &str, result: Result<()>| {
        if let Err(error) = result {
            tracing::warn!(container = id, %error, "deleting: {what}");
        }
    };
    log("runsc", pod.runsc()?.delete(id).await);
    if container.role == Role::Root {
        // What goes on keeps its policy: containerd tries again.
        end_sandbox(pod).await?;
    }
    exits::tell_locked(pod, container, pod.sandbox.borrow().exit.unwrap_or_else(exits::killed));
    drain(init).await;
    log("root file system", mounts::unmount_all(&container.bundle.join("rootfs")));
    let mut groups = container.cgroup.directories();
    if container.role == Role::Root {
        groups.extend(pod.fence());
    }
    log("cgroup", cgroup::remove(&groups));
    log(
        "record",
        pod.note(|record| {
            record.cgroups.retain(|group| group.exists());
            record.fence = record.fence.take().filter(|group| group.exists());
        }),
    );
    if let Err(error) = fs::remove_dir_all(&container.place) {
        tracing::debug!(container = id, %error, "its bundle is gone already");
    }
    pod.remove(id);
    let exit = init.exit().unwrap_or_else(exits::killed);
    let response = reply(init, exit);
    pod.publish(Event::Delete(TaskDelete {
        container_id: id.clone(),
        pid: response.pid,
        exit_status: response.exit_status,
        exited_at: response.exited_at.clone(),
        ..TaskDelete::default()
    }));
    if container.role == Role::Root {
        network::stop(pod).await;
    }
    if pod.is_empty() && pod.is_undone() {
        log("state", pod.place.remove());
    }
    Ok(response)
}

/// Before this process ends without a container: nobody else calls for what a group that was busy too long has left on disk, as containerd's
/// `delete` comes only for a shim that died. A network that is not undone stays on record, and so does what goes on.
pub(super) async fn finish(pod: &Pod) {
    if !pod.has_groups() || pod.is_up() {
        return;
    }
    let ended = match pod.runsc() {
        Ok(runsc) => runsc.kill_sandbox().await,
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        return tracing::warn!(%error, "its sandbox may go on: the pod's state stays");
    }
    if let Err(error) = cgroup::remove(&pod.groups()) {
        tracing::warn!(%error, "a cgroup of the pod stays: remove it by hand");
    }
    if let Err(error) = pod.place.remove() {
        tracing::warn!(%error, "the pod's state stays");
    }
}

/// Makes sure that gVisor's kernel has ended: without it nothing of the pod runs.
///
/// # Errors
/// When it does not: then its policy must stay.
pub(super) async fn end_sandbox(pod: &Pod) -> Result<()> {
    start::kill_sandbox(pod);
    let mut sandbox = pod.sandbox.subscribe();
    let ended = sandbox.wait_for(|sandbox| sandbox.pid == 0 || sandbox.exit.is_some());
    let late = |_| {
        let pid = pod.sandbox.borrow().pid;
        tracing::error!(pid, "the sandbox does not end");
        Error::Timeout { what: format!("the end of the sandbox, process {pid},"), seconds: END.as_secs() }
    };
    timeout(END, ended).await.map(drop).map_err(late)
}

fn deletable(process: &Process, name: &str) -> Result<()> {
    match process.phase() {
        Phase::Created | Phase::Stopped => Ok(()),
        Phase::Running | Phase::Paused => {
            Err(Error::FailedPrecondition(format!("{name} runs: it must end before it can be deleted")))
        }
    }
}

async fn drain(process: &Process) {
    if let Some(copies) = process.disconnect() {
        copies.drain(DRAIN).await;
    }
}

fn reply(process: &Process, exit: Exit) -> DeleteResponse {
    DeleteResponse {
        pid: process.pid(),
        exit_status: exit.status,
        exited_at: exits::timestamp(exit.at),
        ..DeleteResponse::default()
    }
}
