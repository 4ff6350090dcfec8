//! Brings policy and device in step with a network map. What is narrower comes first, then the peers, then what is
//! wider: at no moment is a peer reachable that the new map does not allow.

use std::sync::{Mutex, PoisonError};

use lattice_overlay::{Device, PeerConfig, canonical, may_be_probed};
use lattice_wire::{
    NetMap,
    netmap::{MAX_ENDPOINTS, MAX_PEERS},
};

use crate::{Failure, Kind, failure::chain, live::Live, overlay};

/// Keeps NAT and firewall state of the underlay alive, in seconds (the value that `wg` documents).
const KEEPALIVE_SECS: u16 = 25;

/// Applies `map` as it is at the time `now`. Nodes have no policy.
///
/// # Errors
/// When policy or device do not take it. What is then allowed is never more than before; try again.
pub(crate) fn settle(
    map: &NetMap,
    now: i64,
    live: Option<&Mutex<Live>>,
    device: &dyn Device,
) -> Result<(), Failure> {
    let mut live = live.map(|live| live.lock().unwrap_or_else(PoisonError::into_inner));
    let mut change = live.as_ref().and_then(|live| live.change(map, now));
    let mut peers = peers(map, now);
    let mut result = Ok(());
    if let (Some(live), Some(narrower)) = (&mut live, change.take_if(|change| change.narrows))
        && let Err(stuck) = live.put(narrower)
    {
        // Without peers and a way out of the overlay nothing is reached, whatever the policy says.
        if stuck.too_wide {
            live.close();
            peers.clear();
        }
        result = Err(stuck.failure);
    }
    device.set_peers(&peers).map_err(|error| Failure::new(Kind::Kernel, chain(&error)))?;
    if let (Some(live), Some(wider)) = (&mut live, change) {
        live.put(wider).map_err(|stuck| stuck.failure)?;
    }
    if let (Some(live), Ok(())) = (&mut live, &result) {
        live.settled(map, now);
    }
    result
}

/// The next moment after `now` at which the map must be applied again: somebody's time is over.
pub(crate) fn next_expiry(map: &NetMap, now: i64) -> Option<i64> {
    let all = map.peers.iter().filter_map(|peer| peer.not_after).chain(map.not_after);
    all.filter(|at| *at > now).min()
}

/// The device's peers: those whose time is not over, with the addresses of the overlay only; none when our own is over.
fn peers(map: &NetMap, now: i64) -> Vec<PeerConfig> {
    if map.is_over(now) {
        return Vec::new();
    }
    let Ok(overlay) = overlay::of(map) else { return Vec::new() };
    let alive = map.peers.iter().take(MAX_PEERS).filter(|peer| peer.not_after.is_none_or(|at| at > now));
    alive
        .map(|peer| PeerConfig {
            public_key: peer.public_key,
            allowed_ips: overlay::of_peer(&overlay, map, peer),
            // The peer itself says where it is.
            endpoints: peer
                .endpoints
                .iter()
                .map(|endpoint| canonical(*endpoint))
                .filter(|endpoint| may_be_probed(*endpoint, &overlay.nets()))
                .take(MAX_ENDPOINTS)
                .collect(),
            keepalive: Some(KEEPALIVE_SECS),
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests;
