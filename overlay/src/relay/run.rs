//! Connects, serves, and connects again.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use lattice_relay::client::ConnectError;
use lattice_wire::{
    WgPublicKey,
    lrp::{Frame, Reason},
};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

use super::{
    RelayState, Transport, Why,
    client::Shared,
    connect::{self, Link},
    hold_off::HoldOff,
    quic,
    session::Session,
    tcp,
};

/// The wait before another attempt, from the first to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A connection that has lived so long was a success: the next wait is a short one.
const SUCCESS: Duration = Duration::from_secs(5);
/// A connection that was replaced so soon may have lost against our own other attempt; for as long again there is only one.
const OVERTAKEN: Duration = Duration::from_secs(15);

type Replacement<'a> = Pin<Box<dyn Future<Output = Result<Link, ConnectError>> + Send + 'a>>;

/// What outlives a connection.
struct Memory {
    asked: Vec<(WgPublicKey, Instant)>,
    hold_off: HoldOff,
    /// Until when QUIC is not tried.
    no_quic: Option<Instant>,
    /// When a connection by QUIC was last made anew because its path seemed narrow.
    tried_anew: Option<Instant>,
    /// For how long QUIC was of use before what is there now, unless it is held off.
    quic_lasted: Option<Duration>,
}

impl Memory {
    fn may_use_quic(&self) -> bool {
        self.no_quic.is_none_or(|until| until <= Instant::now())
    }

    /// Whether that was just now: a relay that is flooded is not to be asked for one handshake after the other by all of its clients.
    fn has_just_tried(&self) -> bool {
        self.tried_anew.is_some_and(|at| at.elapsed() < OVERTAKEN)
    }
}

