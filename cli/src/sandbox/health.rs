//! `--health-addr`: `/healthz`, `/readyz` and `/metrics`, for probes and for whoever watches. Whoever reaches the address is answered, so few
//! connections, each short, and a new one is never kept waiting by old ones.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use lattice_bootstrap::{Failure, Kind, control::Report};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::Semaphore,
    task::{AbortHandle, JoinSet, spawn_blocking},
    time::{sleep, timeout},
};

use super::metrics;

/// The control plane is asked every 15 s: who was not answered for as long as this has lost it.
const HEARD: u64 = 60;
/// One more, and the oldest is cut.
const MAX_CONNECTIONS: usize = 16;
/// A request's header must be there by then.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection is cut when it is as old as this, whatever it does.
const MAX_AGE: Duration = Duration::from_secs(10);
/// hyper takes no less than 8 KiB.
const MAX_HEADER: usize = 8 << 10;
/// How long a sandbox may take to say how it is. Probes usually wait for a second.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);
/// Where the kernel has no descriptor or memory for us.
const BREATH: Duration = Duration::from_millis(200);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// What the running sandbox says of itself.
pub(super) type Reports = Arc<dyn Fn() -> Result<Report, Failure> + Send + Sync>;

/// The server. Dropping it ends it and all its connections.
pub(super) struct Health {
    address: SocketAddr,
    source: Arc<Source>,
    task: AbortHandle,
}

struct Source {
    /// Not there before all is ready.
    reports: OnceLock<Reports>,
    /// A report is made on a thread of its own: it waits for the device. One at a time, so that a device that hangs takes one thread.
    asking: Arc<Semaphore>,
}

/// How the sandbox is.
enum State {
    Starting,
    Running(Box<Report>),
    Silent(String),
}

impl Health {
    /// Listens on `address` and answers as long as `runtime` runs.
    pub(super) fn start(address: SocketAddr, runtime: &Handle) -> Result<Self, Failure> {
        let listen = async {
            let listener = TcpListener::bind(address).await?;
            Ok((listener.local_addr()?, listener))
        };
        let (bound, listener) = runtime.block_on(listen).map_err(|error: std::io::Error| {
            Failure::new(
                Kind::Taken,
                format!("--health-addr {address}: {error}; give another address or port"),
            )
        })?;
        let source = Arc::new(Source { reports: OnceLock::new(), asking: Arc::new(Semaphore::new(1)) });
        let task = runtime.spawn(serve(listener, Arc::clone(&source))).abort_handle();
        Ok(Self { address: bound, source, task })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// All is ready, and asked from here on.
    pub(super) fn ready(&self, reports: Reports) {
        let _set_before = self.source.reports.set(reports);
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, source: Arc<Source>) {
    let mut connections = JoinSet::new();
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections of probes");
                sleep(BREATH).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        open.retain(|connection| !connection.is_finished());
        if open.len() >= MAX_CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        open.push_back(connections.spawn(timeout(MAX_AGE, connection(stream, Arc::clone(&source)))));
    }
}

async fn connection(stream: TcpStream, source: Arc<Source>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let source = Arc::clone(&source);
        async move { Ok::<_, Infallible>(answer(request.method(), request.uri().path(), &source).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a probe's connection ended");
    }
}

async fn answer(method: &Method, path: &str, source: &Source) -> Response<String> {
    if !matches!(path, "/healthz" | "/readyz" | "/metrics") {
        return say(StatusCode::NOT_FOUND, PLAIN, "there are /healthz, /readyz and /metrics\n");
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = say(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "GET and HEAD alone are served\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let unavailable = |text: &str| say(StatusCode::SERVICE_UNAVAILABLE, PLAIN, text);
    match (path, source.state().await) {
        (_, State::Silent(why)) => unavailable(&format!("{why}\n")),
        ("/healthz", State::Starting) => say(StatusCode::OK, PLAIN, "starting\n"),
        (_, State::Starting) => unavailable("starting\n"),
        ("/healthz", State::Running(_)) => say(StatusCode::OK, PLAIN, "ok\n"),
        ("/readyz", State::Running(report)) => match report.heard_seconds {
            Some(seconds) if seconds <= HEARD => say(StatusCode::OK, PLAIN, "ready\n"),
            Some(seconds) => unavailable(&format!("the control plane was not heard from for {seconds} s\n")),
            None => unavailable("the control plane was not heard from\n"),
        },
        (_, State::Running(report)) => match metrics::text(&report) {
            Ok(text) => say(StatusCode::OK, OPEN_METRICS, &text),
            Err(_) => say(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, "the metrics cannot be written\n"),
        },
    }
}

fn say(status: StatusCode, kind: &'static str, text: &str) -> Response<String> {
    let mut response = Response::new(text.to_owned());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

impl Source {
    async fn state(&self) -> State {
        let Some(reports) = self.reports.get().cloned() else { return State::Starting };
        let ask = async {
            let turn = Arc::clone(&self.asking).acquire_owned().await.map_err(|error| error.to_string())?;
            let asked = spawn_blocking(move || {
                let report = reports();
                drop(turn);
                report
            });
            asked.await.map_err(|error| error.to_string())?.map_err(|failure| failure.message)
        };
        match timeout(REPORT_TIMEOUT, ask).await {
            Ok(Ok(report)) => State::Running(Box::new(report)),
            Ok(Err(why)) => State::Silent(why),
            Err(_) => State::Silent("the sandbox does not answer".into()),
        }
    }
}

#[cfg(test)]
mod tests;
