//! What changes nothing: `State`, `Pids`, `Stats`, `Connect`; and limits.

use std::sync::Arc;

use containerd_shim_protos::{
    api::{ConnectResponse, PidsResponse, ProcessInfo, StateResponse},
    protobuf::{Message as _, MessageField, well_known_types::any::Any},
    shim::oci::ProcessDetails,
};
use oci_spec::runtime::LinuxResources;

use super::{exits, pod::Pod, process::Phase};
use crate::{
    annotations::Role,
    cgroup::Usage,
    error::{Error, Result},
};

pub(super) fn state(pod: &Pod, id: &str, exec_id: &str) -> Result<StateResponse> {
    let container = pod.container(id)?;
    let process = container.process(exec_id)?;
    let exit = process.exit();
    Ok(StateResponse {
        id: id.to_owned(),
        bundle: container.bundle.display().to_string(),
        pid: process.pid(),
        status: process.status().into(),
        stdin: process.stdio.stdin.clone(),
        stdout: process.stdio.stdout.clone(),
        stderr: process.stdio.stderr.clone(),
        terminal: process.stdio.terminal,
        exit_status: exit.map_or(0, |exit| exit.status),
        exited_at: exit.map_or(MessageField::none(), |exit| exits::timestamp(exit.at)),
        exec_id: exec_id.to_owned(),
        ..StateResponse::default()
    })
}

/// Host pids: those inside the sandbox mean nothing to whoever asks. Never empty for a container that was not deleted: containerd
/// takes a shim without any for a leaked one.
pub(super) fn pids(pod: &Pod, id: &str) -> Result<PidsResponse> {
    let container = pod.container(id)?;
    let mut processes = vec![ProcessInfo { pid: container.init.pid(), ..ProcessInfo::default() }];
    for exec in container.execs().values().filter(|exec| exec.process.phase() == Phase::Running) {
        let details = ProcessDetails { exec_id: exec.process.exec_id.clone(), ..ProcessDetails::default() };
        let value = details.write_to_bytes().unwrap_or_default();
        let any = Any {
            type_url: "containerd.runc.v1.ProcessDetails".into(),
            value,
            special_fields: Default::default(),
        };
        processes.push(ProcessInfo {
            pid: exec.process.pid(),
            info: MessageField::some(any),
            special_fields: Default::default(),
        });
    }
    Ok(PidsResponse { processes, ..PidsResponse::default() })
}

pub(super) fn connect(pod: &Pod, id: &str) -> ConnectResponse {
    let task_pid = pod.container(id).map_or(0, |container| container.init.pid());
    ConnectResponse {
        shim_pid: std::process::id(),
        task_pid,
        version: env!("CARGO_PKG_VERSION").into(),
        ..ConnectResponse::default()
    }
}

/// What a container uses. All of a pod run in the group of its first one, so that one's are the pod's; of the others the sandbox keeps
/// count.
pub(super) async fn metrics(pod: &Pod, id: &str) -> Result<Any> {
    let container = pod.container(id)?;
    match container.role {
        Role::Root => container.cgroup.metrics(),
        Role::Member if container.init.phase() == Phase::Running => {
            container.cgroup.metrics_of_member(&pod.runsc()?.usage(id).await?)
        }
        Role::Member => container.cgroup.metrics_of_member(&Usage::default()),
    }
}

/// The groups on the host have the last word; a sandbox that is told as well shows the agent the same. Nothing runs in the groups of a
/// pod's further containers: their limits are the sandbox's affair.
pub(super) async fn update(pod: Arc<Pod>, id: &str, resources: &[u8]) -> Result<()> {
    let container = pod.container(id)?;
    let resources: LinuxResources = serde_json::from_slice(resources)
        .map_err(|error| Error::Invalid(format!("the limits of container {id}: {error}")))?;
    if container.role == Role::Root {
        container.cgroup.update(&resources)?;
    }
    match pod.runsc()?.update(id, &resources).await {
        Ok(()) | Err(Error::Unimplemented(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
