//! What a running sandbox or node says of its peers, and of the paths to them.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use ipnet::IpNet;
use lattice_overlay::{Device, Drops, Path, PeerStatus, RelayState, RelayStatus};
use lattice_wire::{MapPeer, NetMap, WgPublicKey};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{Failure, Kind, failure::chain, heard::Heard};

/// The overlay as one peer sees it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OverlayReport {
    /// The other peers, by name.
    pub peers: Vec<PeerReport>,
    /// The relays, by name.
    pub relays: Vec<RelayReport>,
    /// Packets dropped, by reason; reasons that never came up are left out.
    pub drops: BTreeMap<String, u64>,
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerReport {
    /// Its name.
    pub name: String,
    /// Its overlay address.
    pub address: Option<IpAddr>,
    /// Its IPv6 address in it.
    #[serde(default)]
    pub address6: Option<IpAddr>,
    /// `direct`, `relay`, or `none` when there is none yet.
    pub path: String,
    /// The relay that the path leads by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// Where its encrypted packets go, if the path is direct.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// Round trip in milliseconds: to the peer, or to the relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// Seconds since the last handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_age: Option<u64>,
    /// Bytes received from it, encrypted.
    pub rx_bytes: u64,
    /// Bytes sent to it, encrypted.
    pub tx_bytes: u64,
    /// Why the path is not direct.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not_direct: Option<String>,
}

/// One relay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RelayReport {
    /// Its name.
    pub name: String,
    /// `quic`, `tcp`, `connecting`, or why it is down.
    pub state: String,
    /// Round trip in milliseconds, while it is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// Datagrams to and from it that were dropped at this end.
    pub dropped: u64,
}

/// What a report is made of.
pub(crate) struct OverlaySources {
    pub(crate) device: Arc<dyn Device>,
    pub(crate) map: watch::Receiver<Arc<NetMap>>,
    pub(crate) heard: Heard,
}

impl OverlaySources {
    /// How things are now.
    pub(crate) fn report(&self) -> Result<OverlayReport, Failure> {
        let gone = |error| Failure::new(Kind::Kernel, chain(&error));
        let map = self.map.borrow().clone();
        let overlay = crate::overlay::of(&map).ok();
        let known: HashMap<WgPublicKey, &MapPeer> =
            map.peers.iter().map(|peer| (peer.public_key, peer)).collect();
        let relays = self.device.paths().map(|paths| paths.relays()).transpose().map_err(gone)?;
        let relays = relays.unwrap_or_default();
        let now = SystemTime::now();
        let peers = self.device.peers().map_err(gone)?;
        let mut peers: Vec<_> = peers
            .iter()
            .filter_map(|peer| {
                let known = known.get(&peer.public_key)?;
                let addresses = overlay.map_or_else(Vec::new, |at| crate::overlay::of_peer(&at, &map, known));
                Some(of(peer, known, &addresses, &relays, now))
            })
            .collect();
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        let drops = self.device.drops().map_err(gone)?;
        let mut relays: Vec<_> = relays.iter().map(relay).collect();
        relays.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(OverlayReport { peers, relays, drops: named(drops) })
    }
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn of(
    peer: &PeerStatus,
    known: &MapPeer,
    addresses: &[IpNet],
    relays: &[RelayStatus],
    now: SystemTime,
) -> PeerReport {
    let address = |v4: bool| addresses.iter().map(IpNet::addr).find(|address| address.is_ipv4() == v4);
    let found = peer.path.as_ref();
    let path = found.and_then(|found| found.path);
    let (kind, relay) = match path {
        Some(Path::Relay { relay, .. }) => {
            let relay = relays.iter().find(|one| one.number == relay);
            ("relay", relay.map(|relay| relay.name.clone()))
        }
        Some(Path::Direct { .. }) => ("direct", None),
        // A search of the endpoints that were given.
        None if peer.last_handshake.is_some() => ("direct", None),
        None => ("none", None),
    };
    let is_direct = kind == "direct";
    PeerReport {
        name: known.name.to_string(),
        address: address(true),
        address6: address(false),
        path: kind.into(),
        relay,
        endpoint: path.and_then(|path| path.remote()).or(peer.endpoint).filter(|_| is_direct),
        rtt_ms: found.and_then(|found| found.rtt).map(milliseconds),
        handshake_age: peer.last_handshake.map(|at| now.duration_since(at).unwrap_or_default().as_secs()),
        rx_bytes: peer.rx_bytes,
        tx_bytes: peer.tx_bytes,
        why_not_direct: found.and_then(|found| found.why_not_direct.clone()).filter(|_| !is_direct),
    }
}

fn relay(status: &RelayStatus) -> RelayReport {
    let (state, rtt) = match &status.state {
        RelayState::Up { transport, rtt } => (transport.to_string(), Some(*rtt)),
        RelayState::Connecting => ("connecting".into(), None),
        RelayState::Down(why) => (format!("down: {why}"), None),
    };
    let drops = status.drops;
    RelayReport {
        name: status.name.clone(),
        state,
        rtt_ms: rtt.map(milliseconds),
        dropped: drops.sent + drops.received + drops.unknown,
    }
}

fn named(drops: Drops) -> BTreeMap<String, u64> {
    let all = [
        ("malformed", drops.malformed),
        ("unknown peer", drops.unknown_peer),
        ("handshake refused", drops.handshake_refused),
        ("unauthenticated", drops.unauthenticated),
        ("wrong source", drops.wrong_source),
        ("routing loop", drops.routing_loop),
        ("no route", drops.no_route),
        ("no endpoint", drops.no_endpoint),
        ("queue", drops.queue),
        ("link", drops.link),
        ("underlay", drops.underlay),
        ("way outside", drops.beyond),
    ];
    all.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), count)).collect()
}
