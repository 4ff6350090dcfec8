//! Pods and containers as a kubelet makes them.

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use super::{
    Daemon,
    cri::{self, Cri},
    grpc::Status,
    image,
};
use crate::lab::wait_until;

/// The states of a container: created, running, exited.
pub const STATES: [&str; 4] = ["created", "running", "exited", "unknown"];

/// A pod.
pub struct Pod<'a> {
    /// The daemon that runs it.
    pub daemon: &'a Daemon,
    /// containerd's id of it: also that of its pause container.
    pub id: String,
    config: cri::PodSandboxConfig,
    cri: Cri,
}

/// A pod without its daemon, which may restart meanwhile.
pub struct Detached {
    id: String,
    config: cri::PodSandboxConfig,
    cri: Cri,
}

impl Detached {
    /// The pod again.
    pub fn attach(self, daemon: &Daemon) -> Pod<'_> {
        Pod { daemon, id: self.id, config: self.config, cri: self.cri }
    }
}

/// What a container is to be; all of it is optional.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The command; without one it sleeps.
    pub command: Vec<String>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub dir: String,
    /// User id; the group is the same.
    pub user: Option<i64>,
    /// Directories of the host: path there, path in the container, whether read-only.
    pub mounts: Vec<(PathBuf, String, bool)>,
    /// Bytes of memory; 0 is no limit.
    pub memory: i64,
    /// The root file system is read-only.
    pub readonly: bool,
    /// It has a terminal.
    pub tty: bool,
}

impl Options {
    /// A container that runs `script` in a shell.
    pub fn shell(script: &str) -> Self {
        Self { command: ["/bin/sh", "-c", script].map(String::from).to_vec(), ..Self::default() }
    }
}

/// A container in a pod.
#[derive(Debug, Clone)]
pub struct Container {
    /// containerd's id of it.
    pub id: String,
    cri: Cri,
    log: PathBuf,
}

impl<'a> Pod<'a> {
    /// Runs a pod.
    ///
    /// # Panics
    /// When it cannot be run.
    pub fn run(daemon: &'a Daemon) -> Self {
        Self::with_memory(daemon, 0)
    }

    /// Runs a pod that may use so many bytes of memory; 0 is no limit.
    ///
    /// # Panics
    /// When it cannot be run.
    pub fn with_memory(daemon: &'a Daemon, memory: i64) -> Self {
        Self::try_run(daemon, memory).unwrap_or_else(|error| panic!("RunPodSandbox: {error}"))
    }

