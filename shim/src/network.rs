//! Phase one for a pod: in the namespace that CNI made, from the node's namespace.

mod annotations;
pub mod config;
mod name;
mod resolv;

use std::{
    collections::HashMap,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::Duration,
};

use lattice_bootstrap::{
    AttachMode, Failure, Join, Kind, Progress, Ready, Role, Sandbox, SandboxConfig, StateDir, Stop,
    enforcement,
};
use lattice_wire::{PeerName, message::PeerKind};
use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};
use zeroize::Zeroizing;

use crate::{config::Config, place::PodPlace};
use annotations::Asked;
use config::NodeNetwork;
use name::Whose;
use resolv::Searching;

/// A request to a server that does not answer must not hold the end back.
const PATIENCE: Duration = Duration::from_secs(1);

/// A pod, as its first container's spec tells of it.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Kubernetes' namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
    /// Its unique id.
    pub uid: String,
    /// The path of its network namespace.
    pub netns: PathBuf,
    /// `lattice.io/*` and what else containerd passes on.
    pub annotations: HashMap<String, String>,
    /// The `resolv.conf` that kubelet made for it.
    pub resolv_conf: Option<PathBuf>,
}

/// The files about nameservers, which are there before phase one begins: runsc mounts one of them when it makes the sandbox.
#[derive(Debug)]
pub struct Resolv {
    /// Whom our resolver asks.
    asked: PathBuf,
    /// What the pod's containers get.
    given: PathBuf,
    search: Vec<String>,
}

/// A pod's network, as long as this value lives. Dropping it undoes it as [`Network::stop`] does, but for what it keeps.
pub struct Network {
    // Before the runtime that serves it.
    sandbox: Sandbox,
    runtime: Serving,
    peer: PeerName,
    resolv_conf: PathBuf,
    /// Deleted with the pod.
    credentials: Option<PathBuf>,
}

impl Network {
    /// Whether phase one can begin without a pod's own token: the node has one, or credentials are kept.
    ///
    /// # Errors
    /// When the annotations or `shim.toml` are wrong.
    pub fn needs_token(config: &Config, pod: &Pod) -> Result<bool, Failure> {
        let peer = peer(&config.lattice, pod, &annotations::read(&pod.annotations)?)?;
        Ok(config.lattice.token_file.is_none() && !credentials(&config.lattice, &peer).exists())
    }

    /// Runs phase one. Blocks for some 0.1 s, at most for the bound of each step. Call it on a thread that is in the node's
    /// network namespace and in no runtime; `token` is the pod's own, which goes before the node's. Meanwhile runsc may make the
    /// sandbox: nothing of the pod's runs until that is started.
    ///
    /// # Errors
    /// The first step that failed; all earlier ones are undone.
    pub fn start(
        config: &Config,
        pod: &Pod,
        resolv: Resolv,
        token: Option<Zeroizing<String>>,
    ) -> Result<Self, Failure> {
        let lattice = &config.lattice;
        let asked = annotations::read(&pod.annotations)?;
        let peer = peer(lattice, pod, &asked)?;
        enforcement(lattice.enforcer)?;
        lattice_overlay::can_create(lattice.wireguard)
            .map_err(|reason| Failure::new(Kind::Kernel, format!("device: {reason}")))?;
        let file = credentials(lattice, &peer);
        make_private(&lattice.audit_dir)?;
        let join = Join {
            name: peer.clone(),
            kind: PeerKind::Sandbox,
            server: lattice.server()?,
            token: match token {
                Some(token) => Some(config::token(&token).map_err(|failure| {
                    Failure::new(failure.kind, format!("LATTICE_TOKEN of the pod: {}", failure.message))
                })?),
                None if file.exists() => None,
                None => lattice.token()?,
            },
            credentials: file.clone(),
            listen_port: 0,
            preset: asked.preset,
            for_good: !lattice.keep,
        };
        let sandbox = SandboxConfig {
            join,
            egress: asked.egress.unwrap_or_else(|| lattice.egress_default.clone()),
            backend: lattice.wireguard,
            enforcer: lattice.enforcer,
            attach: AttachMode::Auto,
            audit_file: lattice.audit_dir.join(format!("{peer}.jsonl")),
            mtu: lattice.mtu,
            pod: Some(lattice_bootstrap::Pod {
                netns: pod.netns.clone(),
                resolv_conf: resolv.asked,
                search: resolv.search,
                most: lattice.egress_allow.clone(),
                probes: lattice.probes,
                private: lattice.private()?,
            }),
        };
        let state = StateDir::claim(&config.state_dir, Role::Sandbox, &peer)?;
        let runtime = Serving::start()?;
        let (_never, stop) = Stop::new();
        let (handle, mut logged) = (&runtime.handle, Logged(&peer));
        let (sandbox, ()) = Sandbox::start(sandbox, state, handle, &mut logged, &stop, |_| Ok(()))?;
        let credentials = (!lattice.keep).then_some(file);
        Ok(Self { sandbox, runtime, peer, resolv_conf: resolv.given, credentials })
    }

    /// What phase two takes.
    pub fn ready(&self) -> &Ready {
        self.sandbox.ready()
    }

