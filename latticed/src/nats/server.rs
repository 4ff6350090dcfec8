//! Runs nats-server as a child: started before latticed serves, restarted when it ends, ended with latticed.

use std::{
    collections::VecDeque,
    env,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader},
    process::{Child, Command},
    sync::{Notify, oneshot},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{
    NatsError, config,
    files::{Files, PORTS_DIR},
    issuer::Trust,
    pdeathsig::die_with_parent,
};
use crate::{data_dir::DataDir, tls::Authority};

/// Debian puts it into a directory that only root has on its PATH.
const EXTRA_DIRS: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/usr/local/bin"];
const START_SECS: u64 = 15;
const STOP_WAIT: Duration = Duration::from_secs(5);
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A server that ran this long was sound: the next failure is a new one.
const SOUND_AFTER: Duration = Duration::from_secs(60);
const MAX_LOG_LINE: u64 = 4096;

/// What to start.
#[derive(Debug)]
pub struct Setup {
    /// The program.
    pub program: PathBuf,
    /// Where it listens; port 0 takes a free one, which it then keeps.
    pub listen: SocketAddr,
}

/// A running nats-server.
#[derive(Debug)]
pub struct NatsServer {
    address: SocketAddr,
    files: Files,
    reload: Arc<Notify>,
    stop: oneshot::Sender<()>,
    supervisor: JoinHandle<()>,
}

/// What is needed to start the server once more.
struct Launcher {
    program: PathBuf,
    config: PathBuf,
    ports_dir: PathBuf,
    complaints: Complaints,
}

/// The last lines in which the server complained, for the error message when it does not start.
#[derive(Clone, Default)]
struct Complaints(Arc<Mutex<VecDeque<String>>>);

/// The nats-server on PATH.
///
/// # Errors
/// [`NatsError::NotFound`].
pub fn find() -> Result<PathBuf, NatsError> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(EXTRA_DIRS.map(PathBuf::from))
        .map(|dir| dir.join("nats-server"))
        .find(|file| file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
        .ok_or(NatsError::NotFound)
}

// === impl NatsServer ===

impl NatsServer {
    /// Starts the server and returns when it listens.
    ///
    /// # Errors
    /// When it cannot be run, or does not come up.
    pub async fn start(
        setup: Setup,
        dir: &Arc<DataDir>,
        authority: &Authority,
        trust: &Trust,
        now: i64,
    ) -> Result<Self, NatsError> {
        // Asked here, because the server would only say so in its log.
        TcpListener::bind(setup.listen)
            .map_err(|source| NatsError::Listen { address: setup.listen, source })?;
        let ports_dir = dir.fresh_dir(PORTS_DIR)?;
        let files = Files::supervised(Arc::clone(dir), setup.listen);
        files.certify(authority, now)?;
        files.write(trust)?;
        let config = files.config();
        let launcher =
            Launcher { program: setup.program, config, ports_dir, complaints: Complaints::default() };

        let mut child = launcher.spawn()?;
        let port = launcher.wait_ready(&mut child).await?;
        let listen = SocketAddr::new(setup.listen.ip(), port);
        // Clients reconnect to the port they know.
        let files = Files::supervised(Arc::clone(dir), listen);
        files.write(trust)?;

        let (stop, stopped) = oneshot::channel();
        let reload = Arc::new(Notify::new());
        let supervisor = tokio::spawn(supervise(launcher, child, Arc::clone(&reload), stopped));
        Ok(Self { address: listen, files, reload, stop, supervisor })
    }

    /// What it reads.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Makes a running server read its files again when it is used.
    pub fn reload(&self) -> Arc<Notify> {
        Arc::clone(&self.reload)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the server and returns when it has ended.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.supervisor.await;
    }
}

/// `address` as this host reaches it.
pub fn local(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

async fn supervise(
    launcher: Launcher,
    mut child: Child,
    reload: Arc<Notify>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut backoff = BACKOFF_MIN;
    loop {
        let started = Instant::now();
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                _ = &mut stopped => return end(child).await,
                () = reload.notified() => tell(&child, Signal::SIGHUP),
            }
        };
        if started.elapsed() >= SOUND_AFTER {
            backoff = BACKOFF_MIN;
        }
        warn!(ended = %launcher.describe(status), restart_in = ?backoff, "nats-server ended");
        child = loop {
            tokio::select! {
                () = sleep(backoff) => {}
                _ = &mut stopped => return,
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
            match launcher.spawn() {
                Ok(child) => break child,
                Err(error) => warn!(%error, retry_in = ?backoff, "nats-server cannot be restarted"),
            }
        };
        info!("nats-server started again");
    }
}

async fn end(mut child: Child) {
    tell(&child, Signal::SIGTERM);
    if timeout(STOP_WAIT, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

fn tell(child: &Child, what: Signal) {
    if let Some(pid) = child.id() {
        // Not reaped yet, so the id is still its own.
        let _ = signal::kill(Pid::from_raw(pid.cast_signed()), what);
    }
}

// === impl Launcher ===

impl Launcher {
    fn spawn(&self) -> Result<Child, NatsError> {
        let mut command = Command::new(&self.program);
        command
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .process_group(0); // a Ctrl-C in the terminal is for latticed, which ends the server when it has drained
        let mut child = die_with_parent(&mut command)
            .spawn()
            .map_err(|source| NatsError::Spawn { path: self.program.clone(), source })?;
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(forward_log(stderr, self.complaints.clone()));
        }
        Ok(child)
    }

    async fn wait_ready(&self, child: &mut Child) -> Result<u16, NatsError> {
        let port = async {
            loop {
                if let Some(port) = self.port() {
                    return port;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            ready = timeout(Duration::from_secs(START_SECS), port) => ready.map_err(|_| NatsError::Slow(START_SECS)),
            status = child.wait() => Err(NatsError::Ended(self.describe(status))),
        }
    }

    fn port(&self) -> Option<u16> {
        let file = self.ports_dir.read_dir().ok()?.next()?.ok()?.path();
        config::port_of(&std::fs::read_to_string(file).ok()?)
    }

    fn describe(&self, status: std::io::Result<ExitStatus>) -> String {
        let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
        match self.complaints.take() {
            Some(complaints) => format!("{status}: {complaints}"),
            None => status,
        }
    }
}

// === impl Complaints ===

impl Complaints {
    fn push(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.truncate(2);
        lines.push_front(line.to_owned());
    }

    fn take(&self) -> Option<String> {
        let lines = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        (!lines.is_empty()).then(|| lines.into_iter().rev().collect::<Vec<_>>().join("; "))
    }
}

/// Errors are no more than warnings of ours: any stranger who fails to authenticate causes one.
async fn forward_log(stderr: impl AsyncRead + Unpin, complaints: Complaints) {
    let mut reader = BufReader::new(stderr);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match (&mut reader).take(MAX_LOG_LINE).read_until(b'\n', &mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end();
        if line.contains("[ERR]") || line.contains("[FTL]") || line.starts_with("nats-server: ") {
            complaints.push(line);
            warn!(target: "latticed::nats_server", "{}", line.escape_debug());
        } else {
            debug!(target: "latticed::nats_server", "{}", line.escape_debug());
        }
    }
}
