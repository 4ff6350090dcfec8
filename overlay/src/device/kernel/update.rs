//! What to tell the kernel so that a device's peers become those wanted. Pure.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use ipnet::IpNet;
use lattice_wire::{WgPublicKey, netmap::MAX_ENDPOINTS};
use wireguard_control as wg;

use crate::device::PeerConfig;

/// A session older than this is dead (`REJECT_AFTER_TIME`, WireGuard white paper section 6.1).
const SESSION_LIFE: Duration = Duration::from_secs(180);

/// What turns `present` into `wanted`. Peers that are as they should be are left out: replacing a peer's allowed IPs by
/// the same ones would lose the packets in between.
pub(super) fn update(present: &[wg::PeerInfo], wanted: &[PeerConfig]) -> wg::DeviceUpdate {
    let keys: HashSet<[u8; 32]> = wanted.iter().map(|peer| peer.public_key.0).collect();
    let known: HashMap<[u8; 32], &wg::PeerInfo> =
        present.iter().map(|peer| (peer.config.public_key.0, peer)).collect();
    let gone = present.iter().map(|peer| &peer.config.public_key).filter(|key| !keys.contains(&key.0));
    let update = gone.fold(wg::DeviceUpdate::new(), wg::DeviceUpdate::remove_peer_by_key);
    let changes = owned(wanted)
        .filter_map(|(peer, owned)| change(known.get(&peer.public_key.0).copied(), peer, &owned));
    changes.fold(update, wg::DeviceUpdate::add_peer)
}

/// What makes peers begin anew at other endpoints. Anew, because the kernel sends no second initiation within five
/// seconds of the last one, wherever that went.
pub(super) fn restart(wanted: &[PeerConfig], at: &HashMap<WgPublicKey, SocketAddr>) -> wg::DeviceUpdate {
    owned(wanted).fold(wg::DeviceUpdate::new(), |update, (peer, owned)| match at.get(&peer.public_key) {
        Some(endpoint) => {
            let moved = PeerConfig { endpoints: vec![*endpoint], ..peer.clone() };
            let update = update.remove_peer_by_key(&wg::Key(peer.public_key.0));
            change(None, &moved, &owned).into_iter().fold(update, wg::DeviceUpdate::add_peer)
        }
        None => update,
    })
}

/// The peers, each with the networks that are its own: the later of two peers has what both list.
fn owned(wanted: &[PeerConfig]) -> impl Iterator<Item = (&PeerConfig, HashSet<IpNet>)> {
    let owners: HashMap<IpNet, usize> = wanted
        .iter()
        .enumerate()
        .flat_map(|(index, peer)| peer.allowed_ips.iter().map(move |net| (net.trunc(), index)))
        .collect();
    wanted.iter().enumerate().map(move |(index, peer)| {
        let nets = peer.allowed_ips.iter().map(IpNet::trunc);
        (peer, nets.filter(|net| owners.get(net) == Some(&index)).collect())
    })
}

fn change(
    known: Option<&wg::PeerInfo>,
    wanted: &PeerConfig,
    allowed: &HashSet<IpNet>,
) -> Option<wg::PeerConfigBuilder> {
    let endpoint = endpoint(known, &wanted.endpoints);
    let keepalive = wanted.keepalive.unwrap_or(0);
    let same = known.is_some_and(|known| {
        let has: HashSet<(IpAddr, u8)> =
            known.config.allowed_ips.iter().map(|ip| (ip.address, ip.cidr)).collect();
        let wants = allowed.iter().map(|net| (net.network(), net.prefix_len())).collect();
        has == wants && known.config.persistent_keepalive_interval.unwrap_or(0) == keepalive
    });
    if same && endpoint.is_none() {
        return None;
    }
    let mut builder = wg::PeerConfigBuilder::new(&wg::Key(wanted.public_key.0));
    if !same {
        builder = builder.replace_allowed_ips().set_persistent_keepalive_interval(keepalive);
        for net in allowed {
            builder = builder.add_allowed_ip(net.network(), net.prefix_len());
        }
    }
    Some(match endpoint {
        Some(endpoint) => builder.set_endpoint(endpoint),
        None => builder,
    })
}

/// The endpoint to set, if any: the first candidate, unless the kernel has learned one or tries one of them; see
/// [`super::turns`].
fn endpoint(known: Option<&wg::PeerInfo>, candidates: &[SocketAddr]) -> Option<SocketAddr> {
    let candidates = &candidates[..candidates.len().min(MAX_ENDPOINTS)];
    if known.is_some_and(in_session) {
        return None;
    }
    let current = known.and_then(|peer| peer.config.endpoint);
    let tried = current.is_some_and(|current| candidates.contains(&current));
    candidates.first().filter(|_| !tried).copied()
}

