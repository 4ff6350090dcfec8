//! Carries signals between this peer and others over NATS: sealed to the receiver, bounded, and newest first to survive.
//!
//! The NATS server proves who left a signal, by the subject; the seal proves it once more, by the WireGuard key that the network map
//! gives that peer, so that not even NATS can make one up. It can deliver an old one again: what is in it says which ones are old
//! ([`lattice_wire::signal`]).
//!
//! Nothing here waits for its user, or for NATS: what does not fit any more pushes out what is oldest, because a later signal
//! replaces an earlier one anyway.

mod queue;
mod roster;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::{Client, Message, Subscriber, connection::State};
use futures::StreamExt as _;
use lattice_wire::{
    PeerId, Signal, WgPrivateKey, WgPublicKey,
    seal::{self, signal_context},
    subject,
};
use tokio::{runtime::Handle, sync::watch, task::AbortHandle, time::timeout};
use zeroize::Zeroizing;

use queue::Queue;
use roster::Limiter;
pub use roster::Roster;

/// Largest sealed signal that is sent or opened, in bytes: several times what a full one takes.
pub const MAX_SIGNAL: usize = 8 << 10;
/// Signals that wait for their user, and as many that wait for NATS.
const WAITING: usize = 256;
/// How often it is looked whether NATS is back, while something waits for it.
const AWAY: Duration = Duration::from_millis(100);
/// The client's own queue is full for longer than this only when NATS is away.
const PUBLISH: Duration = Duration::from_secs(1);

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Opened, and given to the user.
    Received,
    /// Sealed, and given to NATS.
    Sent,
    /// From or to nobody in the network map.
    Unknown,
    /// One of too many of its sender.
    TooOften,
    /// Bigger than [`MAX_SIGNAL`].
    TooBig,
    /// It did not open, or could not be sealed.
    Refused,
    /// It opened, and what was in it cannot be read.
    Malformed,
    /// Pushed out by newer ones before its user took it.
    Untaken,
    /// Pushed out by newer ones, or lost, on the way to NATS.
    Unsent,
}

/// How many signals had which [`Fate`].
#[derive(Debug, Default)]
pub struct Fates([AtomicU64; 9]);

/// Where signals to others go. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SignalSender {
    waiting: Arc<Queue>,
    fates: Arc<Fates>,
}

/// Where signals from others come from. Dropped, it ends both directions.
#[derive(Debug)]
pub struct SignalReceiver {
    waiting: Arc<Queue>,
    task: AbortHandle,
}

/// Both directions.
#[derive(Debug)]
pub struct Signals {
    client: Client,
    me: PeerId,
    key: WgPrivateKey,
    roster: watch::Receiver<Arc<Roster>>,
    limiter: Limiter,
    received: Arc<Queue>,
    sending: Arc<Queue>,
    fates: Arc<Fates>,
}

// === impl Fates ===

impl Fates {
    /// How many had this one.
    pub fn of(&self, fate: Fate) -> u64 {
        self.0[fate as usize].load(Ordering::Relaxed)
    }

    fn add(&self, fate: Fate, more: u64) {
        self.0[fate as usize].fetch_add(more, Ordering::Relaxed);
    }
}

// === impl SignalSender ===

impl SignalSender {
    /// Has `signal` sent to the peer with this key, when NATS is there. Never waits.
    pub fn send(&self, to: WgPublicKey, signal: Signal) {
        self.fates.add(Fate::Unsent, self.waiting.push((to, signal)));
    }

    /// What became of all signals, in both directions.
    pub fn fates(&self) -> &Fates {
        &self.fates
    }
}

// === impl SignalReceiver ===

impl SignalReceiver {
    /// The next signal, and the key of the peer that it is from.
    pub async fn receive(&mut self) -> (WgPublicKey, Signal) {
        self.waiting.pop().await
    }

    /// The next signal, if there is one.
    pub fn try_receive(&mut self) -> Option<(WgPublicKey, Signal)> {
        self.waiting.try_pop()
    }
}

