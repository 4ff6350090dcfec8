//! One connection, from its first byte to its last.

pub(crate) mod quic;
pub(crate) mod tcp;

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use lattice_wire::lrp::{Frame, Reason};
use tokio::{io::AsyncRead, time::timeout};

use crate::{
    frames::{self, Frames},
    handshake,
    member::Member,
    rate::Bucket,
    server::Shared,
};

/// Control frames that a client may send: a route per peer when it has come back, and then hardly any.
const CONTROL: crate::rate::Rate = crate::rate::Rate { burst: 8192.0, per_second: 100.0 };
/// How often a token's end is looked at.
const EXPIRY: Duration = Duration::from_secs(1);

/// Unix seconds.
pub(crate) fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(i64::MAX, |now| now.as_secs() as i64)
}

/// Waits until the token of `member` is over.
async fn expired(member: &Member) -> Reason {
    loop {
        tokio::time::sleep(EXPIRY).await;
        if member.not_after() <= unix_now() {
            return Reason::Expired;
        }
    }
}

/// Reads what `member` sends on its stream until it ends or must end: control, and by TCP the data. Silence for `idle` ends it.
async fn read(
    shared: &Shared,
    member: &Arc<Member>,
    frames: &mut Frames<impl AsyncRead + Unpin>,
    idle: Duration,
) -> io::Result<Reason> {
    let now = Instant::now();
    let (mut data, mut control) = (Bucket::new(shared.rate, now), Bucket::new(CONTROL, now));
    loop {
        // Most often the next frame is there already, and needs no timer.
        let frame = match frames.buffered()? {
            Some(frame) => frame,
            None => timeout(idle, frames.next()).await??.ok_or(io::ErrorKind::UnexpectedEof)?,
        };
        let now = Instant::now();
        if let Some(body) = frames::data(&frame) {
            if data.take(shared.rate, body.len() as f64, now) {
                member.forward(body, &shared.metrics);
            } else {
                shared.metrics.dropped.rate.inc();
            }
            continue;
        }
        if !control.take(CONTROL, 1.0, now) {
            return Ok(Reason::Protocol);
        }
        match Frame::parse(&frame) {
            Ok(Frame::Ask(key)) => shared.registry.ask(member, key),
            Ok(Frame::Forget(key)) => shared.registry.forget(member, key),
            Ok(Frame::Renew(token)) => {
                let renewed = handshake::check(token, &shared.trusted, unix_now());
                if let Err(reason) = renewed.and_then(|claims| member.renew(&claims)) {
                    return Ok(reason);
                }
            }
            _ => return Ok(Reason::Protocol),
        }
    }
}

/// Takes the member out when the session ends, however it ends.
struct Registered<'a> {
    shared: &'a Shared,
    member: Arc<Member>,
    clients: prometheus_client::metrics::gauge::Gauge,
}

impl<'a> Registered<'a> {
    fn join(shared: &'a Shared, member: Arc<Member>, transport: &'static str) -> Result<Self, Reason> {
        shared.registry.join(&member)?;
        let clients = shared.metrics.clients(transport);
        clients.inc();
        Ok(Self { shared, member, clients })
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.shared.registry.leave(&self.member);
        self.clients.dec();
    }
}