/// The client's task. Never ends.
pub(super) async fn run(shared: Arc<Shared>, mut token: watch::Receiver<Option<String>>) {
    let mut memory = Memory {
        asked: Vec::new(),
        hold_off: HoldOff::default(),
        no_quic: None,
        tried_anew: None,
        quic_lasted: None,
    };
    let mut wait = FIRST_WAIT;
    loop {
        let Some(text) = token.borrow_and_update().clone() else {
            shared.set(RelayState::Down(Why::NoToken));
            if token.changed().await.is_err() {
                return;
            }
            continue;
        };
        shared.set(RelayState::Connecting);
        let begun = Instant::now();
        let error = match connect::either(&shared, &text, memory.may_use_quic()).await {
            Ok(link) => serve(&shared, link, &mut memory, &mut token).await,
            Err(error) => error,
        };
        // A QUIC connection that was given up may still have been welcomed behind the one by TCP.
        if begun.elapsed() < OVERTAKEN && matches!(error, ConnectError::Refused(Reason::Replaced)) {
            memory.no_quic = Some(Instant::now() + OVERTAKEN);
        }
        shared.outbox.set_open(false);
        if begun.elapsed() >= SUCCESS {
            wait = FIRST_WAIT;
        }
        let why = why(&error);
        tracing::debug!(relay = %shared.server.name, %why, "no connection to the relay");
        // Nothing changes by itself about these.
        if matches!(why, Why::Fingerprint | Why::Refused(Reason::Token | Reason::Proof | Reason::Full)) {
            wait = LONGEST_WAIT;
        }
        shared.set(RelayState::Down(why));
        let _ = timeout(jittered(wait), token.changed()).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

fn why(error: &ConnectError) -> Why {
    match error {
        ConnectError::Fingerprint => Why::Fingerprint,
        ConnectError::Refused(reason) => Why::Refused(*reason),
        error => Why::Failed(error.to_string()),
    }
}

/// Between half of it and all of it: those who lost one relay together do not come back together.
fn jittered(wait: Duration) -> Duration {
    let mut random = [0; 2];
    let _ = getrandom::fill(&mut random);
    wait / 2 + wait.mul_f64(f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX) / 2.0)
}

/// Uses `link`, and whichever takes its place, until there is none.
async fn serve(
    shared: &Arc<Shared>,
    mut link: Link,
    memory: &mut Memory,
    token: &mut watch::Receiver<Option<String>>,
) -> ConnectError {
    loop {
        let (transport, begun) = (link.transport(), Instant::now());
        if transport == Transport::Tcp
            && let Some(lasted) = memory.quic_lasted.take()
        {
            memory.hold_off.doubted(lasted);
        }
        let rtt = if let Link::Quic(_, rtt) = &link { *rtt } else { Duration::ZERO };
        let asked = std::mem::take(&mut memory.asked);
        let (session, control) = Session::new(Arc::clone(shared), transport, asked);
        shared.outbox.set_open(true);
        shared.set(RelayState::Up { transport, rtt });
        let ended = serve_one(&session, control, link, memory, token).await;
        memory.asked = session.asked();
        let was_of_use = transport == Transport::Quic && memory.may_use_quic();
        memory.quic_lasted = was_of_use.then(|| begun.elapsed());
        match ended {
            Ok(replacement) => link = replacement,
            Err(error) => return error,
        }
    }
}

/// Uses one connection, until it ends or another one has taken its place.
async fn serve_one(
    session: &Session,
    mut control: mpsc::Receiver<Vec<u8>>,
    mut link: Link,
    memory: &mut Memory,
    token: &mut watch::Receiver<Option<String>>,
) -> Result<Link, ConnectError> {
    let shared = &session.shared;
    let has_both = shared.server.quic.is_some() && shared.server.tcp.is_some();
    let on_quic = link.transport() == Transport::Quic;
    let mut current = token.borrow_and_update().clone().unwrap_or_default();
    let mut running: Pin<Box<dyn Future<Output = ConnectError> + Send + '_>> = match &mut link {
        Link::Quic(link, _) => Box::pin(quic::run(session, &mut control, link)),
        Link::Tcp(link) => Box::pin(tcp::run(session, &mut control, link)),
    };
    let mut replacement: Option<Replacement<'_>> = None;
    let mut look_again = Box::pin(sleep(memory.hold_off.get()));
    loop {
        tokio::select! {
            error = &mut running => {
                // The relay has welcomed the other one already.
                return match (replacement, &error) {
                    (Some(replacement), ConnectError::Refused(Reason::Replaced)) => replacement.await,
                    _ => Err(error),
                };
            }
            () = session.narrow.notified(), if on_quic && replacement.is_none() && (has_both || !memory.has_just_tried()) => {
                let quic = !memory.has_just_tried();
                tracing::debug!(relay = %shared.server.name, quic, "its path seems to have become narrow: it is tried anew");
                if quic {
                    memory.tried_anew = Some(Instant::now());
                } else {
                    memory.hold_off.doubted(Duration::ZERO);
                    memory.no_quic = Some(Instant::now() + memory.hold_off.get());
                }
                let token = current.clone();
                replacement = Some(Box::pin(async move { connect::either(shared, &token, quic).await }));
            }
            () = session.too_large.notified(), if on_quic && has_both && replacement.is_none() => {
                memory.no_quic = Some(Instant::now() + memory.hold_off.too_large());
                tracing::debug!(relay = %shared.server.name, "a datagram was too large for QUIC");
                let token = current.clone();
                replacement = Some(Box::pin(async move { connect::tcp(shared, &token).await }));
            }
            () = &mut look_again, if !on_quic && has_both && replacement.is_none() => {
                memory.no_quic = Some(Instant::now() + memory.hold_off.tried());
                let token = current.clone();
                replacement = Some(Box::pin(async move { connect::quic(shared, &token).await }));
            }
            link = async { match &mut replacement {
                Some(replacement) => replacement.await,
                None => std::future::pending().await,
            } } => {
                replacement = None;
                match link {
                    Ok(link) => return Ok(link),
                    Err(error) => tracing::debug!(relay = %shared.server.name, %error, "stays as it is"),
                }
                look_again = Box::pin(sleep(memory.hold_off.get()));
            }
            changed = token.changed() => {
                if changed.is_err() {
                    return Err(io::Error::other("the client has ended").into());
                }
                if let Some(newer) = token.borrow_and_update().clone() {
                    if newer.len() <= lattice_wire::relay_token::MAX_TOKEN {
                        session.tell(&Frame::Renew(&newer));
                    }
                    current = newer;
                }
            }
        }
    }
}
