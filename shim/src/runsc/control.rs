//! A sandbox's control socket, spoken to directly: a call costs less than a millisecond there and some 30 ms as a command, and
//! waiting for a container needs no process that stays.
//!
//! The protocol is gVisor's `pkg/urpc`: one JSON object each way. Where the socket is depends on the release: a path that the
//! sandbox's state file names, or in older ones an abstract address made from its id. Wherever it is, who listens must be the process
//! that the state file names. What comes back is the sandbox's word, so it is bounded and trusted with nothing but its own containers.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read as _},
    os::{
        fd::AsRawFd as _,
        unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

/// A list of the processes of a full container is some 100 KiB.
const MAX_REPLY: usize = 1 << 20;
/// A state file holds the container's whole OCI spec.
const MAX_STATE: u64 = 8 << 20;

/// A connection to a sandbox.
#[derive(Debug)]
pub(super) struct Control(UnixStream);

/// Why a call gave no result.
#[derive(Debug)]
pub(super) enum Failure {
    /// The sandbox's own reason.
    Refused(String),
    /// The sandbox ended before it answered.
    Ended,
    /// It speaks another language: runsc itself must be asked.
    NotUnderstood,
}

/// Which processes `containerManager.Signal` means (gVisor's `SignalDeliveryMode`).
#[derive(Debug, Clone, Copy)]
pub(super) enum Delivery {
    One = 0,
    All = 1,
}

#[derive(Serialize)]
struct Request<'a, A> {
    method: &'a str,
    arg: A,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "R: Deserialize<'de>"))]
struct Reply<R> {
    success: bool,
    #[serde(default)]
    err: String,
    #[serde(default = "Option::default")]
    result: Option<R>,
}

#[derive(Deserialize)]
struct State {
    sandbox: Sandbox,
}

#[derive(Deserialize)]
struct Sandbox {
    id: String,
    pid: i32,
    #[serde(default, rename = "controlSocketPath")]
    socket: Option<PathBuf>,
}

/// runsc's file about container `id`, if there is one.
pub(super) fn state_file(root: &Path, id: &str) -> Option<PathBuf> {
    state_files(root).find(|path| {
        let rest = path.file_name().and_then(|name| name.as_bytes().strip_prefix(id.as_bytes()));
        rest.is_some_and(|rest| rest.starts_with(b"_sandbox:"))
    })
}

/// runsc's files about all containers.
pub(super) fn state_files(root: &Path) -> impl Iterator<Item = PathBuf> {
    let paths = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    paths.filter(|path| path.extension() == Some(OsStr::new("state")))
}

impl Control {
    /// Connects to the sandbox that container `id` is in.
    pub(super) async fn connect(root: &Path, id: &str) -> io::Result<Self> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "runsc has no state of it");
        let mut text = Vec::new();
        File::open(state_file(root, id).ok_or_else(missing)?)?.take(MAX_STATE).read_to_end(&mut text)?;
        let sandbox = serde_json::from_slice::<State>(&text)?.sandbox;
        let stream = match &sandbox.socket {
            Some(path) if !path.as_os_str().is_empty() => connect_path(path).await?,
            _ => {
                // Go hands the kernel the terminating zero of an abstract address too.
                let name = format!("\0runsc-sandbox.{}\0", sandbox.id);
                UnixStream::connect(OsStr::from_bytes(name.as_bytes())).await?
            }
        };
        if stream.peer_cred()?.pid() != Some(sandbox.pid) {
            return Err(io::Error::other("its control socket is another process's"));
        }
        Ok(Self(stream))
    }

    /// Waits for the end of a container's first process: its wait status, as `wait(2)` gives it.
    pub(super) async fn wait(self, id: &str) -> Result<u32, Failure> {
        self.call("containerManager.Wait", id).await
    }

    /// Signals process `pid` of a container, 0 for the first.
    pub(super) async fn signal(
        self,
        id: &str,
        signal: u32,
        pid: i32,
        delivery: Delivery,
    ) -> Result<(), Failure> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Args<'a> {
            #[serde(rename = "CID")]
            id: &'a str,
            signo: u32,
            #[serde(rename = "PID")]
            pid: i32,
            mode: i32,
        }
        let args = Args { id, signo: signal, pid, mode: delivery as i32 };
        self.call::<_, IgnoredAny>("containerManager.Signal", args).await.map(drop)
    }

    /// The pids of a container's processes.
    pub(super) async fn processes(self, id: &str) -> Result<Vec<i32>, Failure> {
        #[derive(Deserialize)]
        struct Process {
            pid: i32,
        }
        match self.call::<_, Option<Vec<Process>>>("containerManager.Processes", id).await? {
            Some(list) => Ok(list.into_iter().map(|process| process.pid).collect()),
            None => Ok(Vec::new()),
        }
    }

    async fn call<A: Serialize, R: DeserializeOwned>(mut self, method: &str, arg: A) -> Result<R, Failure> {
        let request = serde_json::to_vec(&Request { method, arg }).map_err(|_| Failure::NotUnderstood)?;
        self.0.write_all(&request).await.map_err(|_| Failure::Ended)?;
        let mut text = Vec::new();
        loop {
            match serde_json::Deserializer::from_slice(&text).into_iter::<Reply<R>>().next() {
                Some(Ok(reply)) => return understand(reply),
                Some(Err(error)) if !error.is_eof() => return Err(Failure::NotUnderstood),
                _ if text.len() >= MAX_REPLY => return Err(Failure::NotUnderstood),
                _ => {}
            }
            text.reserve(4096);
            match self.0.read_buf(&mut text).await {
                Ok(0) | Err(_) => return Err(Failure::Ended),
                Ok(_) => {}
            }
        }
    }
}

fn understand<R>(reply: Reply<R>) -> Result<R, Failure> {
    match reply {
        Reply { success: true, result: Some(result), .. } => Ok(result),
        Reply { success: true, .. } => Err(Failure::NotUnderstood),
        Reply { err, .. } if err.starts_with("unknown method") => Err(Failure::NotUnderstood),
        Reply { err, .. } => Err(Failure::Refused(err)),
    }
}

/// An address holds 107 bytes of a path, and ours are longer: by way of its directory's descriptor any will do.
async fn connect_path(path: &Path) -> io::Result<UnixStream> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = fs::OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_PATH | OFlag::O_DIRECTORY).bits())
        .open(parent)?;
    UnixStream::connect(Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name)).await
}

#[cfg(test)]
mod tests;