    /// Like [`Self::with_memory`].
    ///
    /// # Errors
    /// What containerd said.
    pub fn try_run(daemon: &'a Daemon, memory: i64) -> Result<Self, Status> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("pod{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let logs = daemon.directory(&format!("logs/{name}"));
        let config = cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: name.clone(),
                uid: name.clone(),
                namespace: "tests".into(),
                attempt: 0,
            }),
            hostname: name,
            log_directory: logs.display().to_string(),
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: daemon.cgroup.clone(),
                security_context: Some(cri::LinuxSandboxSecurityContext {
                    namespace_options: Some(own_pids()),
                }),
                resources: Some(cri::LinuxContainerResources {
                    memory_limit_in_bytes: memory,
                    ..cri::LinuxContainerResources::default()
                }),
            }),
            ..cri::PodSandboxConfig::default()
        };
        if memory > 0 {
            daemon.limit_memory(memory);
        }
        let cri = daemon.cri();
        let request = cri::RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: daemon.runtime.handler().into(),
        };
        let answer: cri::RunPodSandboxResponse = cri.call("RunPodSandbox", &request)?;
        Ok(Self { daemon, id: answer.pod_sandbox_id, config, cri })
    }

    /// Makes a container in it.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn create(&self, name: &str, options: &Options) -> Container {
        self.try_create(name, options).unwrap_or_else(|error| panic!("CreateContainer: {error}"))
    }

    /// Makes a container in it.
    ///
    /// # Errors
    /// What containerd said.
    pub fn try_create(&self, name: &str, options: &Options) -> Result<Container, Status> {
        let user = |id| Some(cri::Int64Value { value: id });
        let config = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(cri::ImageSpec { image: image::NAME.into() }),
            command: options.command.clone(),
            working_dir: options.dir.clone(),
            envs: options
                .env
                .iter()
                .map(|(key, value)| cri::KeyValue { key: key.clone(), value: value.clone() })
                .collect(),
            mounts: options
                .mounts
                .iter()
                .map(|(host, container, readonly)| cri::Mount {
                    container_path: container.clone(),
                    host_path: host.display().to_string(),
                    readonly: *readonly,
                })
                .collect(),
            log_path: format!("{name}.log"),
            tty: options.tty,
            linux: Some(cri::LinuxContainerConfig {
                resources: Some(cri::LinuxContainerResources {
                    memory_limit_in_bytes: options.memory,
                    ..cri::LinuxContainerResources::default()
                }),
                security_context: Some(cri::LinuxContainerSecurityContext {
                    capabilities: Some(cri::Capability {
                        drop_capabilities: vec!["ALL".into()],
                        ..cri::Capability::default()
                    }),
                    namespace_options: Some(own_pids()),
                    run_as_user: options.user.and_then(user),
                    run_as_group: options.user.and_then(user),
                    readonly_rootfs: options.readonly,
                    no_new_privs: true,
                }),
            }),
            ..cri::ContainerConfig::default()
        };
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let answer: cri::CreateContainerResponse = self.cri.call("CreateContainer", &request)?;
        let log = PathBuf::from(&self.config.log_directory).join(format!("{name}.log"));
        Ok(Container { id: answer.container_id, cri: self.cri.clone(), log })
    }

    /// Makes a container and starts it.
    ///
    /// # Panics
    /// When it cannot be.
    pub fn start(&self, name: &str, options: &Options) -> Container {
        let container = self.create(name, options);
        container.start().unwrap_or_else(|error| panic!("StartContainer: {error}"));
        container
    }

    /// The pod as it is, for a time in which its daemon changes.
    pub fn detach(self) -> Detached {
        Detached { id: self.id, config: self.config, cri: self.cri }
    }

    /// Its status.
    ///
    /// # Errors
    /// What containerd said.
    pub fn status(&self) -> Result<cri::PodSandboxStatus, Status> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: self.id.clone(), verbose: false };
        let answer: cri::PodSandboxStatusResponse = self.cri.call("PodSandboxStatus", &request)?;
        Ok(answer.status.unwrap_or_default())
    }

    /// Stops and removes it with all its containers.
    ///
    /// # Panics
    /// When that fails.
    pub fn remove(self) {
        self.try_remove().unwrap_or_else(|error| panic!("removing pod {}: {error}", self.id));
    }

    /// Stops and removes it with all its containers; may be repeated.
    ///
    /// # Errors
    /// What containerd said.
    pub fn try_remove(&self) -> Result<(), Status> {
        let stop = cri::StopPodSandboxRequest { pod_sandbox_id: self.id.clone() };
        self.cri.call::<cri::Empty>("StopPodSandbox", &stop)?;
        let remove = cri::RemovePodSandboxRequest { pod_sandbox_id: self.id.clone() };
        self.cri.call::<cri::Empty>("RemovePodSandbox", &remove)?;
        Ok(())
    }
}

/// A process id namespace for each container.
fn own_pids() -> cri::NamespaceOption {
    cri::NamespaceOption { network: 0, pid: 1, ipc: 0 }
}

impl Container {
    /// Starts it.
    ///
    /// # Errors
    /// What containerd said.
    pub fn start(&self) -> Result<(), Status> {
        let request = cri::StartContainerRequest { container_id: self.id.clone() };
        self.cri.call::<cri::Empty>("StartContainer", &request).map(|_| ())
    }

    /// Asks it to end, and kills it after so many seconds.
    ///
    /// # Errors
    /// What containerd said.
    pub fn stop(&self, seconds: i64) -> Result<(), Status> {
        let request = cri::StopContainerRequest { container_id: self.id.clone(), timeout: seconds };
        self.cri.call::<cri::Empty>("StopContainer", &request).map(|_| ())
    }