impl Drop for SignalReceiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Signals ===

impl Signals {
    /// Starts on `runtime`, as the peer `me` with its WireGuard `key`, between it and whoever `roster` names at the time.
    pub fn start(
        client: Client,
        me: PeerId,
        key: WgPrivateKey,
        roster: watch::Receiver<Arc<Roster>>,
        runtime: &Handle,
    ) -> (SignalSender, SignalReceiver) {
        let [received, sending] = [(); 2].map(|()| Arc::new(Queue::new(WAITING)));
        let fates = Arc::<Fates>::default();
        let sender = SignalSender { waiting: sending.clone(), fates: fates.clone() };
        let waiting = received.clone();
        let limiter = Limiter::default();
        let signals = Self { client, me, key, roster, limiter, received, sending, fates };
        let task = runtime.spawn(signals.run()).abort_handle();
        (sender, SignalReceiver { waiting, task })
    }

    async fn run(mut self) {
        // The client subscribes again by itself whenever it has connected again.
        let mut messages: Subscriber = match self.client.subscribe(subject::signals(&self.me)).await {
            Ok(messages) => messages,
            Err(error) => return tracing::error!(%error, "no signals of other peers are heard"),
        };
        let sending = self.sending.clone();
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) => self.take(&message),
                    None => return tracing::debug!("the connection to NATS is closed for good"),
                },
                () = sending.is_waiting() => match self.client.connection_state() {
                    State::Connected => self.send().await,
                    _ => tokio::time::sleep(AWAY).await,
                },
            }
        }
    }

    fn take(&mut self, message: &Message) {
        let fate = match self.open(message) {
            Ok(signal) => {
                self.fates.add(Fate::Untaken, self.received.push(signal));
                Fate::Received
            }
            Err(fate) => {
                tracing::debug!(subject = %message.subject, ?fate, "signal dropped");
                fate
            }
        };
        self.fates.add(fate, 1);
    }

    /// What costs little is asked first.
    fn open(&mut self, message: &Message) -> Result<(WgPublicKey, Signal), Fate> {
        if message.payload.len() > MAX_SIGNAL {
            return Err(Fate::TooBig);
        }
        let (to, from) = subject::parse_signal(&message.subject).ok_or(Fate::Unknown)?;
        let roster = self.roster.borrow().clone();
        let key = roster.key(&from).filter(|_| to == self.me).ok_or(Fate::Unknown)?;
        if !self.limiter.take(&roster, &from, Instant::now()) {
            return Err(Fate::TooOften);
        }
        let opened = seal::open(&self.key, &key, &signal_context(&from, &to), &message.payload);
        let opened = opened.map_err(|_| Fate::Refused)?;
        let signal = serde_json::from_slice(&opened).map_err(|_| Fate::Malformed)?;
        Ok((key, signal))
    }

    async fn send(&self) {
        let Some((to, signal)) = self.sending.try_pop() else { return };
        let fate = match self.sealed(&to, &signal) {
            Ok((subject, sealed)) => {
                match timeout(PUBLISH, self.client.publish(subject, sealed.into())).await {
                    Ok(Ok(())) => Fate::Sent,
                    _ => Fate::Unsent,
                }
            }
            Err(fate) => fate,
        };
        self.fates.add(fate, 1);
    }

    fn sealed(&self, to: &WgPublicKey, signal: &Signal) -> Result<(String, Vec<u8>), Fate> {
        let id = self.roster.borrow().id(to).ok_or(Fate::Unknown)?;
        let text = serde_json::to_vec(signal).map_err(|_| Fate::Malformed)?;
        if text.len() + seal::OVERHEAD > MAX_SIGNAL {
            return Err(Fate::TooBig);
        }
        let mut ephemeral = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *ephemeral).map_err(|_| Fate::Refused)?;
        let context = signal_context(&self.me, &id);
        let sealed = seal::seal(&self.key, to, &context, &text, ephemeral).map_err(|_| Fate::Refused)?;
        Ok((subject::signal(&id, &self.me), sealed))
    }
}
