//! A network map as wg-quick reads it (wg-quick(8)).

use std::fmt::Write as _;

use ipnet::IpNet;
use lattice_policy::Overlay;
use lattice_wire::NetMap;

/// Of an agent behind a NAT, nobody else could begin.
const KEEPALIVE_SECS: u32 = 25;

/// Everything but the private key, which never leaves its host.
pub(super) fn text(map: &NetMap) -> String {
    // The store holds no prefix that is none.
    let overlay = Overlay::new(map.pool, map.prefix).ok();
    let v6 = overlay.map_or_else(String::new, |overlay| format!(", {}/128", overlay.v6(map.address.addr())));
    let mut text = format!(
        "[Interface]\n# PrivateKey = the private half of the publicKey that was enrolled: put it here, on the agent's host\nAddress = {}{v6}\n",
        map.address
    );
    for peer in &map.peers {
        let twin = |net: &IpNet| match net {
            IpNet::V4(net) => overlay.and_then(|overlay| overlay.twin(net)).map(IpNet::V6),
            IpNet::V6(_) => None,
        };
        let both = peer.allowed_ips.iter().flat_map(|net| [Some(*net), twin(net)]).flatten();
        let allowed: Vec<String> = both.map(|net| net.to_string()).collect();
        let _ = write!(
            text,
            "\n# {}\n[Peer]\nPublicKey = {}\nAllowedIPs = {}\n",
            peer.name,
            peer.public_key,
            allowed.join(", ")
        );
        if let Some(endpoint) = peer.endpoints.first() {
            let _ = writeln!(text, "Endpoint = {endpoint}\nPersistentKeepalive = {KEEPALIVE_SECS}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use lattice_wire::{MapPeer, PeerId, WgPublicKey, WorkspaceId};

    use super::*;

    #[test]
    fn names_each_peer_of_the_map_and_no_private_key() {
        let map = NetMap {
            epoch: 1,
            generation: 1,
            workspace: WorkspaceId::from_random([1; 10]),
            workspace_name: None,
            peer: PeerId::from_random([1; 10]),
            address: "10.42.0.5/32".parse().unwrap(),
            pool: "10.42.0.0/16".parse().unwrap(),
            prefix: "fd12:3456:789a::/48".parse().unwrap(),
            peers: vec![MapPeer {
                id: PeerId::from_random([2; 10]),
                name: "tool".parse().unwrap(),
                public_key: WgPublicKey([7; 32]),
                allowed_ips: vec!["10.42.0.2/32".parse().unwrap()],
                endpoints: vec!["192.0.2.1:51820".parse().unwrap()],
                online: true,
                not_after: None,
            }],
            not_after: None,
            policy: None,
        };
        let text = text(&map);
        for line in [
            "Address = 10.42.0.5/32, fd12:3456:789a::a2a:5/128",
            "# tool",
            "PublicKey = BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=",
            "AllowedIPs = 10.42.0.2/32, fd12:3456:789a::a2a:2/128",
            "Endpoint = 192.0.2.1:51820",
            "PersistentKeepalive = 25",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
        }
        assert!(!text.lines().any(|line| line.starts_with("PrivateKey")));
    }
}
