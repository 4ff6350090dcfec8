//! The relays of a device, in its thread.

use std::{
    os::fd::BorrowedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use lattice_paths::Paths;
use lattice_wire::{RelayServer, WgPublicKey, reach::MAX_SERVERS};
use lattice_wireguard::RelayNumber;

use super::paths::{PathsConfig, RelayStatus};
use crate::{
    Netns,
    relay::{RelayClient, RelayClientConfig, RelayState},
};

/// Round trips that differ by no more are alike.
const ALIKE: Duration = Duration::from_millis(5);

/// Connections to relays.
#[derive(Default)]
pub(crate) struct Relays {
    all: Vec<Relay>,
    /// Numbers are never given twice, so that a path by a relay that is gone leads nowhere.
    next: RelayNumber,
}

struct Relay {
    server: RelayServer,
    client: RelayClient,
    /// That it is up, and its round trip, as [`Paths`] was told.
    told: Option<Duration>,
}

impl Relays {
    /// Sends by a relay. False when it was dropped there, which the relay's client counts, or there is no such relay.
    pub(crate) fn send(
        &self,
        number: RelayNumber,
        peer: &WgPublicKey,
        len: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> bool {
        let relay = self.all.iter().find(|relay| relay.client.number() == number);
        relay.is_some_and(|relay| relay.client.send(peer, len, write))
    }

    /// What becomes readable when the relay at `index` has something, or is in another state.
    pub(crate) fn bell(&self, index: usize) -> Option<BorrowedFd<'_>> {
        Some(self.all.get(index)?.client.bell())
    }

    /// How many there are, at most [`MAX_SERVERS`].
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// The next datagram of the relay at `index`: by which relay, from whom, and how long.
    pub(crate) fn receive(
        &self,
        index: usize,
        buffer: &mut [u8],
    ) -> Option<(RelayNumber, WgPublicKey, usize)> {
        let client = &self.all.get(index)?.client;
        client.receive(buffer).map(|(peer, len)| (client.number(), peer, len))
    }

    /// Makes `wanted` the relays, the first [`MAX_SERVERS`] of them.
    pub(crate) fn set(
        &mut self,
        wanted: Vec<RelayServer>,
        token: Option<&String>,
        config: &PathsConfig,
        underlay: &Arc<Netns>,
        paths: &mut Paths,
        now: Instant,
    ) {
        let wanted = &wanted[..wanted.len().min(MAX_SERVERS)];
        self.all.retain(|relay| {
            let stays = wanted.contains(&relay.server);
            if !stays {
                paths.remove_relay(relay.client.number(), now);
            }
            stays
        });
        for relay in &self.all {
            if let Some(token) = token {
                relay.client.set_token(token.clone());
            }
        }
        for server in wanted {
            if self.all.iter().any(|relay| relay.server.name == server.name) {
                continue;
            }
            let start = RelayClientConfig {
                server: server.clone(),
                number: self.next,
                key: config.relay_key.clone(),
                token: token.cloned(),
                underlay: underlay.clone(),
            };
            self.next = self.next.wrapping_add(1);
            match RelayClient::start(start, &config.runtime) {
                Ok(client) => self.all.push(Relay { server: server.clone(), client, told: None }),
                Err(error) => tracing::warn!(%error, "a relay is left out"),
            }
        }
    }

    /// Tells `paths` which are up.
    pub(crate) fn tell(&mut self, paths: &mut Paths, now: Instant) {
        for relay in &mut self.all {
            let is = match relay.client.state() {
                RelayState::Up { rtt, .. } => Some(rtt),
                RelayState::Down(_) | RelayState::Connecting => None,
            };
            // Peers are told of a new order, so it must not follow every round trip.
            let alike = |a: Duration, b: Duration| a.abs_diff(b) <= (a / 4).max(ALIKE);
            if is == relay.told || is.zip(relay.told).is_some_and(|(is, told)| alike(is, told)) {
                continue;
            }
            relay.told = is;
            match is {
                Some(rtt) => paths.set_relay(relay.client.number(), &relay.server.name, Some(rtt), now),
                None => paths.remove_relay(relay.client.number(), now),
            }
        }
    }

    pub(crate) fn status(&self) -> Vec<RelayStatus> {
        let status = |relay: &Relay| RelayStatus {
            number: relay.client.number(),
            name: relay.server.name.clone(),
            state: relay.client.state(),
            drops: relay.client.drops(),
        };
        self.all.iter().map(status).collect()
    }
}