/// Whether a peer can be sent to. One without keepalives may just have nothing to say.
pub(super) fn in_session(peer: &wg::PeerInfo) -> bool {
    let young = |at: SystemTime| at.elapsed().is_ok_and(|age| age < SESSION_LIFE);
    let quiet = peer.config.persistent_keepalive_interval.unwrap_or(0) == 0;
    peer.stats.last_handshake_time.is_some_and(|at| quiet || young(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(key: u8, allowed: &[&str], endpoints: &[&str]) -> PeerConfig {
        PeerConfig {
            public_key: WgPublicKey([key; 32]),
            allowed_ips: allowed.iter().map(|net| net.parse().unwrap()).collect(),
            endpoints: endpoints.iter().map(|endpoint| endpoint.parse().unwrap()).collect(),
            keepalive: Some(25),
        }
    }

    fn present(key: u8, allowed: &[&str], endpoint: &str, handshake: bool) -> wg::PeerInfo {
        let mut peer = wg::PeerInfo::from_public_key(wg::Key([key; 32]));
        peer.config.allowed_ips = allowed.iter().map(|net| net.parse().unwrap()).collect();
        peer.config.endpoint = endpoint.parse().ok();
        peer.config.persistent_keepalive_interval = Some(25);
        peer.stats.last_handshake_time = handshake.then(SystemTime::now);
        peer
    }

    #[test]
    fn peers_as_they_should_be_are_not_touched() {
        let has = [present(1, &["10.0.0.1/32"], "192.0.2.1:1", true)];
        let update = update(&has, &[wanted(1, &["10.0.0.1/32"], &["192.0.2.9:1"])]);
        assert_eq!(update, wg::DeviceUpdate::new());
    }

    #[test]
    fn gone_peers_are_removed_and_changed_ones_replaced() {
        let has = [present(1, &["10.0.0.1/32"], "", true), present(2, &["10.0.0.2/32"], "", true)];
        let update = update(&has, &[wanted(2, &["10.0.0.3/32"], &[])]);
        let expected = wg::DeviceUpdate::new().remove_peer_by_key(&wg::Key([1; 32])).add_peer_with(
            &wg::Key([2; 32]),
            |peer| {
                peer.replace_allowed_ips()
                    .set_persistent_keepalive_interval(25)
                    .add_allowed_ip("10.0.0.3".parse().unwrap(), 32)
            },
        );
        assert_eq!(update, expected);
    }

    #[test]
    fn the_later_peer_gets_a_network_both_list_and_that_is_stable() {
        let peers = [wanted(1, &["10.0.0.1/32"], &[]), wanted(2, &["10.0.0.1/32"], &[])];
        let has = [present(1, &[], "", true), present(2, &["10.0.0.1/32"], "", true)];
        assert_eq!(update(&has, &peers), wg::DeviceUpdate::new());
    }

    #[test]
    fn what_the_kernel_tries_or_has_learned_is_kept() {
        let candidates: Vec<SocketAddr> =
            ["192.0.2.1:1", "192.0.2.2:1"].iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(endpoint(None, &candidates), Some(candidates[0]));
        assert_eq!(endpoint(Some(&present(1, &[], "192.0.2.2:1", false)), &candidates), None);
        assert_eq!(endpoint(Some(&present(1, &[], "192.0.2.7:1", false)), &candidates), Some(candidates[0]));
        assert_eq!(endpoint(Some(&present(1, &[], "192.0.2.7:1", true)), &candidates), None);
        assert_eq!(endpoint(None, &[]), None);
    }

    #[test]
    fn only_peers_whose_turn_it_is_begin_anew_and_keep_what_is_theirs() {
        let peers = [wanted(1, &["10.0.0.1/32"], &["192.0.2.1:1"]), wanted(2, &["10.0.0.1/32"], &[])];
        let at: SocketAddr = "192.0.2.7:1".parse().unwrap();
        let update = restart(&peers, &HashMap::from([(WgPublicKey([2; 32]), at)]));
        let key = wg::Key([2; 32]);
        let expected = wg::DeviceUpdate::new().remove_peer_by_key(&key).add_peer_with(&key, |peer| {
            peer.replace_allowed_ips()
                .set_persistent_keepalive_interval(25)
                .add_allowed_ip("10.0.0.1".parse().unwrap(), 32)
                .set_endpoint(at)
        });
        assert_eq!(update, expected);
    }
}
