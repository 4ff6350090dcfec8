//! Accepts HTTP connections: so many at most, none that only holds its place.

use std::{
    collections::HashMap,
    future::Future,
    io,
    net::IpAddr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, extract::Extension};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{REQUEST_TIMEOUT, throttle::Remote};
use crate::{limit::remote_key, tls::Https};

const MAX_CONNECTIONS: usize = 512;
/// Of these, so many for one address, or a single host could hold them all.
const MAX_PER_ADDRESS: usize = 128;
/// A connection that is as old as this is closed after its current request. What is being answered then gets
/// [`REQUEST_TIMEOUT`], so that a client that does not read cannot stay.
const MAX_AGE: Duration = Duration::from_secs(120);
/// A client gets this long for each request's header, the wait before it included.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// And this long for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_HEADER: usize = 16 << 10;
/// What is being answered when latticed is told to end gets this long.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves `router` until `stop` is ready, then lets what is being answered finish. With `https`, nothing is said in plain.
pub async fn serve(
    listener: TcpListener,
    https: Option<Arc<Https>>,
    router: Router,
    stop: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let addresses = Addresses::default();
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
                    let Some(counted) = addresses.count(remote.ip()) else {
                        debug!(%remote, "too many HTTP connections from this address; closed");
                        continue;
                    };
                    let router = router.clone().layer(Extension(Remote(remote.ip())));
                    let drain = drain.clone();
                    let tls = https.as_ref().map(|https| https.acceptor());
                    connections.spawn(async move {
                        let _ = stream.set_nodelay(true);
                        match tls {
                            None => connection(stream, router, drain).await,
                            Some(tls) => match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                                Ok(Ok(stream)) => connection(stream, router, drain).await,
                                Ok(Err(error)) => debug!(%remote, %error, "no TLS with this client"),
                                Err(_) => debug!(%remote, "TLS handshake takes too long; closed"),
                            },
                        }
                        drop((place, counted));
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

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    mut drain: watch::Receiver<bool>,
) {
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEADER)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    let result = tokio::select! {
        result = connection.as_mut() => Ok(result),
        () = async {
            tokio::select! {
                _ = drain.wait_for(|draining| *draining) => {}
                () = sleep(MAX_AGE) => {}
            }
        } => {
            connection.as_mut().graceful_shutdown();
            timeout(REQUEST_TIMEOUT, connection).await
        }
    };
    match result {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "HTTP connection ended"),
        Err(_) => debug!("HTTP connection cut: the client takes no answer"),
    }
}

/// How many connections each remote address has. Holds no address without any.
#[derive(Clone, Default)]
struct Addresses(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection of an address, until it is dropped.
struct Counted(Addresses, IpAddr);

impl Addresses {
    /// One more; `None` when it has as many as it may.
    fn count(&self, remote: IpAddr) -> Option<Counted> {
        let key = remote_key(remote);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key).or_default();
        if *count >= MAX_PER_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Counted(self.clone(), key))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_so_many_places_and_gives_them_back() {
        let (addresses, busy) = (Addresses::default(), "192.0.2.1".parse().unwrap());
        let held: Vec<_> = std::iter::from_fn(|| addresses.count(busy)).collect();
        assert_eq!(held.len(), MAX_PER_ADDRESS);
        assert!(addresses.count("192.0.2.2".parse().unwrap()).is_some());
        drop(held);
        assert!(addresses.0.lock().unwrap().is_empty());
    }
}
