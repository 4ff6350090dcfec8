//! The relays as their clients see them: each forwards datagrams between those connected with it, and may be slow, out of
//! reach, or dead.
//!
//! Connections are TCP or QUIC on a port that every network lets out, so they need a way to the internet but no UDP.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use lattice_wireguard::RelayNumber;

use crate::{HostId, Random, queue::Queue};

/// A client learns this late that its relay died: the kernel there refuses what comes.
const NOTICED_DEAD: Duration = Duration::from_millis(200);
/// A client with traffic learns this late that its relay is out of reach: what it asks stays unanswered.
const NOTICED_SILENT: Duration = Duration::from_millis(900);

#[derive(Debug)]
struct Relay {
    up: bool,
    latency: Duration,
    /// Of a thousand frames, how many are lost.
    loss: u16,
}

#[derive(Debug, Default)]
struct Connection {
    cut: bool,
    /// Frames pass.
    works: bool,
    /// What the client thinks.
    known: bool,
    /// Counts the changes, so that news of an older one are dropped.
    changes: u64,
}

/// What a relay does for a client.
#[derive(Debug)]
pub(crate) enum Event {
    Frame { from: HostId, bytes: Vec<u8> },
    Connected { round_trip: Duration },
    Lost,
}

#[derive(Debug)]
enum Pending {
    Frame {
        from: HostId,
        bytes: Vec<u8>,
    },
    /// The client's own address went, and the connection with it.
    Moved,
    Change {
        number: u64,
    },
}

/// All relays.
#[derive(Debug)]
pub struct Relays {
    relays: Vec<Relay>,
    connections: BTreeMap<(HostId, RelayNumber), Connection>,
    queue: Queue<(HostId, RelayNumber, Pending)>,
    random: Random,
}

impl Relays {
    pub(crate) fn new(random: Random) -> Self {
        Self { relays: vec![], connections: BTreeMap::new(), queue: Queue::new(), random }
    }

    /// A relay that is `latency` away from everybody.
    pub fn add(&mut self, latency: Duration) -> RelayNumber {
        self.relays.push(Relay { up: true, latency, loss: 0 });
        (self.relays.len() - 1) as RelayNumber
    }

    /// How many there are.
    pub fn count(&self) -> RelayNumber {
        self.relays.len() as RelayNumber
    }

    /// By what name signals call a relay.
    pub fn name(relay: RelayNumber) -> String {
        format!("relay-{relay}")
    }

    /// Starts or kills a relay.
    pub fn set_up(&mut self, relay: RelayNumber, up: bool) {
        self.relays[usize::from(relay)].up = up;
    }

    /// Whether it runs.
    pub fn is_up(&self, relay: RelayNumber) -> bool {
        self.relays[usize::from(relay)].up
    }

    /// Makes a relay slow or lossy.
    pub fn degrade(&mut self, relay: RelayNumber, latency: Duration, loss: u16) {
        let relay = &mut self.relays[usize::from(relay)];
        (relay.latency, relay.loss) = (latency, loss);
    }

    /// Loses everything between a host and a relay, or lets it through again.
    pub fn cut(&mut self, host: HostId, relay: RelayNumber, cut: bool) {
        self.connections.entry((host, relay)).or_default().cut = cut;
    }

    /// Whether frames pass between a host and a relay, or soon will.
    pub fn works(&self, host: HostId, relay: RelayNumber) -> bool {
        self.connections.get(&(host, relay)).is_some_and(|connection| connection.works)
    }

    /// How long it takes there and back; `None` where a host is not connected.
    pub(crate) fn round_trip(&self, host: HostId, relay: RelayNumber) -> Option<Duration> {
        self.is_connected(host, relay).then(|| self.relays[usize::from(relay)].latency * 2)
    }

    fn is_connected(&self, host: HostId, relay: RelayNumber) -> bool {
        self.connections.get(&(host, relay)).is_some_and(|connection| connection.works && connection.known)
    }

    /// Makes and breaks connections after anything changed. `moved`: the host's addresses are others, which breaks them.
    pub(crate) fn update(&mut self, host: HostId, online: bool, moved: bool, now: Instant) {
        for number in 0..self.count() {
            let relay = &self.relays[usize::from(number)];
            let connection = self.connections.entry((host, number)).or_default();
            let works = relay.up && online && !connection.cut;
            if works == connection.works && !moved {
                continue;
            }
            connection.works = works;
            connection.changes += 1;
            let change = Pending::Change { number: connection.changes };
            let noticed = match () {
                // TCP's and TLS's handshakes and ours; before that, what is left of the pause between attempts.
                () if works => relay.latency * 6 + self.random.up_to(Duration::from_millis(500)),
                () if moved || !online => Duration::ZERO,
                () if relay.up => NOTICED_SILENT,
                () => NOTICED_DEAD,
            };
            if moved && connection.known {
                self.queue.push(now, (host, number, Pending::Moved));
            }
            self.queue.push(now + noticed, (host, number, change));
        }
    }

    /// Takes a frame from a client.
    pub(crate) fn forward(
        &mut self,
        relay: RelayNumber,
        from: HostId,
        to: HostId,
        bytes: Vec<u8>,
        now: Instant,
    ) {
        let Some(Relay { latency, loss, .. }) = self.relays.get(usize::from(relay)) else { return };
        if self.is_connected(from, relay) && !self.random.chance(*loss) {
            let after = *latency * 2 + self.random.up_to(Duration::from_millis(1));
            self.queue.push(now + after, (to, relay, Pending::Frame { from, bytes }));
        }
    }

    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.queue.next_at()
    }

    pub(crate) fn poll(&mut self, now: Instant) -> Option<(HostId, RelayNumber, Event)> {
        while let Some((_, (host, relay, pending))) = self.queue.pop(now) {
            let Some(connection) = self.connections.get_mut(&(host, relay)) else { continue };
            match pending {
                Pending::Frame { from, bytes } if connection.works && connection.known => {
                    return Some((host, relay, Event::Frame { from, bytes }));
                }
                Pending::Moved => {
                    connection.known = false;
                    return Some((host, relay, Event::Lost));
                }
                Pending::Change { number } if number == connection.changes => {
                    let latency = self.relays[usize::from(relay)].latency;
                    if std::mem::replace(&mut connection.known, connection.works) != connection.works {
                        let connected = Event::Connected { round_trip: latency * 2 };
                        return Some((host, relay, if connection.works { connected } else { Event::Lost }));
                    }
                }
                _ => {}
            }
        }
        None
    }
}
