//! The containers of a pod, and what they share.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::watch;

use super::{network::PodNetwork, process::Process};
use crate::{
    annotations::Role,
    cgroup::Cgroup,
    config::Config,
    error::{Error, Result},
    events::{Event, Publisher},
    place::{PodPlace, Record},
    reaper::{Exit, Reaper},
    runsc::Runsc,
};

/// What the shim process knows when it begins.
#[derive(Debug)]
pub struct Settings {
    /// containerd's namespace.
    pub namespace: String,
    /// The pod's id: that of its first container.
    pub pod: String,
    /// What `shim.toml` says. When it cannot be read, pods are refused for that reason.
    pub config: std::result::Result<Config, String>,
    /// Where it is, if it is not at its place.
    pub config_path: Option<PathBuf>,
    /// Waits for children.
    pub reaper: Reaper,
    /// Tells containerd.
    pub publisher: Publisher,
}

/// One container.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) role: Role,
    /// containerd's.
    pub(super) bundle: PathBuf,
    /// runsc's.
    pub(super) place: PathBuf,
    pub(super) init: Process,
    pub(super) execs: Mutex<HashMap<String, Arc<Exec>>>,
    pub(super) cgroup: Cgroup,
    /// An image to restore instead of starting the program.
    pub(super) checkpoint: Option<PathBuf>,
    /// True once runsc has been told to start it, or never will be.
    pub(super) begun: watch::Sender<bool>,
    /// Set when its first process has ended, before that is told: nothing starts in it any more.
    pub(super) ending: watch::Sender<bool>,
    /// How often memory ran out, as told so far.
    pub(super) oom_told: std::sync::atomic::AtomicU64,
}

/// A further process in a container.
#[derive(Debug)]
pub(super) struct Exec {
    pub(super) process: Process,
    pub(super) spec: oci_spec::runtime::Process,
}

/// The pod.
pub(super) struct Pod {
    pub(super) settings: Settings,
    pub(super) place: PodPlace,
    pub(super) network: tokio::sync::Mutex<PodNetwork>,
    runsc: Mutex<Option<Runsc>>,
    record: Mutex<Record>,
    table: Mutex<Table>,
    /// The sandbox's host process and its end, once there is one.
    pub(super) sandbox: watch::Sender<Sandbox>,
    /// Set before the network is taken away for good: nothing begins any more.
    closing: AtomicBool,
    /// Set when this process is to end.
    end: watch::Sender<bool>,
}

/// gVisor's kernel, in which all of the pod's containers run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sandbox {
    pub(super) pid: u32,
    pub(super) exit: Option<Exit>,
}

#[derive(Default)]
struct Table {
    containers: BTreeMap<String, Arc<Container>>,
    /// Ids for which a container is being made.
    reserved: HashSet<String>,
}

/// An id that is in use while its container is being made.
pub(super) struct Reservation {
    pod: Arc<Pod>,
    id: String,
}

impl Pod {
    pub(super) fn new(settings: Settings) -> Result<Self> {
        let state = match &settings.config {
            Ok(config) => config.state_dir.clone(),
            Err(_) => Config::default().state_dir,
        };
        let place = PodPlace::new(&state, &settings.namespace, &settings.pod)?;
        Ok(Self {
            settings,
            place,
            network: tokio::sync::Mutex::default(),
            runsc: Mutex::default(),
            record: Mutex::default(),
            table: Mutex::default(),
            sandbox: watch::Sender::default(),
            closing: AtomicBool::new(false),
            end: watch::Sender::new(false),
        })
    }

    pub(super) fn config(&self) -> Result<&Config> {
        self.settings.config.as_ref().map_err(|reason| Error::Invalid(reason.clone()))
    }

