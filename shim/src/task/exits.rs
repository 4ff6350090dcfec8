//! Who ended when, told in the order that containerd relies on: memory that ran out, then every exec of a container, then its
//! first process; and no end before the start it belongs to.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use containerd_shim_protos::{
    events::task::{TaskExit, TaskOOM},
    protobuf::{MessageField, well_known_types::timestamp::Timestamp},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::{sleep, timeout};

use super::{
    pod::{Container, Exec, Pod},
    process::Phase,
};
use crate::{
    annotations::Role,
    error::Error,
    events::Event,
    reaper::{Awaited, Exit},
    runsc::Status,
};

/// How long the processes of execs may take to notice that their container is gone.
const EXECS: Duration = Duration::from_secs(5);
/// How often a sandbox is asked that did not say when a container of it ended.
const ASK: Duration = Duration::from_secs(1);
/// What is told of an end that nobody saw.
const UNSEEN: u32 = 255;

/// Watches for the end of a container, and for its memory running out.
pub(super) fn watch(pod: Arc<Pod>, container: Arc<Container>) {
    let (of_oom, ended) = (pod.clone(), container.clone());
    tokio::spawn(async move {
        let Ok(mut watch) = ended.cgroup.watch_oom() else { return };
        let mut ending = ended.ending.subscribe();
        loop {
            tokio::select! {
                () = watch.next() => tell_oom(&of_oom, &ended),
                _ = ending.wait_for(|ending| *ending) => return,
            }
        }
    });
    tokio::spawn(async move {
        let exit = match container.role {
            Role::Root => root_exit(&pod, &container).await,
            Role::Member => tokio::select! {
                exit = member_exit(&pod, &container) => exit,
                // Deleted before it began: nobody is left to tell.
                _ = container.init.wait() => return,
            },
        };
        tell(&pod, &container, exit).await;
    });
}

/// Tells the end of a container.
pub(super) async fn tell(pod: &Pod, container: &Container, exit: Exit) {
    container.ending.send_replace(true);
    end_execs(pod, container).await;
    let _order = container.init.order.lock().await;
    tell_locked(pod, container, exit);
}

/// [`tell`], by whoever holds the order already and knows of no running exec.
pub(super) fn tell_locked(pod: &Pod, container: &Container, exit: Exit) {
    container.ending.send_replace(true);
    if container.init.exit().is_some() {
        return;
    }
    tell_oom(pod, container);
    pod.publish(Event::Exit(told(&container.id, &container.id, container.init.pid(), exit)));
    container.init.stop(exit);
}

/// Watches for the end of an exec.
pub(super) fn watch_exec(pod: Arc<Pod>, container: String, exec: Arc<Exec>, mut awaited: Awaited) {
    tokio::spawn(async move {
        let exit = awaited.exit().await;
        tell_exec(&pod, &container, &exec, exit).await;
    });
}

/// Tells the end of an exec, unless it was told.
async fn tell_exec(pod: &Pod, container: &str, exec: &Exec, exit: Exit) {
    let process = &exec.process;
    let _order = process.order.lock().await;
    if process.exit().is_none() {
        pod.publish(Event::Exit(told(container, &process.exec_id, process.pid(), exit)));
        process.stop(exit);
    }
}

async fn root_exit(pod: &Pod, container: &Container) -> Exit {
    let pid = container.init.pid();
    let exit = pod.settings.reaper.adopt(Pid::from_raw(pid.cast_signed())).exit().await;
    pod.sandbox.send_modify(|sandbox| sandbox.exit = Some(exit));
    exit
}

/// A member has no process of its own on the host: the sandbox is asked, until it ends itself.
async fn member_exit(pod: &Pod, container: &Container) -> Exit {
    let mut sandbox = pod.sandbox.subscribe();
    let mut begun = container.begun.subscribe();
    let sandbox_ends = async {
        let ended = sandbox.wait_for(|sandbox| sandbox.exit.is_some()).await;
        ended.ok().and_then(|sandbox| sandbox.exit).unwrap_or_else(unseen)
    };
    let ends = async {
        let _ = begun.wait_for(|begun| *begun).await;
        match ask(pod, &container.id).await {
            Some(exit) => exit,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        exit = ends => exit,
        exit = sandbox_ends => exit,
    }
}

/// `None`: with the sandbox.
async fn ask(pod: &Pod, id: &str) -> Option<Exit> {
    let runsc = pod.runsc().ok()?;
    loop {
        match runsc.wait(id).await {
            Ok(exit) => return exit,
            Err(error) => tracing::warn!(container = id, %error, "the sandbox does not say when it ends"),
        }
        match runsc.status(id).await {
            Ok(Status::Stopped) | Err(Error::NotFound(_)) => return Some(unseen()),
            _ => sleep(ASK).await,
        }
    }
}

fn unseen() -> Exit {
    Exit { status: UNSEEN, at: SystemTime::now() }
}

/// Waits until all execs have been told to have ended; those that do not notice are killed, and those that do not die in time are told
/// killed: their end is never told after the container's.
async fn end_execs(pod: &Pod, container: &Container) {
    let execs: Vec<_> = container.execs().values().cloned().collect();
    let all = async {
        for exec in &execs {
            // A start under way first comes to its end.
            drop(exec.process.order.lock().await);
            if exec.process.phase() != Phase::Created {
                exec.process.wait().await;
            }
        }
    };
    if timeout(EXECS, all).await.is_ok() {
        return;
    }
    for exec in execs.iter().filter(|exec| exec.process.phase() == Phase::Running) {
        let _ = kill(Pid::from_raw(exec.process.pid().cast_signed()), Signal::SIGKILL);
    }
    let rest = async {
        for exec in execs.iter().filter(|exec| exec.process.phase() == Phase::Running) {
            exec.process.wait().await;
        }
    };
    if timeout(EXECS, rest).await.is_ok() {
        return;
    }
    for exec in execs.iter().filter(|exec| exec.process.phase() == Phase::Running) {
        tracing::warn!(container = container.id, exec = exec.process.exec_id, "told ended, and has not");
        tell_exec(pod, &container.id, exec, killed()).await;
    }
}

fn tell_oom(pod: &Pod, container: &Container) {
    let kills = pod.oom_kills(container);
    if kills > container.oom_told.fetch_max(kills, Ordering::Relaxed) {
        pod.publish(Event::Oom(TaskOOM { container_id: container.id.clone(), ..TaskOOM::default() }));
    }
}

fn told(container: &str, id: &str, pid: u32, exit: Exit) -> TaskExit {
    TaskExit {
        container_id: container.to_owned(),
        id: id.to_owned(),
        pid,
        exit_status: exit.status,
        exited_at: timestamp(exit.at),
        special_fields: Default::default(),
    }
}

/// As messages carry it.
pub(super) fn timestamp(at: SystemTime) -> MessageField<Timestamp> {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    MessageField::some(Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: since.subsec_nanos().cast_signed(),
        special_fields: Default::default(),
    })
}

/// How a process that was never started, or that cannot be asked, is said to have ended.
pub(super) fn killed() -> Exit {
    Exit { status: 128 + Signal::SIGKILL as u32, at: SystemTime::now() }
}
