//! The shim process: the task service, version 2 and 3, on one socket.
//!
//! One thread does it all: containerd asks little, and each thread costs memory in every pod. What blocks gets a thread that ends.

mod inherited;
mod methods;

use std::{os::unix::net::UnixListener, path::Path, sync::Arc, time::Duration};

use containerd_shim_protos::{
    shim_async::Task,
    ttrpc::asynchronous::{Server, transport::Listener},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{sleep, timeout},
};

use crate::{
    cli::Flags,
    config::Config,
    error::{Error, Result},
    events::Publisher,
    logging,
    reaper::Reaper,
    socket,
    task::{Service, Settings},
};

use inherited::Inherited;

/// For ending the pod after a signal; then we go, and containerd's `delete` does the rest.
const END_LIMIT: Duration = Duration::from_secs(30);
/// For requests that are being answered when we end.
const ANSWERS_LIMIT: Duration = Duration::from_secs(1);
/// For what the kernel has to take of the last answer.
const LAST_WORDS: Duration = Duration::from_millis(10);
/// For events that containerd has not taken yet: without us, `delete` tells it of the end.
const EVENTS_LIMIT: Duration = Duration::from_secs(2);

/// Serves until the pod is over. `start` runs this, with the listening socket as standard input.
///
/// # Errors
/// When it cannot begin; `start` is told the reason too.
pub fn run(flags: &Flags, ttrpc_address: Option<&str>) -> Result<()> {
    let (Inherited { listener }, ready) = inherited::take()?;
    let config = Config::read(flags.config.as_deref()).map_err(|error| error.to_string());
    let filter = match &config {
        _ if flags.debug => "debug",
        Ok(config) => config.log.as_str(),
        Err(_) => "info",
    };
    logging::start(Path::new("log"), filter);
    inherited::raise_oom_score();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return ready.failed(Error::io("start the runtime")(error)),
    };
    let served = runtime.block_on(async {
        let begun = async {
            let reaper = Reaper::start().map_err(Error::io("become the subreaper"))?;
            let publisher = Publisher::start(ttrpc_address, &flags.namespace);
            let service = Service::new(Settings {
                namespace: flags.namespace.clone(),
                pod: flags.id.clone(),
                config,
                config_path: flags.config.clone(),
                reaper,
                publisher: publisher.clone(),
            })?;
            let signals = Signals::new()?;
            let server = listen(listener, Arc::new(service.clone())).await?;
            Ok((service, publisher, signals, server))
        };
        let (service, publisher, mut signals, mut server) = match begun.await {
            Ok(begun) => begun,
            Err(error) => return ready.failed(error),
        };
        ready.done();
        tracing::debug!(pod = flags.id, "the shim serves");
        tokio::select! {
            () = service.ended() => {}
            () = signals.next() => end(&service, &mut signals).await,
        }
        // A socket that is gone before we stop listening is never replaced under a new shim.
        let released = flags.socket.as_deref().map_or(Ok(()), socket::release);
        let _ = timeout(ANSWERS_LIMIT, server.shutdown()).await;
        publisher.flush(EVENTS_LIMIT).await;
        sleep(LAST_WORDS).await;
        released
    });
    // A thread that still blocks must not keep us.
    runtime.shutdown_background();
    served
}

/// Serves `service` at `listener`, as both versions of containerd's task API.
///
/// # Errors
/// When the listener cannot be used. Inside a runtime.
pub async fn listen(listener: UnixListener, service: Arc<dyn Task + Send + Sync>) -> Result<Server> {
    let listener = Listener::try_from(listener).map_err(Error::io("listen at the shim's socket"))?;
    let mut server = Server::new().add_listener(listener).register_service(methods::all(&service));
    server.start().await.map_err(|error| Error::FailedPrecondition(format!("cannot serve: {error}")))?;
    Ok(server)
}

/// Ends the pod; a second signal ends the wait for it.
async fn end(service: &Service, signals: &mut Signals) {
    tracing::info!("told to end by a signal");
    tokio::select! {
        () = service.end() => {}
        () = signals.next() => {}
        () = sleep(END_LIMIT) => tracing::warn!("the pod does not end: what is left is for containerd's delete"),
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let catch = |kind| signal(kind).map_err(Error::io("catch signals"));
        Ok(Self { terminate: catch(SignalKind::terminate())?, interrupt: catch(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests;
