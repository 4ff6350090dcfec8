//! `Create`: everything up to a container that runsc can start.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use containerd_shim_protos::{
    api::{CreateTaskRequest, Mount},
    events::task::{TaskCreate, TaskIO},
    protobuf::MessageField,
};
use oci_spec::runtime::Spec;
use tokio::sync::watch;

use super::{
    checkpoint, exits, fence, network,
    pod::{Container, Pod, Sandbox},
    process::Process,
};
use crate::{
    annotations::{self, Role},
    cgroup::{self, Cgroup},
    config::NetworkKind,
    error::{Error, Result},
    events::Event,
    io::Stdio,
    mounts,
    runsc::Streams,
    spec::{self, Edit},
};

/// A spec of 10 MiB would still be read; containerd's own messages are smaller.
const MAX_SPEC: u64 = 10 << 20;
/// How long runsc may take to send a terminal.
const CONSOLE: std::time::Duration = std::time::Duration::from_secs(30);

/// Makes a container. On failure nothing of it stays.
pub(super) async fn create(pod: Arc<Pod>, request: CreateTaskRequest) -> Result<u32> {
    let id = request.id.clone();
    let reservation = pod.reserve(&id)?;
    let bundle = PathBuf::from(&request.bundle);
    let mut spec = read_spec(&bundle)?;
    let stated = spec.annotations().clone().unwrap_or_default();
    annotations::check(&stated)?;
    let role = annotations::role(&stated);
    let is_first = role == Role::Root;
    if is_first != (id == pod.place.id()) {
        let text = format!("container {id} cannot be the {role:?} of pod {}", pod.place.id());
        return Err(Error::Invalid(text));
    }
    checkpoint::check(&request.checkpoint, role)?;
    let token = spec.process_mut().as_mut().and_then(spec::take_token);
    if is_first {
        pod.place.create()?;
    }
    let made = make(&pod, &request, &mut spec, role, token).await;
    let container = match made {
        Ok(container) => container,
        Err(error) => {
            undo(&pod, &id, &bundle, &spec, role).await;
            return Err(error);
        }
    };
    container.oom_told.store(pod.oom_kills(&container), Ordering::Relaxed);
    let pid = container.init.pid();
    reservation.fill(container.clone());
    pod.publish(Event::Create(told(&request, pid)));
    exits::watch(pod, container);
    Ok(pid)
}

async fn make(
    pod: &Arc<Pod>,
    request: &CreateTaskRequest,
    spec: &mut Spec,
    role: Role,
    token: Option<zeroize::Zeroizing<String>>,
) -> Result<Arc<Container>> {
    let (id, bundle) = (request.id.as_str(), Path::new(&request.bundle));
    spec::root_cgroup(spec);
    let runsc = pod.runsc()?;
    let cgroup = cgroup_of(spec, id);
    pod.note(|record| {
        (record.pid, record.started) = (std::process::id(), crate::delete::start_time(std::process::id()));
        record.runsc = runsc.program().to_owned();
        record.config = pod.settings.config_path.clone();
        for group in cgroup.all() {
            if !record.cgroups.contains(&group) {
                record.cgroups.push(group);
            }
        }
    })?;
    let (beginning, resolv_conf) = match role {
        Role::Root => {
            let beginning = network::prepare(pod, spec, token).await?;
            let resolv_conf = beginning.as_ref().map(|beginning| beginning.resolv_conf().to_owned());
            (beginning, resolv_conf)
        }
        Role::Member => (None, network::join(pod, token).await?),
    };
    let edit = Edit { role, network: pod.config()?.network, bundle, resolv_conf: resolv_conf.as_deref() };
    spec::edit(spec, &edit)?;
    if let Some(netns) = spec::netns(spec).filter(|_| edit.network != NetworkKind::None) {
        spec::check_netns(netns)?;
    }

    let place = pod.place.create_bundle(id)?;
    let config = serde_json::to_vec(spec).map_err(|error| Error::Invalid(format!("config.json: {error}")))?;
    fs::write(place.join("config.json"), config)
        .map_err(Error::io(format!("write {}", place.join("config.json").display())))?;
    mount_rootfs(&request.rootfs, bundle)?;
    let image = Some(&request.checkpoint).filter(|path| !path.is_empty()).map(PathBuf::from);
    if image.is_some() {
        checkpoint::clear(spec, bundle)?;
    }

    let stdio = Stdio {
        stdin: request.stdin.clone(),
        stdout: request.stdout.clone(),
        stderr: request.stderr.clone(),
        terminal: request.terminal,
    };
    let init = Process::new(String::new(), stdio);
    let fence = match role {
        Role::Root => fence::raise(pod, spec),
        Role::Member => None,
    };
    // Beside each other, both to their end: nothing of the pod's runs before `Start`, and whoever undoes the one finds nothing under way
    // of the other. Why there is no network says more than what runsc makes of that.
    let (network, made) =
        tokio::join!(network::begin(pod, beginning), run(pod, &runsc, id, &place, &init, fence.as_deref()));
    network?;
    let pid = made?;
    init.born(pid, Some(1));
    if role == Role::Root {
        pod.sandbox.send_replace(Sandbox { pid, exit: None });
        network::police_calls(pod, &cgroup, pid).await;
    }
    Ok(Arc::new(Container {
        id: id.to_owned(),
        role,
        bundle: bundle.to_owned(),
        place,
        init,
        execs: Mutex::new(HashMap::new()),
        oom_told: AtomicU64::default(),
        cgroup,
        checkpoint: image,
        begun: watch::Sender::new(false),
        ending: watch::Sender::new(false),
    }))
}