    /// runsc, found at the first call.
    pub(super) fn runsc(&self) -> Result<Runsc> {
        let mut runsc = self.runsc.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runsc) = &*runsc {
            return Ok(runsc.clone());
        }
        let config = self.config()?;
        let found =
            Runsc::new(config, config.network, self.place.runsc_root(), self.settings.reaper.clone())?;
        *runsc = Some(found.clone());
        Ok(found)
    }

    /// Changes what another process needs to clean up after us, before it is done.
    pub(super) fn note(&self, change: impl FnOnce(&mut Record)) -> Result<()> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = record.clone();
        change(&mut new);
        if new != *record {
            self.place.write(&new)?;
            *record = new;
        }
        Ok(())
    }

    /// Whether nothing is on record that has to be undone.
    pub(super) fn is_undone(&self) -> bool {
        let record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.peer.is_none() && !record.has_groups()
    }

    /// Whether its network is not undone.
    pub(super) fn is_up(&self) -> bool {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).peer.is_some()
    }

    /// Whether groups are on record, there or not.
    pub(super) fn has_groups(&self) -> bool {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).has_groups()
    }

    /// The groups on record that are there.
    pub(super) fn groups(&self) -> Vec<PathBuf> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).groups()
    }

    /// The group that was made for its sandbox, if one was.
    pub(super) fn fence(&self) -> Option<PathBuf> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).fence.clone()
    }

    pub(super) fn publish(&self, event: Event) {
        self.settings.publisher.publish(event);
    }

    pub(super) fn reserve(self: &Arc<Self>, id: &str) -> Result<Reservation> {
        crate::place::check_id(id)?;
        let mut table = self.table();
        if table.containers.contains_key(id) || !table.reserved.insert(id.to_owned()) {
            return Err(Error::AlreadyExists(format!("container {id}")));
        }
        Ok(Reservation { pod: self.clone(), id: id.to_owned() })
    }

    /// How often memory ran out for a container: for all of a pod it is counted with the first one, in whose group they run.
    pub(super) fn oom_kills(&self, container: &Container) -> u64 {
        match self.container(self.place.id()) {
            Ok(root) => root.cgroup.oom_kills(),
            Err(_) => container.cgroup.oom_kills(),
        }
    }

    pub(super) fn container(&self, id: &str) -> Result<Arc<Container>> {
        self.table().containers.get(id).cloned().ok_or_else(|| Error::NotFound(format!("container {id}")))
    }

    pub(super) fn containers(&self) -> Vec<Arc<Container>> {
        self.table().containers.values().cloned().collect()
    }

    pub(super) fn remove(&self, id: &str) {
        self.table().containers.remove(id);
    }

    /// Whether there is no container, and none is being made.
    pub(super) fn is_empty(&self) -> bool {
        let table = self.table();
        table.containers.is_empty() && table.reserved.is_empty()
    }

    /// Nothing begins in the pod any more.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Lets the process end.
    pub(super) fn end(&self) {
        self.end.send_replace(true);
    }

    pub(super) async fn ended(&self) {
        let _ = self.end.subscribe().wait_for(|end| *end).await;
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// The container is made.
    pub(super) fn fill(self, container: Arc<Container>) {
        self.pod.table().containers.insert(self.id.clone(), container);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.pod.table().reserved.remove(&self.id);
    }
}

impl Container {
    /// The process that containerd means by `exec_id`.
    pub(super) fn process(self: &Arc<Self>, exec_id: &str) -> Result<ProcessOf> {
        if exec_id.is_empty() {
            return Ok(ProcessOf::Init(self.clone()));
        }
        let found = self.execs().get(exec_id).cloned();
        found
            .map(ProcessOf::Exec)
            .ok_or_else(|| Error::NotFound(format!("exec {exec_id} of container {}", self.id)))
    }

    pub(super) fn execs(&self) -> MutexGuard<'_, HashMap<String, Arc<Exec>>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of a container's processes.
pub(super) enum ProcessOf {
    Init(Arc<Container>),
    Exec(Arc<Exec>),
}

impl std::ops::Deref for ProcessOf {
    type Target = Process;
    fn deref(&self) -> &Process {
        match self {
            Self::Init(container) => &container.init,
            Self::Exec(exec) => &exec.process,
        }
    }
}
