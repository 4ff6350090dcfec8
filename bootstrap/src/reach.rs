//! Where STUN servers and relays are, and the token that relays ask for: kept current while the peer runs.
//!
//! ```text
//!  at the start, after a reconnect ──┐
//!  at half of the token's time ──────┴─► lattice.peer.<id>.reach ─► names ─► one thread each ─► addresses ─► watch
//! ```
//!
//! Names are looked up where encrypted packets leave, by the host's resolver, which may take its time or for ever: so each is looked up
//! by a thread of its own for which nobody waits, one at a time. What was found stays until something else is.

mod lookup;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_nats::{Client, connection::State};
use lattice_overlay::Netns;
use lattice_policy::Overlay;
use lattice_wire::{
    HostPort, PeerId, Reach, RelayServer,
    message::Ack,
    reach::MAX_SERVERS,
    relay_token::MAX_TOKEN,
    subject::{self, PeerVerb},
};
use tokio::{runtime::Handle, sync::watch};

use crate::{clock::now_unix, session};
use lookup::Lookups;

/// How often it is looked what is due. By the clock on the wall: a host that slept must not be late.
const TICK: Duration = Duration::from_secs(1);
/// A request that failed is repeated after so many seconds, each time twice as many, up to the second.
const RETRY: (i64, i64) = (2, 60);
/// Longest time of a token that counts, in seconds. Without one it is asked as often, for other servers.
const LONGEST: i64 = 3600;
/// At most so often, in seconds: by a clock that is ahead, what was granted just now may be over already.
const AT_MOST_EVERY: i64 = 10;

/// What is known now.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Reachable {
    /// Addresses of STUN servers, in the order in which latticed names the servers.
    pub stun: Vec<SocketAddr>,
    /// The relays.
    pub relays: Vec<RelayPlace>,
    /// Shown to each relay ([`lattice_wire::relay_token`]). `None` when there is none, or it is over.
    pub token: Option<String>,
}

/// A relay and its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayPlace {
    /// As latticed says.
    pub server: RelayServer,
    /// Of [`RelayServer::quic`]. Empty when its name cannot be resolved, yet.
    pub quic: Vec<SocketAddr>,
    /// Of [`RelayServer::tcp`].
    pub tcp: Vec<SocketAddr>,
}

/// Asks, and looks up.
#[derive(Debug)]
pub struct Finder {
    client: Client,
    me: PeerId,
    overlay: Overlay,
    reach: Reach,
    lookups: Lookups,
    /// Connections to NATS so far, when it was last asked.
    connects: u64,
    /// Unix seconds.
    due: i64,
    failures: u32,
    found: watch::Sender<Arc<Reachable>>,
}

impl Finder {
    /// Starts on `runtime`, for the peer `me`: until every receiver of the result is dropped. Names are looked up in `underlay`;
    /// addresses of the `overlay` are none at which a server can be.
    pub fn start(
        client: Client,
        me: PeerId,
        underlay: Arc<Netns>,
        overlay: Overlay,
        runtime: &Handle,
    ) -> watch::Receiver<Arc<Reachable>> {
        let (found, receiver) = watch::channel(Arc::default());
        let lookups = Lookups::new(underlay);
        let reach = Reach::default();
        let finder = Self { client, me, overlay, reach, lookups, connects: 0, due: 0, failures: 0, found };
        runtime.spawn(finder.run());
        receiver
    }

    async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.found.closed() => return,
                _ = tick.tick() => {}
                () = self.lookups.answered() => {}
            }
            let connects = self.client.statistics().connects.load(Ordering::Relaxed);
            let is_due = connects != self.connects || now_unix() >= self.due;
            if is_due && self.client.connection_state() == State::Connected {
                self.connects = connects;
                self.ask().await;
            }
            self.publish();
        }
    }

    async fn ask(&mut self) {
        let subject = subject::peer(&self.me, PeerVerb::Reach);
        match session::request::<Reach>(&self.client, subject, &Ack {}).await {
            Ok(reach) => {
                self.reach = sound(reach);
                self.failures = 0;
                let now = now_unix();
                self.due = due(self.reach.token_not_after, jitter(), now);
            }
            Err(error) => {
                let wait = (RETRY.0 << self.failures.min(5)).min(RETRY.1);
                self.failures += 1;
                self.due = now_unix() + wait;
                tracing::debug!(%error, retry_in = wait, "no news of relays");
            }
        }
    }

    fn publish(&mut self) {
        let wanted = self.reach.stun.iter();
        let relays = self.reach.relays.iter().flat_map(|relay| relay.quic.iter().chain(&relay.tcp));
        let places: Vec<HostPort> = wanted.chain(relays).filter_map(|place| place.parse().ok()).collect();
        self.lookups.look_up(places.iter().map(HostPort::host));
        let found = Arc::new(self.reachable());
        self.found.send_if_modified(|known| {
            let is_news = *known != found;
            if is_news {
                *known = found;
            }
            is_news
        });
    }

    fn reachable(&self) -> Reachable {
        let is_over = self.reach.token_not_after.is_none_or(|end| end <= now_unix());
        let at =
            |place: &Option<String>| place.as_deref().map(|place| self.addresses(place)).unwrap_or_default();
        let relays = self.reach.relays.iter().map(|server| RelayPlace {
            server: server.clone(),
            quic: at(&server.quic),
            tcp: at(&server.tcp),
        });
        Reachable {
            stun: self.reach.stun.iter().flat_map(|place| self.addresses(place)).collect(),
            relays: relays.collect(),
            token: self.reach.relay_token.clone().filter(|_| !is_over),
        }
    }

    fn addresses(&self, place: &str) -> Vec<SocketAddr> {
        let Ok(place) = place.parse::<HostPort>() else { return Vec::new() };
        let found = self.lookups.addresses(place.host());
        found
            .iter()
            .filter(|ip| may_be_a_server(**ip, &self.overlay))
            .map(|ip| (*ip, place.port()).into())
            .collect()
    }
}

/// What of `reach` has its form, and no more of it than there should be.
fn sound(mut reach: Reach) -> Reach {
    reach.stun.retain(|place| place.parse::<HostPort>().is_ok());
    reach.stun.truncate(MAX_SERVERS);
    reach.relays.retain(RelayServer::is_sound);
    reach.relays.truncate(MAX_SERVERS);
    reach.relay_token = reach.relay_token.filter(|token| token.len() <= MAX_TOKEN);
    reach
}

/// When to ask again: at half of the token's time, less a share of it, so that peers which started together do not ask together.
fn due(not_after: Option<i64>, jitter: u8, now: i64) -> i64 {
    let left = not_after.map_or(LONGEST, |end| end.saturating_sub(now));
    let half = left.clamp(0, LONGEST) / 2;
    now + (half - half / 4 * i64::from(jitter) / 256).max(AT_MOST_EVERY)
}

/// Without randomness there is none, and that is all.
fn jitter() -> u8 {
    let mut byte = [0];
    let _ = getrandom::fill(&mut byte);
    byte[0]
}

fn may_be_a_server(ip: IpAddr, overlay: &Overlay) -> bool {
    let ip = ip.to_canonical();
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(overlay.contains(&ip.into()) || is_broadcast || ip.is_unspecified() || ip.is_multicast())
}

impl fmt::Debug for Reachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reachable")
            .field("stun", &self.stun)
            .field("relays", &self.relays)
            .field("token", &self.token.as_ref().map(|_| "[redacted]"))
            .finish()
    }
}

#[cfg(test)]
mod tests;
