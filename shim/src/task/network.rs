//! The pod's network, as far as its containers need to know.

use std::{
    mem::ManuallyDrop,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use oci_spec::runtime::Spec;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::{fence, pod::Pod};
use crate::{
    annotations::{self, Annotations, Role, SANDBOX_NAME, SANDBOX_NAMESPACE, SANDBOX_UID},
    cgroup::Cgroup,
    config::NetworkKind,
    error::{Error, Result},
    network::{self, Network, Resolv},
    spec,
};

/// How far it is.
#[derive(Default)]
pub(super) enum PodNetwork {
    /// Not ours, or not begun.
    #[default]
    None,
    /// The first container that brings a token begins it.
    Waiting(Box<network::Pod>),
    /// Phase one is done. Only [`stop`] undoes it: whatever else ends this process leaves the policy in force, which holds a sandbox
    /// that may still run. The clean-up is containerd's `delete`.
    Up(ManuallyDrop<Box<Network>>),
}

/// Phase one that may begin.
pub(super) struct Beginning {
    described: network::Pod,
    resolv: Resolv,
    token: Option<Zeroizing<String>>,
}

impl Beginning {
    fn new(pod: &Pod, described: network::Pod, token: Option<Zeroizing<String>>) -> Result<Self> {
        let resolv = Resolv::write(pod.config()?, &described, &pod.place).map_err(failed)?;
        Ok(Self { described, resolv, token })
    }

    /// What to mount at `/etc/resolv.conf`.
    pub(super) fn resolv_conf(&self) -> &Path {
        self.resolv.given()
    }
}

/// Looks at the pod's first container. `None`: the network is not ours, or waits for a token.
pub(super) async fn prepare(
    pod: &Pod,
    spec: &Spec,
    token: Option<Zeroizing<String>>,
) -> Result<Option<Beginning>> {
    if pod.config()?.network != NetworkKind::Lattice {
        return Ok(None);
    }
    let described = describe(pod, spec)?;
    let waits = token.is_none() && Network::needs_token(pod.config()?, &described).map_err(failed)?;
    if !waits {
        return Beginning::new(pod, described, token).map(Some);
    }
    // Of a container that is a pod of its own the program is the agent: it does not run unpoliced meanwhile.
    if !annotations::is_pause(&described.annotations) {
        return Err(no_token());
    }
    let mut network = pod.network.lock().await;
    if pod.is_closing() {
        return Err(gone());
    }
    *network = PodNetwork::Waiting(Box::new(described));
    Ok(None)
}

/// Runs phase one, if there is one to run. runsc may make the sandbox meanwhile.
pub(super) async fn begin(pod: &Arc<Pod>, beginning: Option<Beginning>) -> Result<()> {
    let Some(beginning) = beginning else { return Ok(()) };
    let mut network = pod.network.lock().await;
    if pod.is_closing() {
        return Err(gone());
    }
    *network = PodNetwork::Up(ManuallyDrop::new(Box::new(start(pod, beginning).await?)));
    Ok(())
}

/// Has the policy judge the calls of the sandbox too, as soon as both are there. A missing fence is told, and is no failure.
pub(super) async fn police_calls(pod: &Pod, cgroup: &Cgroup, sandbox: u32) {
    if let PodNetwork::Up(network) = &*pod.network.lock().await {
        fence::police(pod, network.ready(), cgroup, sandbox);
    }
}

/// Makes sure that it is up before a further container is made. Gives what to mount at `/etc/resolv.conf`.
pub(super) async fn join(pod: &Arc<Pod>, token: Option<Zeroizing<String>>) -> Result<Option<PathBuf>> {
    if pod.config()?.network != NetworkKind::Lattice {
        return Ok(None);
    }
    let mut network = pod.network.lock().await;
    if pod.is_closing() {
        return Err(gone());
    }
    if let PodNetwork::Waiting(described) = &*network {
        if token.is_none() {
            return Err(no_token());
        }
        let up = start(pod, Beginning::new(pod, (**described).clone(), token)?).await?;
        if let Ok(root) = pod.container(pod.place.id()) {
            fence::police(pod, up.ready(), &root.cgroup, root.init.pid());
        }
        *network = PodNetwork::Up(ManuallyDrop::new(Box::new(up)));
    }
    match &*network {
        PodNetwork::Up(network) => Ok(Some(network.resolv_conf())),
        _ => Err(gone()),
    }
}

/// Refuses to begin a program of the pod's without its network: it was taken away, or waits and `role` is not the pause program's.
pub(super) async fn check(pod: &Pod, role: Role) -> Result<()> {
    if pod.config()?.network != NetworkKind::Lattice {
        return Ok(());
    }
    let network = pod.network.lock().await;
    match (&*network, role) {
        _ if pod.is_closing() => Err(gone()),
        (PodNetwork::Up(_), _) | (PodNetwork::Waiting(_), Role::Root) => Ok(()),
        _ => Err(gone()),
    }
}

fn gone() -> Error {
    Error::Network("the pod has no network any more: make the pod anew".into())
}

fn no_token() -> Error {
    Error::Network(
        "this node has no token for its pods: give token_file in shim.toml, or LATTICE_TOKEN in the environment of the pod's first container".into(),
    )
}

/// Leaves the policy in force though this process ends.
pub(super) async fn leave(pod: &Pod) {
    *pod.network.lock().await = PodNetwork::None;
}

/// Undoes it. The pod's processes must be gone. What could not be undone stays on record, for containerd's `delete`.
pub(super) async fn stop(pod: &Arc<Pod>) {
    let PodNetwork::Up(network) = std::mem::take(&mut *pod.network.lock().await) else { return };
    let network = ManuallyDrop::into_inner(network);
    let left = apart("undo", move || Ok(network.stop())).await;
    let left = left.unwrap_or_else(|error| vec![error.to_string()]);
    for item in &left {
        tracing::error!(item, "phase one is not undone entirely");
    }
    if left.is_empty()
        && let Err(error) = pod.note(|record| record.peer = None)
    {
        tracing::warn!(%error, "the record still names a peer");
    }
}

async fn start(pod: &Arc<Pod>, beginning: Beginning) -> Result<Network> {
    let Beginning { described, resolv, token } = beginning;
    let peer = network::peer_name(pod.config()?, &described).map_err(failed)?;
    pod.note(|record| record.peer = Some(peer))?;
    let config = pod.config()?.clone();
    apart("phase one", move || Network::start(&config, &described, resolv, token).map_err(failed)).await
}

fn failed(failure: lattice_bootstrap::Failure) -> Error {
    Error::Network(failure.message)
}

/// Runs what blocks on a thread of its own, which ends with it: it enters namespaces.
async fn apart<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = oneshot::channel();
    thread::Builder::new()
        .name(what.into())
        .spawn(move || sender.send(work()))
        .map_err(Error::io(format!("start a thread for {what}")))?;
    receiver.await.map_err(|_| Error::Network(format!("{what} panicked")))?
}

fn describe(pod: &Pod, spec: &Spec) -> Result<network::Pod> {
    let annotations: Annotations = spec.annotations().clone().unwrap_or_default();
    let named = |key: &str, or: &str| annotations.get(key).cloned().unwrap_or_else(|| or.to_owned());
    let (name, namespace) =
        (named(SANDBOX_NAME, pod.place.id()), named(SANDBOX_NAMESPACE, &pod.settings.namespace));
    let uid = named(SANDBOX_UID, pod.place.id());
    let none = "the spec names no network namespace: a pod with hostNetwork cannot have Lattice's network";
    let netns = spec::netns(spec).ok_or_else(|| Error::Invalid(none.into()))?.to_owned();
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let resolv_conf = mounts
        .iter()
        .find(|mount| mount.destination().as_os_str() == "/etc/resolv.conf")
        .and_then(|mount| mount.source().clone());
    Ok(network::Pod { namespace, name, uid, netns, annotations, resolv_conf })
}