    /// The name under which state is claimed, for [`crate::place::Record::peer`].
    pub fn peer(&self) -> &str {
        self.peer.as_str()
    }

    /// The file to mount at `/etc/resolv.conf`.
    pub fn resolv_conf(&self) -> PathBuf {
        self.resolv_conf.clone()
    }

    /// Undoes phase one, and says what could not be undone. Blocks for some seconds at most, also where the control plane is
    /// away. The pod's processes must be gone.
    pub fn stop(self) -> Vec<String> {
        let Self { sandbox, runtime, credentials, .. } = self;
        let mut left = sandbox.stop();
        drop(runtime);
        if let Some(failure) = credentials.and_then(|file| forget(&file).err()) {
            left.push(failure.message);
        }
        left
    }
}

/// Undoes what a killed shim's phase one left on the host for `peer`; in a second, without the network. The pod's processes
/// must be gone.
///
/// # Errors
/// What is left.
pub fn clean_up(config: &Config, peer: &str) -> Result<(), Failure> {
    let name: PeerName = peer.parse().map_err(|error| Failure::new(Kind::Internal, error))?;
    StateDir::claim(&config.state_dir, Role::Sandbox, &name)?.remove()?;
    if config.lattice.keep { Ok(()) } else { forget(&credentials(&config.lattice, &name)) }
}

fn peer(lattice: &NodeNetwork, pod: &Pod, asked: &Asked) -> Result<PeerName, Failure> {
    let whose = Whose {
        namespace: &pod.namespace,
        pod: asked.name.as_deref().unwrap_or(&pod.name),
        uid: (!lattice.keep).then_some(&pod.uid),
    };
    name::peer_name(&lattice.name, whose)
}

fn credentials(lattice: &NodeNetwork, peer: &PeerName) -> PathBuf {
    lattice.credentials_dir.join(format!("{peer}.json"))
}

/// Deletes a peer's keys, and those of an enrolment that was never answered.
fn forget(credentials: &Path) -> Result<(), Failure> {
    for file in
        [credentials.to_owned(), credentials.with_extension("pending"), credentials.with_extension("new")]
    {
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let text = format!("cannot delete the credentials {}: {error}", file.display());
                return Err(Failure::new(Kind::Credentials, text));
            }
            _ => {}
        }
    }
    Ok(())
}

fn make_private(dir: &Path) -> Result<(), Failure> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| {
        Failure::new(
            Kind::Internal,
            format!("cannot make {}: {error}; give another audit_dir", dir.display()),
        )
    })
}

impl Resolv {
    /// Writes them.
    ///
    /// # Errors
    /// Which file cannot be read or written.
    pub fn write(config: &Config, pod: &Pod, place: &PodPlace) -> Result<Self, Failure> {
        let lattice = &config.lattice;
        let fail = |path: &Path, error: &io::Error| {
            Failure::new(Kind::Internal, format!("resolver: cannot use {}: {error}", path.display()))
        };
        let searching = match &pod.resolv_conf {
            Some(path) => Searching::read(path).map_err(|error| fail(path, &error))?,
            None => Searching::default(),
        };
        let given = place.network().join("resolv.conf");
        fs::write(&given, searching.for_containers()).map_err(|error| fail(&given, &error))?;
        let asked = if lattice.nameservers.is_empty() {
            pod.resolv_conf.clone().unwrap_or_else(|| "/etc/resolv.conf".into())
        } else {
            let path = place.network().join("nameservers");
            let text = resolv::of_nameservers(&lattice.nameservers);
            fs::write(&path, text).map_err(|error| fail(&path, &error))?;
            path
        };
        Ok(Self { asked, given, search: searching.search })
    }

    /// The file to mount at `/etc/resolv.conf`.
    pub fn given(&self) -> &Path {
        &self.given
    }
}

/// The runtime that serves the control connection and the signals, on a thread of its own. Dropping it ends its tasks, within
/// [`PATIENCE`].
struct Serving {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    fn start() -> Result<Self, Failure> {
        let fail =
            |error: io::Error| Failure::new(Kind::Internal, format!("cannot start the runtime: {error}"));
        let runtime =
            Builder::new_current_thread().max_blocking_threads(4).enable_all().build().map_err(fail)?;
        let (handle, (stop, stopped)) = (runtime.handle().clone(), oneshot::channel::<()>());
        let serve = move || {
            let _stopped = runtime.block_on(stopped);
            runtime.shutdown_timeout(PATIENCE);
        };
        let thread = thread::Builder::new().name("phase-one".into()).spawn(serve).map_err(fail)?;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// The steps, in the log.
struct Logged<'a>(&'a PeerName);

impl Progress for Logged<'_> {
    fn step(&mut self, name: &'static str, took: Duration, detail: &str) {
        tracing::info!(peer = %self.0, step = name, ms = took.as_millis(), "{detail}");
    }

    fn warn(&mut self, text: &str) {
        tracing::warn!(peer = %self.0, "{text}");
    }
}

/// The name that a pod will have in the overlay and claim on this host.
///
/// # Errors
/// When annotations ask for one that is none.
pub fn peer_name(config: &Config, pod: &Pod) -> Result<String, Failure> {
    let asked = annotations::read(&pod.annotations)?;
    peer(&config.lattice, pod, &asked).map(|name| name.to_string())
}
