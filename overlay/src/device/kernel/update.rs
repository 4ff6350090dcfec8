//! What to tell the kernel so that a device's peers become those wanted. Pure.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use lattice_wire::WgPublicKey;
use wireguard_control as wg;

use crate::device::PeerConfig;

/// How the kernel is to have a peer that is new to it, and keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manner {
    /// Where to send at first.
    pub(super) home: Option<SocketAddr>,
    /// In seconds; 0 for none.
    pub(super) keepalive: u16,
}

/// What turns `present` into `wanted`. Peers that are as they should be are left out: replacing a peer's allowed IPs by
/// the same ones would lose the packets in between. A peer that is there keeps its endpoint.
pub(super) fn update(
    present: &[wg::PeerInfo],
    wanted: &[PeerConfig],
    manner: impl Fn(&PeerConfig) -> Manner,
) -> wg::DeviceUpdate {
    let keys: HashSet<[u8; 32]> = wanted.iter().map(|peer| peer.public_key.0).collect();
    let known: HashMap<[u8; 32], &wg::PeerInfo> =
        present.iter().map(|peer| (peer.config.public_key.0, peer)).collect();
    let gone = present.iter().map(|peer| &peer.config.public_key).filter(|key| !keys.contains(&key.0));
    let update = gone.fold(wg::DeviceUpdate::new(), wg::DeviceUpdate::remove_peer_by_key);
    let changes = owned(wanted).filter_map(|(peer, owned)| {
        change(known.get(&peer.public_key.0).copied(), peer, &owned, manner(peer))
    });
    changes.fold(update, wg::DeviceUpdate::add_peer)
}

/// What has the kernel send to other addresses, and nothing else.
pub(super) fn endpoints(to: &[(WgPublicKey, SocketAddr)]) -> wg::DeviceUpdate {
    to.iter().fold(wg::DeviceUpdate::new(), |update, (peer, endpoint)| {
        update.add_peer(wg::PeerConfigBuilder::new(&wg::Key(peer.0)).set_endpoint(*endpoint))
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
    manner: Manner,
) -> Option<wg::PeerConfigBuilder> {
    let Manner { home, keepalive } = manner;
    let same = known.is_some_and(|known| {
        let has: HashSet<(IpAddr, u8)> =
            known.config.allowed_ips.iter().map(|ip| (ip.address, ip.cidr)).collect();
        let wants = allowed.iter().map(|net| (net.network(), net.prefix_len())).collect();
        has == wants && known.config.persistent_keepalive_interval.unwrap_or(0) == keepalive
    });
    if same {
        return None;
    }
    let mut builder = wg::PeerConfigBuilder::new(&wg::Key(wanted.public_key.0)).replace_allowed_ips();
    builder = builder.set_persistent_keepalive_interval(keepalive);
    for net in allowed {
        builder = builder.add_allowed_ip(net.network(), net.prefix_len());
    }
    Some(match home.filter(|_| known.is_none()) {
        Some(home) => builder.set_endpoint(home),
        None => builder,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = "127.64.0.1:9";

    fn wanted(key: u8, allowed: &[&str]) -> PeerConfig {
        PeerConfig {
            public_key: WgPublicKey([key; 32]),
            allowed_ips: allowed.iter().map(|net| net.parse().unwrap()).collect(),
            endpoints: vec!["192.0.2.9:1".parse().unwrap()],
            keepalive: Some(25),
        }
    }

    fn present(key: u8, allowed: &[&str]) -> wg::PeerInfo {
        let mut peer = wg::PeerInfo::from_public_key(wg::Key([key; 32]));
        peer.config.allowed_ips = allowed.iter().map(|net| net.parse().unwrap()).collect();
        peer.config.endpoint = "192.0.2.1:1".parse().ok();
        peer.config.persistent_keepalive_interval = Some(25);
        peer
    }

    fn change_to(has: &[wg::PeerInfo], wanted: &[PeerConfig]) -> wg::DeviceUpdate {
        update(has, wanted, |peer| Manner { home: HOME.parse().ok(), keepalive: peer.keepalive.unwrap() })
    }

    #[test]
    fn peers_as_they_should_be_are_not_touched() {
        let has = [present(1, &["10.0.0.1/32"])];
        assert_eq!(change_to(&has, &[wanted(1, &["10.0.0.1/32"])]), wg::DeviceUpdate::new());
    }

    #[test]
    fn gone_peers_are_removed_changed_ones_replaced_and_new_ones_begin_at_home() {
        let has = [present(1, &["10.0.0.1/32"]), present(2, &["10.0.0.2/32"])];
        let update = change_to(&has, &[wanted(2, &["10.0.0.3/32"]), wanted(3, &[])]);
        let expected = wg::DeviceUpdate::new()
            .remove_peer_by_key(&wg::Key([1; 32]))
            .add_peer_with(&wg::Key([2; 32]), |peer| {
                peer.replace_allowed_ips()
                    .set_persistent_keepalive_interval(25)
                    .add_allowed_ip("10.0.0.3".parse().unwrap(), 32)
            })
            .add_peer_with(&wg::Key([3; 32]), |peer| {
                peer.replace_allowed_ips()
                    .set_persistent_keepalive_interval(25)
                    .set_endpoint(HOME.parse().unwrap())
            });
        assert_eq!(update, expected);
    }

    #[test]
    fn the_later_peer_gets_a_network_both_list_and_that_is_stable() {
        let peers = [wanted(1, &["10.0.0.1/32"]), wanted(2, &["10.0.0.1/32"])];
        let has = [present(1, &[]), present(2, &["10.0.0.1/32"])];
        assert_eq!(change_to(&has, &peers), wg::DeviceUpdate::new());
    }
}
