//! What the device's owner wants done.

use std::time::Instant;

use lattice_wire::WgPublicKey;

use super::Engine;
use crate::device::{
    DeviceError, Drops, PeerConfig, PeerStatus,
    commands::Command,
    kernel::update::{self, Manner},
};

impl Engine {
    /// Does what is asked for, and says whether it is time to stop. An answer nobody waits for any more is no error.
    ///
    /// # Errors
    /// When the link is gone. Who waits for an answer then hears that the device has stopped.
    pub(super) fn handle_commands(&mut self, now: Instant) -> Result<bool, DeviceError> {
        // Reading resets the counter; that it is zero already is no error either.
        let _ = self.wake.read();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::SetPeers(peers, reply) => {
                    let done = unless_stopped(self.set_peers(&peers, now))?;
                    let _ = reply.send(done);
                }
                Command::Peers(reply) => {
                    let peers = unless_stopped(self.statuses(now))?;
                    let _ = reply.send(peers);
                }
                Command::Drops(reply) => {
                    let drops = unless_stopped(self.drops())?;
                    let _ = reply.send(drops);
                }
                Command::Relays(reply) => drop(reply.send(self.relays.status())),
                // Without path finding nobody has a handle to ask with.
                Command::SetLocal(addresses) => {
                    self.ways.iter_mut().for_each(|ways| ways.set_local(&addresses, now));
                }
                Command::SetServers(servers) => {
                    if let Some(ways) = &mut self.ways {
                        ways.set_servers(*servers, &mut self.relays, now);
                    }
                }
                Command::Signal(from, signal) => {
                    if let Some(ways) = &mut self.ways {
                        ways.handle_signal(&from, *signal, now);
                    }
                }
                // It has no filter; the sender that is dropped says so.
                Command::Apply(..) | Command::Pin(..) | Command::Deny(..) | Command::Counters(_) => {}
                Command::Stop => return Ok(true),
            }
        }
        Ok(false)
    }

    /// When the kernel refuses, what comes home is none the less for those that are wanted only.
    fn set_peers(&mut self, wanted: &[PeerConfig], now: Instant) -> Result<(), DeviceError> {
        let Self { link, narrow, peers, ways, .. } = self;
        peers.follow(wanted);
        narrow.set_peers(wanted, now);
        // Where paths are found, checks keep what is in use alive, and what is not costs nothing: whatever comes home is a wish.
        let finds_paths = ways.is_some();
        let manner = |peer: &PeerConfig| Manner {
            home: peers.home(&peer.public_key),
            keepalive: peer.keepalive.filter(|_| !finds_paths).unwrap_or(0),
        };
        link.update(|present| update::update(present, wanted, manner))?;
        if let Some(ways) = ways {
            ways.set_peers(wanted, now);
        }
        Ok(())
    }

    fn statuses(&mut self, now: Instant) -> Result<Vec<PeerStatus>, DeviceError> {
        let present = self.link.peers()?;
        self.read(&present, now);
        let status = |peer: &wireguard_control::PeerInfo| {
            let public_key = WgPublicKey(peer.config.public_key.0);
            PeerStatus {
                public_key,
                endpoint: peer.config.endpoint.filter(|at| !self.peers.is_home(*at)),
                path: self.ways.as_ref().and_then(|ways| ways.status(&public_key)),
                last_handshake: peer.stats.last_handshake_time,
                rx_bytes: peer.stats.rx_bytes,
                tx_bytes: peer.stats.tx_bytes,
            }
        };
        Ok(present.iter().map(status).collect())
    }

    /// What was dropped by the kernel and, after it, here.
    fn drops(&self) -> Result<Drops, DeviceError> {
        let drops = self.link.drops()?;
        let underlay = self.raw.failed() + self.loopback.failed() + self.lost;
        Ok(Drops { malformed: self.malformed, underlay, ..drops })
    }
}

fn unless_stopped<T>(result: Result<T, DeviceError>) -> Result<Result<T, DeviceError>, DeviceError> {
    match result {
        Err(error @ DeviceError::Stopped(_)) => Err(error),
        result => Ok(result),
    }
}
