//! What of a container's OCI spec is changed before runsc sees it. Pure, but for [`check_netns`].
//!
//! With `--network=host` the sandbox's process on the host has the capabilities that the spec grants, in the pod's network
//! namespace: what could change links, routes or the policy there is taken out of every set, of a container's process and of
//! each that is executed later.

mod devices;
mod limits;
mod netns;

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, LinuxNamespaceType, Mount, MountBuilder, Process, Spec,
};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    annotations::Role,
    config::NetworkKind,
    error::{Error, Result},
};

pub use netns::check_netns;

/// The environment variable in which a pod may bring its token. The agent never sees it.
pub const TOKEN_VARIABLE: &str = "LATTICE_TOKEN";
/// Never granted.
pub const FORBIDDEN: [Capability; 7] = [
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::SysAdmin,
    Capability::Bpf,
    Capability::Perfmon,
    Capability::SysPtrace,
    Capability::SysModule,
];
/// By which a pod could set flags of runsc's, name files of the host for its root file system, and do what is gVisor's own business.
/// A node may well pass all of them on: gVisor's own pages say so.
const FORBIDDEN_ANNOTATIONS: [&str; 1] = ["dev.gvisor."];
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What is asked of [`edit`].
#[derive(Debug)]
pub struct Edit<'a> {
    /// Root container or member.
    pub role: Role,
    /// Which network.
    pub network: NetworkKind,
    /// containerd's bundle, to which relative paths of the spec refer.
    pub bundle: &'a Path,
    /// What to mount at `/etc/resolv.conf`, if not kubelet's.
    pub resolv_conf: Option<&'a Path>,
}

/// Makes `spec` what runsc is given: absolute paths, no capability that reaches the network or the kernel, the pod's limits,
/// our resolver; refuses a spec without a network namespace of its own. Editing twice is editing once.
///
/// # Errors
/// [`crate::error::Error::Invalid`] for what cannot be run safely, with the remedy.
pub fn edit(spec: &mut Spec, edit: &Edit<'_>) -> Result<()> {
    if edit.network != NetworkKind::None {
        require_netns(spec, edit.network)?;
    }
    absolute_root(spec, edit.bundle)?;
    if let Some(process) = spec.process_mut() {
        edit_exec(process);
    }
    if let Some(annotations) = spec.annotations_mut() {
        annotations.retain(|name, _| !FORBIDDEN_ANNOTATIONS.iter().any(|prefix| name.starts_with(prefix)));
    }
    drop_namespaces(spec);
    devices::drop_tun(spec);
    if edit.role == Role::Root {
        limits::apply(spec)?;
    }
    if let Some(source) = edit.resolv_conf {
        mount_resolv_conf(spec, source)?;
    }
    Ok(())
}

/// Makes `linux.cgroupsPath` absolute, unless it has systemd's form: relative ones are below runsc's own group, or fail, by release.
pub fn root_cgroup(spec: &mut Spec) {
    if let Some(path) = spec.linux_mut().as_mut().and_then(|linux| linux.cgroups_path_mut().as_mut())
        && path.is_relative()
        && !path.as_os_str().is_empty()
        && !path.to_string_lossy().contains(':')
    {
        *path = Path::new("/").join(&*path);
    }
}

/// Takes capabilities and the token away from the process of an exec, as [`edit`] does for a container's.
pub fn edit_exec(process: &mut Process) {
    if let Some(mut all) = process.capabilities().clone() {
        let without = |set: &Option<Capabilities>| {
            set.as_ref().map(|set| set.iter().copied().filter(|one| !FORBIDDEN.contains(one)).collect())
        };
        restrict(&mut all, without);
        process.set_capabilities(Some(all));
    }
    process.set_no_new_privileges(Some(true));
    drop(take_token(process));
}

/// Takes the pod's token out of the environment, every occurrence; the last one counts.
pub fn take_token(process: &mut Process) -> Option<Zeroizing<String>> {
    let mut token = None;
    let env = process.env_mut().as_mut()?;
    env.retain_mut(|entry| {
        let value = entry.strip_prefix(TOKEN_VARIABLE).and_then(|rest| rest.strip_prefix('='));
        let Some(value) = value else { return entry != TOKEN_VARIABLE };
        token = Some(Zeroizing::new(value.to_owned()));
        entry.zeroize();
        false
    });
    token
}

