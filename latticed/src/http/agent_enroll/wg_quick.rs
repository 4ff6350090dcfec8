//! A network map as wg-quick reads it (wg-quick(8)).

use std::fmt::Write as _;

use lattice_wire::NetMap;

/// Of an agent behind a NAT, nobody else could begin.
const KEEPALIVE_SECS: u32 = 25;

/// Everything but the private key, which never leaves its host.
pub(super) fn text(map: &NetMap) -> String {
    let mut text = format!(
        "[Interface]\n# PrivateKey = the private half of the publicKey that was enrolled: put it here, on the agent's host\nAddress = {}\n",
        map.address
    );
    for peer in &map.peers {
        let allowed: Vec<String> = peer.allowed_ips.iter().map(ToString::to_string).collect();
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
            peer: PeerId::from_random([1; 10]),
            address: "10.42.0.5/32".parse().unwrap(),
            pool: "10.42.0.0/16".parse().unwrap(),
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
            "Address = 10.42.0.5/32",
            "# tool",
            "PublicKey = BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=",
            "AllowedIPs = 10.42.0.2/32",
            "Endpoint = 192.0.2.1:51820",
            "PersistentKeepalive = 25",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
        }
        assert!(!text.lines().any(|line| line.starts_with("PrivateKey")));
    }
}