    /// Removes it; kills it first when it runs.
    ///
    /// # Errors
    /// What containerd said.
    pub fn remove(&self) -> Result<(), Status> {
        let request = cri::RemoveContainerRequest { container_id: self.id.clone() };
        self.cri.call::<cri::Empty>("RemoveContainer", &request).map(|_| ())
    }

    /// Its status.
    ///
    /// # Panics
    /// When there is none.
    pub fn status(&self) -> cri::ContainerStatus {
        let request = cri::ContainerStatusRequest { container_id: self.id.clone(), verbose: false };
        let answer: Result<cri::ContainerStatusResponse, _> = self.cri.call("ContainerStatus", &request);
        let answer = answer.unwrap_or_else(|error| panic!("ContainerStatus: {error}"));
        answer.status.unwrap_or_default()
    }

    /// Its state, one of [`STATES`].
    pub fn state(&self) -> &'static str {
        usize::try_from(self.status().state).ok().and_then(|state| STATES.get(state)).unwrap_or(&"unknown")
    }

    /// Waits for its end; returns its exit code and containerd's word for why.
    ///
    /// # Panics
    /// When `limit` passes first.
    pub fn wait(&self, limit: Duration) -> (i32, String) {
        wait_until(limit, &format!("the end of container {}", self.id), || self.state() == "exited");
        let status = self.status();
        (status.exit_code, status.reason)
    }

    /// Runs a script in it; returns stdout, stderr and the exit code.
    ///
    /// # Panics
    /// When it cannot be run.
    pub fn shell(&self, script: &str) -> (String, String, i32) {
        let answer = self.exec(&["/bin/sh", "-c", script], 60);
        let answer = answer.unwrap_or_else(|error| panic!("ExecSync of {script:?}: {error}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&answer.stdout), text(&answer.stderr), answer.exit_code)
    }

    /// Runs a command in it for at most so many seconds.
    ///
    /// # Errors
    /// What containerd said.
    pub fn exec(&self, command: &[&str], seconds: i64) -> Result<cri::ExecSyncResponse, Status> {
        let cmd = command.iter().map(|word| (*word).into()).collect();
        let request = cri::ExecSyncRequest { container_id: self.id.clone(), cmd, timeout: seconds };
        self.cri.call("ExecSync", &request)
    }

    /// Its use of processor time in nanoseconds and of memory in bytes.
    ///
    /// # Errors
    /// What containerd said.
    pub fn stats(&self) -> Result<(u64, u64), Status> {
        let request = cri::ContainerStatsRequest { container_id: self.id.clone() };
        let answer: cri::ContainerStatsResponse = self.cri.call("ContainerStats", &request)?;
        let stats = answer.stats.unwrap_or_default();
        let cpu = stats.cpu.and_then(|cpu| cpu.usage_core_nano_seconds).unwrap_or_default().value;
        let memory = stats.memory.and_then(|memory| memory.working_set_bytes).unwrap_or_default().value;
        Ok((cpu, memory))
    }

    /// The last line of its log, without CRI's words before it; empty while there is none.
    pub fn last_logged(&self) -> String {
        let tail = || {
            let mut file = fs::File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(4096)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map(|_| String::from_utf8_lossy(&bytes).into_owned())
        };
        let tail: std::io::Result<String> = tail();
        let line = tail.as_deref().ok().and_then(|text| text.strip_suffix('\n')?.lines().next_back());
        line.and_then(|line| line.splitn(4, ' ').nth(3)).unwrap_or_default().to_owned()
    }

    /// What it has written to `stream` (`stdout` or `stderr`) so far, from its log in CRI's form: time, stream, `F` or `P` for a whole
    /// line or a part of one, text.
    pub fn logged(&self, stream: &str) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let mut text = String::with_capacity(bytes.len());
        for line in String::from_utf8_lossy(&bytes).lines() {
            let mut words = line.splitn(4, ' ').skip(1);
            let (of, kind, rest) = (words.next(), words.next(), words.next().unwrap_or_default());
            if of == Some(stream) {
                text.push_str(rest);
                if kind == Some("F") {
                    text.push('\n');
                }
            }
        }
        text
    }
}
