//! From an [`AgentSpec`] to an OCI runtime configuration. Pure.

use std::path::{Path, PathBuf};

use oci_spec::{
    OciSpecError,
    runtime::{
        Capabilities, Linux, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxCpuBuilder, LinuxMemoryBuilder,
        LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder, LinuxResources,
        LinuxResourcesBuilder, Mount, MountBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType,
        Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder, get_default_maskedpaths,
        get_default_readonly_paths,
    },
};

use crate::{AgentSpec, Writable, cgroup};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Programs that use select(2) expect no more open files than FD_SETSIZE unless they ask.
const OPEN_FILES: (u64, u64) = (1024, 65536);
/// Host tasks that gVisor itself uses: the Go runtimes of runsc, sentry and gofer, and the first stubs.
const SENTRY_TASKS: i64 = 96;
const CPU_PERIOD_US: u64 = 100_000;

/// Host files mounted over the agent's own.
pub(super) struct Files {
    pub(super) resolv_conf: Option<PathBuf>,
    pub(super) hosts: Option<PathBuf>,
}

pub(super) fn config(
    group: PathBuf,
    rootfs: &Path,
    netns: &Path,
    spec: &AgentSpec,
    files: Files,
) -> Result<Spec, OciSpecError> {
    let read_only = spec.rootfs_writable == Writable::ReadOnly;
    SpecBuilder::default()
        .version("1.0.2")
        .hostname(spec.name.clone())
        .root(RootBuilder::default().path(rootfs).readonly(read_only).build()?)
        .mounts(mounts(files)?)
        .process(process(spec)?)
        .linux(linux(group, netns, spec)?)
        .build()
}

fn process(spec: &AgentSpec) -> Result<Process, OciSpecError> {
    let mut argv = vec![spec.binary.clone()];
    argv.extend(spec.args.iter().cloned());
    let none = Capabilities::new();
    ProcessBuilder::default()
        .terminal(spec.terminal)
        .user(UserBuilder::default().uid(spec.uid).gid(spec.gid).build()?)
        .args(argv)
        .env(environment(spec))
        .cwd(spec.cwd.clone())
        .capabilities(
            LinuxCapabilitiesBuilder::default()
                .bounding(none.clone())
                .effective(none.clone())
                .inheritable(none.clone())
                .permitted(none.clone())
                .ambient(none)
                .build()?,
        )
        .rlimits(vec![
            rlimit(PosixRlimitType::RlimitNofile, OPEN_FILES)?,
            rlimit(PosixRlimitType::RlimitCore, (0, 0))?,
        ])
        .no_new_privileges(true)
        .build()
}

/// `HOME` is left to runsc, which looks the user up in the agent's own `/etc/passwd`.
fn environment(spec: &AgentSpec) -> Vec<String> {
    let mut env = vec![PATH.to_owned()];
    if spec.terminal {
        env.push("TERM=xterm".into());
    }
    env.retain(|default| {
        let name = default.split('=').next();
        !spec.env.iter().any(|(asked, _)| Some(asked.as_str()) == name)
    });
    env.extend(spec.env.iter().map(|(name, value)| format!("{name}={value}")));
    env
}

fn rlimit(typ: PosixRlimitType, (soft, hard): (u64, u64)) -> Result<PosixRlimit, OciSpecError> {
    PosixRlimitBuilder::default().typ(typ).soft(soft).hard(hard).build()
}

fn mounts(files: Files) -> Result<Vec<Mount>, OciSpecError> {
    let mut mounts = [
        ("/proc", "proc", "nosuid,noexec,nodev"),
        ("/dev", "tmpfs", "nosuid,mode=755"),
        ("/dev/pts", "devpts", "nosuid,noexec"),
        ("/dev/shm", "tmpfs", "nosuid,noexec,nodev,mode=1777"),
        ("/tmp", "tmpfs", "nosuid,nodev,mode=1777"),
        ("/sys", "sysfs", "nosuid,noexec,nodev,ro"),
    ]
    .into_iter()
    .map(|(at, kind, options)| mount(at, kind, Path::new(kind), options))
    .collect::<Result<Vec<_>, _>>()?;
    for (at, source) in [("/etc/resolv.conf", files.resolv_conf), ("/etc/hosts", files.hosts)] {
        if let Some(source) = source {
            mounts.push(mount(at, "bind", &source, "bind,ro,nosuid,noexec,nodev")?);
        }
    }
    Ok(mounts)
}

fn mount(at: &str, kind: &str, source: &Path, options: &str) -> Result<Mount, OciSpecError> {
    MountBuilder::default()
        .destination(at)
        .typ(kind)
        .source(source)
        .options(options.split(',').map(str::to_owned).collect::<Vec<_>>())
        .build()
}

/// Masked and read-only paths are part of the contract of a bundle; the sentry's own /proc has none of these files.
fn linux(group: PathBuf, netns: &Path, spec: &AgentSpec) -> Result<Linux, OciSpecError> {
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(netns)?)
        .masked_paths(get_default_maskedpaths())
        .readonly_paths(get_default_readonly_paths())
        .build()?;
    linux.set_resources(None);
    if cgroup::wanted(spec) {
        linux.set_resources(Some(resources(spec)?)).set_cgroups_path(Some(group));
    }
    Ok(linux)
}

fn namespaces(netns: &Path) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    use LinuxNamespaceType::{Ipc, Mount, Network, Pid, Uts};
    let network = LinuxNamespaceBuilder::default().typ(Network).path(netns).build()?;
    let own = [Pid, Mount, Ipc, Uts].into_iter().map(|typ| LinuxNamespaceBuilder::default().typ(typ).build());
    std::iter::once(Ok(network)).chain(own).collect()
}

fn resources(spec: &AgentSpec) -> Result<LinuxResources, OciSpecError> {
    let mut resources = LinuxResourcesBuilder::default().build()?;
    if let Some(bytes) = spec.memory_bytes {
        let limit = bytes.try_into().unwrap_or(i64::MAX);
        resources.set_memory(Some(LinuxMemoryBuilder::default().limit(limit).build()?));
    }
    if let Some(cpus) = spec.cpus {
        #[expect(clippy::cast_possible_truncation, reason = "validate() bounds it; a float cast saturates")]
        let quota = (cpus * CPU_PERIOD_US as f64) as i64;
        resources.set_cpu(Some(LinuxCpuBuilder::default().quota(quota).period(CPU_PERIOD_US).build()?));
    }
    if let Some(pids) = spec.pids {
        resources.set_pids(Some(LinuxPidsBuilder::default().limit(i64::from(pids) + SENTRY_TASKS).build()?));
    }
    Ok(resources)
}
