//! What both transports do alike while connected.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use lattice_relay::client::ConnectError;
use lattice_wire::{
    WgPublicKey,
    lrp::{self, Frame, Reason},
};
use tokio::sync::{Notify, mpsc};

use super::{
    RelayState, Transport,
    client::Shared,
    outbox::Parcel,
    routes::{Routes, Sent},
};

/// Control frames that wait to be sent: a question per peer, at the beginning.
const CONTROL: usize = 8192;
/// How often the round trip is measured; with datagrams to carry, more often, because then somebody waits.
const PING_EVERY: Duration = Duration::from_secs(5);
const PING_BUSY: Duration = Duration::from_secs(1);
/// How long a sign of the relay is waited for, at least, before the next ping.
const ANSWER: Duration = Duration::from_millis(500);
/// After so many pings without one, it is gone.
const MAX_SILENT: u32 = 3;

/// One connection's state. All of its futures run in one task.
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    transport: Transport,
    routes: Mutex<Routes>,
    /// Datagrams that have waited for a route that is there now.
    ready: Mutex<Vec<Vec<u8>>>,
    control: mpsc::Sender<Vec<u8>>,
    heard: Mutex<Heard>,
    /// Told when there was something to carry.
    busy: Notify,
    /// Told when a datagram did not fit.
    pub(super) narrow: Notify,
}

struct Heard {
    at: Instant,
    /// The ping under way: its number and when it was sent.
    ping: Option<(u64, Instant)>,
    number: u64,
    rtt: Duration,
}

impl Session {
    /// A session on a new connection, whose relay is asked for the routes `asked`; and the control frames that it sends.
    pub(super) fn new(
        shared: Arc<Shared>,
        transport: Transport,
        asked: Vec<(WgPublicKey, Instant)>,
    ) -> (Self, mpsc::Receiver<Vec<u8>>) {
        let (control, frames) = mpsc::channel(CONTROL);
        let heard = Heard { at: Instant::now(), ping: None, number: 0, rtt: Duration::ZERO };
        let session = Self {
            shared,
            transport,
            ready: Mutex::default(),
            control,
            heard: Mutex::new(heard),
            busy: Notify::new(),
            narrow: Notify::new(),
            routes: Mutex::default(),
        };
        asked.iter().for_each(|(key, _)| session.tell(&Frame::Ask(*key)));
        *session.routes() = Routes::asking(asked);
        (session, frames)
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom the next connection must ask for.
    pub(super) fn asked(&self) -> Vec<(WgPublicKey, Instant)> {
        self.routes().asked()
    }

    /// Sends a control frame, some time. A relay that takes none for long is given up by [`Session::watch`].
    pub(super) fn tell(&self, frame: &Frame<'_>) {
        let mut bytes = Vec::new();
        frame.write(&mut bytes);
        let _ = self.control.try_send(bytes);
    }

    /// Takes what waits to be sent and is known where to; `empty` is what was taken the last time.
    pub(super) fn outgoing(&self, empty: &mut VecDeque<Parcel>, mut each: impl FnMut(Vec<u8>)) {
        let ready = std::mem::take(&mut *self.ready.lock().unwrap_or_else(PoisonError::into_inner));
        ready.into_iter().for_each(&mut each);
        self.shared.outbox.take(empty);
        if empty.is_empty() {
            return;
        }
        self.busy.notify_one();
        let (now, mut routes) = (Instant::now(), self.routes());
        for parcel in empty.drain(..) {
            let key = parcel.0;
            let (sent, ask) = routes.send(parcel, now);
            if ask {
                self.tell(&Frame::Ask(key));
            }
            match sent {
                Sent::Now(body) => each(body),
                Sent::Wait => {}
                Sent::Dropped => self.shared.outbox.drop_one(),
            }
        }
    }

    /// A data body has come.
    pub(super) fn data(&self, body: &Bytes) {
        let Some((handle, datagram)) = lrp::split_data(body) else {
            self.shared.unknown.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if handle == lrp::ECHO {
            return self.pong(datagram);
        }
        let mut routes = self.routes();
        let Some(peer) = routes.peer(handle) else {
            let went = routes.keep(handle, Bytes::copy_from_slice(body));
            self.shared.unknown.fetch_add(u64::from(went), Ordering::Relaxed);
            return;
        };
        drop(routes);
        self.heard().at = Instant::now();
        self.shared.inbox.push(peer, body.slice(lrp::HANDLE..));
    }

    /// A control frame has come.
    pub(super) fn frame(&self, frame: &[u8]) -> Result<(), ConnectError> {
        let frame = Frame::parse(frame).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.heard().at = Instant::now();
        match frame {
            Frame::Route(handle, key) => {
                let mut bodies = self.routes().up(handle, key);
                let early = self.routes().kept(handle);
                early.iter().for_each(|body| self.data(body));
                if !bodies.is_empty() {
                    self.ready.lock().unwrap_or_else(PoisonError::into_inner).append(&mut bodies);
                    self.shared.outbox.bell.notify_one();
                }
            }
            Frame::Gone(handle) => self.routes().gone(handle),
            Frame::Absent(key) => {
                let dropped = self.routes().absent(&key);
                (0..dropped).for_each(|_| self.shared.outbox.drop_one());
            }
            Frame::TooLarge => self.narrow.notify_one(),
            Frame::Closing(reason) => return Err(ConnectError::Refused(reason)),
            _ => return Err(ConnectError::Refused(Reason::Protocol)),
        }
        Ok(())
    }

    /// Measures the round trip by what `send` sends, until the relay is silent for too long.
    pub(super) async fn watch(&self, send: impl Fn(Bytes)) -> ConnectError {
        let mut silent = 0;
        loop {
            let sent = Instant::now();
            send(self.ping(sent));
            tokio::time::sleep(ANSWER.max(3 * self.rtt())).await;
            if self.heard().at < sent {
                silent += 1;
                if silent == MAX_SILENT {
                    return io::Error::other("the relay is silent").into();
                }
                continue;
            }
            silent = 0;
            let busy = async {
                tokio::time::sleep(PING_BUSY).await;
                self.busy.notified().await;
            };
            let _ = tokio::time::timeout(PING_EVERY, busy).await;
            let unused = self.routes().expire(Instant::now());
            unused.iter().for_each(|key| self.tell(&Frame::Forget(*key)));
        }
    }

    /// The last round trip; nothing before the first.
    fn rtt(&self) -> Duration {
        self.heard().rtt
    }

    fn ping(&self, now: Instant) -> Bytes {
        let mut heard = self.heard();
        heard.number += 1;
        heard.ping = Some((heard.number, now));
        let mut body = lrp::ECHO.to_be_bytes().to_vec();
        body.extend(heard.number.to_be_bytes());
        body.into()
    }

    fn pong(&self, datagram: &[u8]) {
        let now = Instant::now();
        let mut heard = self.heard();
        heard.at = now;
        if let Some((number, sent)) = heard.ping
            && datagram == number.to_be_bytes()
        {
            heard.ping = None;
            let rtt = now.saturating_duration_since(sent);
            heard.rtt = rtt;
            self.shared.set(RelayState::Up { transport: self.transport, rtt });
        }
    }
}
