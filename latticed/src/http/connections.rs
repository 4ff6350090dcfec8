//! Accepts HTTP connections: so many at most, none that only holds its place.

use std::{future::Future, io, pin::pin, sync::Arc, time::Duration};

use axum::{Router, extract::Extension};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::throttle::Remote;

const MAX_CONNECTIONS: usize = 512;
/// A client gets this long for each request's header, the wait before it included.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
const MAX_HEADER: usize = 16 << 10;
/// What is being answered when latticed is told to end gets this long.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves `router` until `stop` is ready, then lets what is being answered finish.
pub async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (draining, drain) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
            let (stream, remote) = listener.accept().await?;
            Ok::<_, io::Error>((place, stream, remote))
        };
        tokio::select! {
            () = &mut stop => break,
            // Finished tasks are collected as they finish, or the set would grow for ever.
            Some(_) = connections.join_next() => {}
            accepted = accepted => match accepted {
                Ok((place, stream, remote)) => {
                    let router = router.clone().layer(Extension(Remote(remote.ip())));
                    let drain = drain.clone();
                    connections.spawn(async move {
                        connection(stream, router, drain).await;
                        drop(place);
                    });
                }
                // Out of descriptors, most likely: an accept in a tight loop would not help.
                Err(error) => {
                    warn!(%error, "cannot accept HTTP connections");
                    sleep(Duration::from_millis(200)).await;
                }
            },
        }
    }
    drop(listener);
    let _ = draining.send(true);
    let _ = timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
}

async fn connection(stream: TcpStream, router: Router, mut drain: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEADER)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    let result = tokio::select! {
        result = connection.as_mut() => result,
        _ = async { drain.wait_for(|draining| *draining).await.is_ok() } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        debug!(%error, "HTTP connection ended");
    }
}
