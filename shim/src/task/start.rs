//! `Start`, of containers and of execs; `Exec`, which only notes what is to be started; and signals.

use std::{path::Path, sync::Arc, time::SystemTime};

use containerd_shim_protos::{
    api::ExecProcessRequest,
    events::task::{TaskExecAdded, TaskExecStarted, TaskStart},
};
use nix::{
    sys::signal::{Signal, kill as kill_process},
    unistd::Pid,
};

use super::{
    exits, network,
    pod::{Container, Exec, Pod, ProcessOf},
    process::{Phase, Process},
};
use crate::{
    annotations::Role,
    error::{Error, Result},
    events::Event,
    io::Stdio,
    place,
    reaper::{Awaited, Exit},
    runsc::{LIMIT, Runsc, Streams},
    spec,
};

/// What a shell says of a program that could not be begun.
const NOT_BEGUN: u32 = 126;
/// More than an argument list of Linux can hold.
const MAX_SPEC: usize = 4 << 20;

/// Starts a container's program, or an exec. Gives the pid on the host.
pub(super) async fn start(pod: Arc<Pod>, id: &str, exec_id: &str) -> Result<u32> {
    let container = pod.container(id)?;
    match container.process(exec_id)? {
        ProcessOf::Init(_) => start_init(&pod, &container).await,
        ProcessOf::Exec(exec) => start_exec(&pod, &container, exec).await,
    }
}

async fn start_init(pod: &Pod, container: &Container) -> Result<u32> {
    let init = &container.init;
    // An exit that comes meanwhile is told after the start.
    let _order = init.order.lock().await;
    startable(init, &container.id)?;
    network::check(pod, container.role).await?;
    let runsc = pod.runsc()?;
    match &container.checkpoint {
        Some(image) => runsc.restore(&container.id, &container.place, image).await?,
        None => runsc.start(&container.id, &container.place).await?,
    }
    init.enter(Phase::Running);
    container.begun.send_replace(true);
    let pid = init.pid();
    let (container_id, special_fields) = (container.id.clone(), Default::default());
    pod.publish(Event::Start(TaskStart { container_id, pid, special_fields }));
    Ok(pid)
}

async fn start_exec(pod: &Arc<Pod>, container: &Arc<Container>, exec: Arc<Exec>) -> Result<u32> {
    let process = &exec.process;
    let _order = process.order.lock().await;
    startable(process, &process.exec_id)?;
    if container.init.phase() != Phase::Running || *container.ending.borrow() {
        return Err(Error::FailedPrecondition(format!("container {} does not run", container.id)));
    }
    let runsc = pod.runsc()?;
    let (awaited, inner) = match run(pod, &runsc, container, &exec).await {
        Ok(begun) => begun,
        Err(error) => {
            process.stop(Exit { status: NOT_BEGUN, at: SystemTime::now() });
            return Err(error);
        }
    };
    let pid = awaited.pid().as_raw().cast_unsigned();
    process.born(pid, Some(inner));
    process.enter(Phase::Running);
    pod.publish(Event::ExecStarted(TaskExecStarted {
        container_id: container.id.clone(),
        exec_id: process.exec_id.clone(),
        pid,
        special_fields: Default::default(),
    }));
    exits::watch_exec(pod.clone(), container.id.clone(), exec.clone(), awaited);
    Ok(pid)
}

async fn run(pod: &Pod, runsc: &Runsc, container: &Container, exec: &Exec) -> Result<(Awaited, i32)> {
    let (stdio, namespace) = (&exec.process.stdio, &pod.settings.namespace);
    let (id, dir): (&str, &Path) = (&container.id, &container.place);
    if stdio.terminal {
        let socket = stdio.listen(dir)?;
        let path = socket.path();
        let begun = runsc.exec(id, &exec.spec, dir, Streams::Console(&path)).await?;
        match socket.accept(stdio, namespace, id, &pod.settings.reaper, LIMIT).await {
            Ok(copies) => exec.process.connect(copies),
            Err(error) => {
                // It runs already, and nobody would know of it.
                if let Err(error) = runsc.kill(id, Signal::SIGKILL as u32, Some(begun.1), false).await {
                    tracing::warn!(container = id, %error, "an exec without its terminal goes on");
                }
                return Err(error);
            }
        }
        Ok(begun)
    } else {
        let (ends, copies) = stdio.open(namespace, id, &pod.settings.reaper).await?;
        exec.process.connect(copies);
        runsc.exec(id, &exec.spec, dir, Streams::Ends(ends)).await
    }
}

fn startable(process: &Process, name: &str) -> Result<()> {
    match process.phase() {
        Phase::Created => Ok(()),
        Phase::Running | Phase::Paused => Err(Error::FailedPrecondition(format!("{name} runs already"))),
        Phase::Stopped => Err(Error::FailedPrecondition(format!("{name} has ended"))),
    }
}

