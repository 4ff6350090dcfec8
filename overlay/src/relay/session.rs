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
use tokio::{
    sync::{Notify, mpsc},
    time::{sleep_until, timeout_at},
};

use super::{
    RelayState, Transport,
    client::Shared,
    consent::{Consent, Next},
    outbox::Parcel,
    routes::{Routes, Sent},
};

/// Control frames that wait to be sent: a question per peer, at the beginning.
const CONTROL: usize = 8192;
/// How often routes that nobody uses are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(5);
/// One connection's state. All of its futures run in one task.
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    transport: Transport,
    routes: Mutex<Routes>,
    /// Datagrams that have waited for a route that is there now.
    ready: Mutex<Vec<Vec<u8>>>,
    control: mpsc::Sender<Vec<u8>>,
    consent: Mutex<Consent>,
    /// Told when there was something to carry.
    busy: Notify,
    /// Told when a datagram was longer than QUIC is sure to carry, and did not fit.
    pub(super) too_large: Notify,
    /// Told when QUIC takes the path for one that became narrow: it did, or much was lost.
    pub(super) narrow: Notify,
}

impl Session {
    /// A session on a new connection, whose relay is asked for the routes `asked`; and the control frames that it sends.
    pub(super) fn new(
        shared: Arc<Shared>,
        transport: Transport,
        asked: Vec<(WgPublicKey, Instant)>,
    ) -> (Self, mpsc::Receiver<Vec<u8>>) {
        let (control, frames) = mpsc::channel(CONTROL);
        let session = Self {
            shared,
            transport,
            ready: Mutex::default(),
            control,
            consent: Mutex::new(Consent::new(Instant::now(), transport)),
            busy: Notify::new(),
            too_large: Notify::new(),
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

    fn consent(&self) -> MutexGuard<'_, Consent> {
        self.consent.lock().unwrap_or_else(PoisonError::into_inner)
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
        let now = Instant::now();
        self.consent().sent(now);
        self.busy.notify_one();
        let mut routes = self.routes();
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
        self.consent().heard(Instant::now());
        self.shared.inbox.push(peer, body.slice(lrp::HANDLE..));
    }

    /// A control frame has come.
    pub(super) fn frame(&self, frame: &[u8]) -> Result<(), ConnectError> {
        let frame = Frame::parse(frame).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.consent().heard(Instant::now());
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
            Frame::TooLarge(fits) => self.unfit(fits),
            Frame::Closing(reason) => return Err(ConnectError::Refused(reason)),
            _ => return Err(ConnectError::Refused(Reason::Protocol)),
        }
        Ok(())
    }

    /// A datagram did not fit a path, ours or the relay's to us, that carries such of `fits` bytes.
    pub(super) fn unfit(&self, fits: u16) {
        let became_narrow = usize::from(fits) < lrp::FULL_SIZE;
        if became_narrow { &self.narrow } else { &self.too_large }.notify_one();
    }

    /// Asks the relay whether it is there, by what `send` sends, until it is gone. `signs` counts other signs of it that the transport
    /// knows of.
    pub(super) async fn watch(&self, send: impl Fn(Bytes), signs: impl Fn() -> u64) -> ConnectError {
        let mut expire_at = Instant::now() + EXPIRE_EVERY;
        loop {
            let now = Instant::now();
            let next = self.consent().next(now, &signs);
            match next {
                Next::Ping(number) => send(ping(number)),
                Next::Wait(at) => sleep_until(at.into()).await,
                Next::Rest(at) => {
                    let _ = timeout_at(at.into(), self.busy.notified()).await;
                }
                Next::Gone => return io::Error::other("the relay is silent").into(),
            }
            if expire_at <= now {
                expire_at = now + EXPIRE_EVERY;
                let unused = self.routes().expire(now);
                unused.iter().for_each(|key| self.tell(&Frame::Forget(*key)));
            }
        }
    }

    fn pong(&self, datagram: &[u8]) {
        let Ok(number) = datagram.try_into().map(u64::from_be_bytes) else { return };
        let rtt = self.consent().pong(number, Instant::now());
        if let Some(rtt) = rtt {
            self.shared.set(RelayState::Up { transport: self.transport, rtt });
        }
    }
}

fn ping(number: u64) -> Bytes {
    let mut body = lrp::ECHO.to_be_bytes().to_vec();
    body.extend(number.to_be_bytes());
    body.into()
}