fn restrict(all: &mut LinuxCapabilities, without: impl Fn(&Option<Capabilities>) -> Option<Capabilities>) {
    let bounding = without(all.bounding());
    let effective = without(all.effective());
    let inheritable = without(all.inheritable());
    let permitted = without(all.permitted());
    let ambient = without(all.ambient());
    all.set_bounding(bounding)
        .set_effective(effective)
        .set_inheritable(inheritable)
        .set_permitted(permitted)
        .set_ambient(ambient);
}

/// What to do about a network namespace that will not do.
pub const NETNS_REMEDY: &str = "give it a network namespace by path: in Kubernetes no hostNetwork, with ctr `--with-ns network:PATH`, with Docker `--network container:NAME`";

/// The path of the spec's network namespace, if it names one.
pub fn netns(spec: &Spec) -> Option<&Path> {
    let mut namespaces = spec.linux().as_ref()?.namespaces().iter().flatten();
    let network = namespaces.find(|one| one.typ() == LinuxNamespaceType::Network)?;
    network.path().as_deref().filter(|path| !path.as_os_str().is_empty())
}

fn require_netns(spec: &Spec, network: NetworkKind) -> Result<()> {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let mut networks =
        namespaces.into_iter().flatten().filter(|one| one.typ() == LinuxNamespaceType::Network);
    let refuse = |what: &str| Err(Error::Invalid(format!("{what}: {NETNS_REMEDY}")));
    match (networks.next(), networks.next()) {
        (None, _) => refuse("the container would share the host's network namespace"),
        (Some(_), Some(_)) => refuse("the spec names two network namespaces"),
        // runsc makes a new, empty one then: plainly nobody's.
        (Some(_), None) if network == NetworkKind::Plain => Ok(()),
        (Some(_), None) if netns(spec).is_none() => refuse("the container's network namespace has no path"),
        (Some(_), None) if netns(spec).is_some_and(Path::is_relative) => {
            refuse("the path of the container's network namespace is relative")
        }
        (Some(_), None) => Ok(()),
    }
}

fn absolute_root(spec: &mut Spec, bundle: &Path) -> Result<()> {
    let Some(root) = spec.root_mut() else {
        return Err(Error::Invalid(format!("{}/config.json names no root file system", bundle.display())));
    };
    if root.path().is_relative() {
        if root.path().components().any(|part| part == Component::ParentDir) {
            let path = root.path().display();
            return Err(Error::Invalid(format!(
                "root.path {path} leads out of the bundle: name it absolutely"
            )));
        }
        let path: PathBuf = bundle.join(root.path());
        root.set_path(path);
    }
    Ok(())
}

/// runsc panics at a namespace that it does not know, and has one hierarchy of cgroups per container anyway.
fn drop_namespaces(spec: &mut Spec) {
    let namespaces = spec.linux_mut().as_mut().and_then(|linux| linux.namespaces_mut().as_mut());
    if let Some(namespaces) = namespaces {
        let refused = [LinuxNamespaceType::Cgroup, LinuxNamespaceType::Time];
        namespaces.retain(|one| !refused.contains(&one.typ()));
    }
}

fn mount_resolv_conf(spec: &mut Spec, source: &Path) -> Result<()> {
    let options = ["bind", "ro", "nosuid", "noexec", "nodev"].map(str::to_owned).to_vec();
    let ours = MountBuilder::default()
        .destination(RESOLV_CONF)
        .typ("bind")
        .source(source)
        .options(options)
        .build()
        .map_err(|error| Error::Invalid(format!("mount of {}: {error}", source.display())))?;
    let mut mounts = spec.mounts_mut().take().unwrap_or_default();
    mounts.retain(|mount| !is_at(mount, Path::new(RESOLV_CONF)));
    mounts.push(ours);
    spec.set_mounts(Some(mounts));
    Ok(())
}

/// Whether `mount` is at `path`, however that is written.
fn is_at(mount: &Mount, path: &Path) -> bool {
    normal(mount.destination()) == path
}

/// `path` without what means nothing: doubled slashes, `.`, and `..` by the letter.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(part) => out.push(part),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

#[cfg(test)]
mod tests;
