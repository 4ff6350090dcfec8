//! The OCI bundle: what runsc is told about one agent, in files that only root can list.

mod oci;

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::{AgentSpec, RunscError, cgroup};

/// Where things are in a bundle directory.
#[derive(Debug, Clone)]
pub(crate) struct Bundle(PathBuf);

impl Bundle {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// runsc's `--root`. One per sandbox: releases differ in what they keep there and refuse each other's files, and
    /// removing it removes exactly one sandbox's state.
    pub(crate) fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    /// A FIFO by which runsc says that the sandbox stands, and at which it waits for the agent's start.
    pub(crate) fn pid_file(&self) -> PathBuf {
        self.0.join("pid")
    }

    /// A link to the cgroup whose calls are policed.
    pub(crate) fn group(&self) -> PathBuf {
        self.0.join("cgroup")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("runsc.log")
    }

    /// Writes `config.json` and the files it mounts.
    pub(crate) fn write(&self, id: &str, netns: &Path, spec: &AgentSpec) -> Result<(), RunscError> {
        let file = |name: &str, text: &Option<String>| -> Result<Option<PathBuf>, RunscError> {
            let Some(text) = text else { return Ok(None) };
            let path = self.0.join(name);
            write_new(&path, text.as_bytes(), 0o644)?;
            Ok(Some(path))
        };
        let mounts = oci::Files {
            resolv_conf: file("resolv.conf", &spec.resolv_conf)?,
            hosts: file("hosts", &spec.hosts)?,
        };
        let rootfs = spec.rootfs.canonicalize().map_err(RunscError::io("open", &spec.rootfs))?;
        let config = oci::config(cgroup::path(id), &rootfs, netns, spec, mounts)
            .and_then(|config| Ok(serde_json::to_vec(&config)?))
            .map_err(|error| RunscError::Invalid(format!("agent {}: {error}", spec.name)))?;
        write_new(&self.0.join("config.json"), &config, 0o600)
    }
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), RunscError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| {
            file.write_all(content)?;
            // The umask may have taken away what a non-root agent needs to read its resolv.conf.
            file.set_permissions(fs::Permissions::from_mode(mode))
        })
        .map_err(RunscError::io("write", path))
}
