//! `start`: gives containerd the address of the pod's shim, and starts one if there is none.
//!
//! ```text
//! containerd ── start ──► bind and listen ──► server: standard input is the socket, standard output a pipe
//!            ◄─ address ─ "ready" by the pipe ◄─ serves
//! ```
//!
//! The socket listens before the server is there, so no second `start` can come between. Standard error and output together
//! are the reply in every containerd: nothing else may be written.

mod ready;

use std::{
    io::pipe,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use containerd_shim_protos::{
    api::ConnectRequest,
    shim_async::{Client, TaskClient},
    ttrpc::{self, context},
};

pub use ready::READY;

use crate::{
    bundle::Bundle,
    cgroup,
    cli::Flags,
    error::{Error, Result},
    place::check_id,
    reply::{self, Request},
    socket::{self, Claim},
};

/// How long a shim may take until it serves, and one that is there until it answers. containerd waits longer.
const LIMIT: Duration = Duration::from_secs(10);

/// What `start` has of its surroundings.
#[derive(Debug)]
pub struct Surroundings {
    /// The bundle.
    pub bundle: Bundle,
    /// What containerd wrote to standard input.
    pub input: Vec<u8>,
    /// `TTRPC_ADDRESS`.
    pub ttrpc_address: Option<String>,
    /// Where to put sockets unless containerd says.
    pub socket_dir: PathBuf,
}

/// Gives what to write to standard output.
///
/// # Errors
/// What failed; then nothing was started.
pub fn start(flags: &Flags, around: &Surroundings) -> Result<Vec<u8>> {
    let request = Request::new(flags, &around.input);
    let pod = around.bundle.pod_id(&request.id)?;
    for id in [&request.namespace, &request.id, &pod] {
        check_id(id)?;
    }
    around.bundle.keep_config(&request.options)?;
    let dir = request.socket_dir.as_deref().unwrap_or(&around.socket_dir);
    let path = socket::path(dir, &request.address, &request.namespace, &pod)?;
    let address = format!("unix://{}", path.display());
    let deadline = Instant::now() + LIMIT;
    loop {
        match socket::claim(&path)? {
            Claim::Ours(listener) => {
                let started = start_server(&request, around, &pod, &path, listener);
                if started.is_err() {
                    // Whoever may have found it in the meantime is told that nobody listens.
                    let _ = socket::remove_stale(&path);
                }
                started?;
                break;
            }
            Claim::Theirs if answers(&address)? => break,
            // It is about to end, or the `start` that made it failed.
            Claim::Theirs if Instant::now() < deadline => {}
            Claim::Theirs => return Err(timeout(format!("the answer of the shim at {address}"))),
        }
    }
    around.bundle.keep_address(&address)?;
    reply::encode(request.protocol, &address).map_err(|error| Error::Invalid(error.to_string()))
}

fn start_server(
    request: &Request,
    around: &Surroundings,
    pod: &str,
    socket: &Path,
    listener: UnixListener,
) -> Result<()> {
    let what = || Error::io("start the shim's server");
    let (reader, writer) = pipe().map_err(what())?;
    let mut command = Command::new(std::env::current_exe().map_err(what())?);
    command
        .args(["-namespace", &request.namespace, "-id", pod, "-address", &request.address, "-socket"])
        .arg(socket)
        .current_dir(around.bundle.dir())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into()))
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::from(OwnedFd::from(writer)))
        .stderr(Stdio::null());
    if let Some(config) = around.bundle.config() {
        command.arg("-config").arg(config);
    }
    if request.debug {
        command.arg("-debug");
    }
    if let Some(address) = request.ttrpc_address.as_ref().or(around.ttrpc_address.as_ref()) {
        command.env("TTRPC_ADDRESS", address);
    }
    let mut server = command.spawn().map_err(what())?;
    // With it go our ends of the socket and of the pipe.
    drop(command);
    let group = request.options.shim_cgroup.as_deref();
    let entered = group.map_or(Ok(()), |group| cgroup::enter(group, server.id()));
    entered.and_then(|()| ready::wait(&reader, LIMIT)).inspect_err(|_| {
        // It is a child of ours and not yet reaped, so the pid is its own.
        let _ = server.kill();
        let _ = server.wait();
    })
}

/// Whether a shim answers there. An error of its own making is an answer.
fn answers(address: &str) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Error::io("ask the pod's shim"))?;
    let asked = async {
        let client = TaskClient::new(Client::connect(address).await?);
        client.connect(context::with_duration(LIMIT), &ConnectRequest::new()).await
    };
    match runtime.block_on(async { tokio::time::timeout(LIMIT, asked).await }) {
        Ok(Ok(_) | Err(ttrpc::Error::RpcStatus(_))) => Ok(true),
        Ok(Err(_)) => Ok(false),
        Err(_) => Err(timeout(format!("the answer of the shim at {address}"))),
    }
}

fn timeout(what: String) -> Error {
    Error::Timeout { what, seconds: LIMIT.as_secs() }
}