/// Notes an exec.
pub(super) fn add_exec(pod: &Pod, request: ExecProcessRequest) -> Result<()> {
    let container = pod.container(&request.id)?;
    place::check_id(&request.exec_id)?;
    if container.init.phase() != Phase::Running || *container.ending.borrow() {
        return Err(Error::FailedPrecondition(format!("container {} does not run", container.id)));
    }
    let text = &request.spec.value;
    if text.len() > MAX_SPEC {
        return Err(Error::Invalid(format!("the process of an exec takes {} bytes", text.len())));
    }
    let mut spec: oci_spec::runtime::Process = serde_json::from_slice(text)
        .map_err(|error| Error::Invalid(format!("the process of exec {}: {error}", request.exec_id)))?;
    drop(spec::take_token(&mut spec));
    spec::edit_exec(&mut spec);
    let stdio = Stdio {
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
        terminal: request.terminal,
    };
    let exec = Exec { process: Process::new(request.exec_id.clone(), stdio), spec };
    {
        let mut execs = container.execs();
        if execs.contains_key(&request.exec_id) {
            return Err(Error::AlreadyExists(format!("exec {}", request.exec_id)));
        }
        execs.insert(request.exec_id.clone(), Arc::new(exec));
    }
    pod.publish(Event::ExecAdded(TaskExecAdded {
        container_id: request.id,
        exec_id: request.exec_id,
        special_fields: Default::default(),
    }));
    Ok(())
}

/// Signals a container's first process, all of its processes, or an exec.
pub(super) async fn kill(pod: Arc<Pod>, id: &str, exec_id: &str, signal: u32, all: bool) -> Result<()> {
    let container = pod.container(id)?;
    let process = container.process(exec_id)?;
    let gone = || Error::NotFound(format!("running process of {id} {exec_id}").trim_end().to_owned());
    let runsc = pod.runsc()?;
    if signal == Signal::SIGKILL as u32 {
        wake(&pod).await;
    }
    match process.phase() {
        Phase::Stopped => return Err(gone()),
        Phase::Created if !exec_id.is_empty() => {
            return Err(Error::FailedPrecondition(format!("exec {exec_id} was not started")));
        }
        _ => {}
    }
    if !exec_id.is_empty() {
        return runsc.kill(id, signal, process.inner_pid(), false).await;
    }
    let told = runsc.kill(id, signal, None, all).await;
    let is_sure = signal == Signal::SIGKILL as u32 && container.role == Role::Root;
    match told {
        Err(error) if is_sure && !matches!(error, Error::NotFound(_)) => {
            // A sentry that does not answer any more.
            tracing::warn!(container = id, %error, "the sandbox is killed from outside");
            kill_sandbox(&pod);
            Ok(())
        }
        told => told,
    }
}

/// Resumes what is paused: gVisor pauses all of its kernel, and nothing dies in one that stands still.
async fn wake(pod: &Arc<Pod>) {
    for container in pod.containers() {
        if container.init.phase() == Phase::Paused
            && let Err(error) = pause(pod.clone(), &container.id, false).await
        {
            tracing::warn!(container = container.id, %error, "it cannot be resumed to be killed");
        }
    }
}

/// Ends gVisor's kernel, and all that runs in it.
pub(super) fn kill_sandbox(pod: &Pod) {
    let sandbox = *pod.sandbox.borrow();
    if sandbox.exit.is_none()
        && sandbox.pid != 0
        && let Err(error) = kill_process(Pid::from_raw(sandbox.pid.cast_signed()), Signal::SIGKILL)
    {
        tracing::debug!(%error, "the sandbox cannot be killed");
    }
}

/// Pauses or resumes a container; gVisor does so with all of its kernel.
pub(super) async fn pause(pod: Arc<Pod>, id: &str, paused: bool) -> Result<()> {
    let container = pod.container(id)?;
    let _order = container.init.order.lock().await;
    let (from, to) = if paused { (Phase::Running, Phase::Paused) } else { (Phase::Paused, Phase::Running) };
    if container.init.phase() != from {
        return Err(Error::FailedPrecondition(format!("container {id} is not {from:?}")));
    }
    let runsc = pod.runsc()?;
    let container_id = id.to_owned();
    let special_fields = Default::default();
    if paused {
        runsc.pause(id).await?;
        container.init.enter(to);
        pod.publish(Event::Paused(containerd_shim_protos::events::task::TaskPaused {
            container_id,
            special_fields,
        }));
    } else {
        runsc.resume(id).await?;
        container.init.enter(to);
        pod.publish(Event::Resumed(containerd_shim_protos::events::task::TaskResumed {
            container_id,
            special_fields,
        }));
    }
    Ok(())
}