/// `runsc create`, with its streams or its terminal, in the cgroup `fence` if there is one.
async fn run(
    pod: &Pod,
    runsc: &crate::runsc::Runsc,
    id: &str,
    place: &Path,
    init: &Process,
    fence: Option<&Path>,
) -> Result<u32> {
    let (stdio, namespace) = (&init.stdio, &pod.settings.namespace);
    let pid = if stdio.terminal {
        let socket = stdio.listen(place)?;
        let path = socket.path();
        let pid = runsc.create(id, place, Streams::Console(&path), fence).await?;
        init.connect(socket.accept(stdio, namespace, id, &pod.settings.reaper, CONSOLE).await?);
        pid
    } else {
        let (ends, copies) = stdio.open(namespace, id, &pod.settings.reaper).await?;
        init.connect(copies);
        runsc.create(id, place, Streams::Ends(ends), fence).await?
    };
    u32::try_from(pid.as_raw()).map_err(|_| Error::Invalid(format!("runsc told the pid {pid}")))
}

fn mount_rootfs(mounts: &[Mount], bundle: &Path) -> Result<()> {
    if mounts.is_empty() {
        return Ok(());
    }
    let target = bundle.join("rootfs");
    fs::create_dir_all(&target).map_err(Error::io(format!("create {}", target.display())))?;
    mounts::mount_all(mounts, &target)
}

/// Removes what a create that failed has made. What cannot be removed is logged; the next `delete` tries again.
pub(super) async fn undo(pod: &Arc<Pod>, id: &str, bundle: &Path, spec: &Spec, role: Role) {
    let log = |what: &str, result: Result<()>| {
        if let Err(error) = result {
            tracing::warn!(container = id, %error, "undoing a failed create: {what}");
        }
    };
    let mut ended = Ok(());
    if let Ok(runsc) = pod.runsc() {
        log("runsc", runsc.delete(id).await);
        if role == Role::Root {
            ended = runsc.kill_sandbox().await;
        }
    }
    log("root file system", mounts::unmount_all(&bundle.join("rootfs")));
    let fence = pod.fence().filter(|_| role == Role::Root && ended.is_ok());
    let groups: Vec<PathBuf> = cgroup_of(spec, id).directories().into_iter().chain(fence).collect();
    let removed = cgroup::remove(&groups);
    let is_gone = removed.is_ok();
    log("cgroup", removed);
    if let Ok(place) = pod.place.bundle(id) {
        let _ = fs::remove_dir_all(place);
    }
    if role != Role::Root {
        return;
    }
    if ended.is_err() {
        // What goes on keeps its policy, and the record by which containerd's `delete` finds it.
        log("sandbox", ended);
        return network::leave(pod).await;
    }
    network::stop(pod).await;
    if is_gone {
        log("state", pod.place.remove());
    }
}

fn read_spec(bundle: &Path) -> Result<Spec> {
    use std::io::Read as _;
    let path = bundle.join("config.json");
    let mut text = String::new();
    fs::File::open(&path)
        .and_then(|file| file.take(MAX_SPEC).read_to_string(&mut text))
        .map_err(Error::io(format!("read {}", path.display())))?;
    serde_json::from_str(&text).map_err(|error| Error::Invalid(format!("{}: {error}", path.display())))
}

fn told(request: &CreateTaskRequest, pid: u32) -> TaskCreate {
    let io = TaskIO {
        stdin: request.stdin.clone(),
        stdout: request.stdout.clone(),
        stderr: request.stderr.clone(),
        terminal: request.terminal,
        ..TaskIO::default()
    };
    TaskCreate {
        container_id: request.id.clone(),
        bundle: request.bundle.clone(),
        rootfs: request.rootfs.clone(),
        io: MessageField::some(io),
        checkpoint: request.checkpoint.clone(),
        pid,
        ..TaskCreate::default()
    }
}

pub(super) fn cgroup_of(spec: &Spec, id: &str) -> Cgroup {
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
    Cgroup::of_spec(path.and_then(Path::to_str), id)
}
