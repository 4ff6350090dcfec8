use std::sync::Arc;

use lattice_overlay::{
    Backend, Netns,
    device::{DeviceError, Drops, PeerStatus},
    link,
};
use lattice_policy::Policy;
use lattice_wire::{MapPeer, PeerId, WgPublicKey};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;
use crate::live::{
    closing,
    tests::{live, map as policy_map},
};

fn map() -> NetMap {
    let peer = |n: u8, allowed: &str, not_after| MapPeer {
        id: PeerId::from_random([n; 10]),
        name: format!("p{n}").parse().unwrap(),
        public_key: WgPublicKey([n; 32]),
        allowed_ips: vec![allowed.parse().unwrap()],
        endpoints: vec!["192.0.2.1:1".parse().unwrap(); 100],
        online: true,
        not_after,
    };
    let peers = vec![
        peer(1, "10.42.0.1/32", None),
        peer(2, "10.42.0.2/32", Some(100)),
        peer(3, "0.0.0.0/0", None),
        peer(4, "10.42.0.9/32", None),
    ];
    NetMap { peers, ..policy_map(None) }
}

/// A device that tells what happens to it.
#[derive(Debug)]
pub(crate) struct Seen(UnboundedSender<String>);

/// What happened, in order.
pub(crate) struct Told(pub(crate) UnboundedReceiver<String>);

impl Device for Seen {
    fn backend(&self) -> Backend {
        Backend::UserSpace
    }
    fn name(&self) -> &str {
        "wg0"
    }
    fn listen_port(&self) -> u16 {
        1
    }
    fn set_peers(&self, peers: &[PeerConfig]) -> Result<(), DeviceError> {
        self.0.send(format!("{} peers", peers.len())).unwrap();
        Ok(())
    }
    fn peers(&self) -> Result<Vec<PeerStatus>, DeviceError> {
        Ok(Vec::new())
    }
    fn drops(&self) -> Result<Drops, DeviceError> {
        Ok(Drops::default())
    }
}

impl Seen {
    pub(crate) fn new() -> (Self, Told) {
        let (sender, receiver) = unbounded_channel();
        (Self(sender), Told(receiver))
    }

    /// A live policy of one layer that allows `egress`, and tells the same listener.
    pub(crate) fn live(&self, egress: &str, takes: impl Fn(&Policy) -> bool + Send + 'static) -> Mutex<Live> {
        let sender = self.0.clone();
        let told = move |policy: &Policy| {
            let took = takes(policy);
            let how = if took { "taken" } else { "not" };
            // Each has one for the same peers' IPv6 addresses beside it.
            let rules = policy.rules().iter().filter(|rule| rule.net.addr().is_ipv4()).count();
            sender.send(format!("{rules} rules, {how}")).unwrap();
            took
        };
        Mutex::new(live(&["10.42.0.0/16"], &policy_map(Some(&[egress])), told).0)
    }
}

impl Told {
    /// Everything since the last call.
    fn taken(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.0.try_recv().ok()).collect()
    }
}

pub(crate) fn with_policy(egress: &[&str]) -> NetMap {
    NetMap { policy: policy_map(Some(egress)).policy, ..map() }
}

#[test]
fn expired_peers_and_foreign_addresses_do_not_reach_the_device() {
    let at = |now| peers(&map(), now);
    assert_eq!(at(99).len(), 4);
    let later = at(100);
    assert_eq!(later.len(), 3, "the second peer's time is over");
    let both = ["10.42.0.1/32", "fd12:3456:789a::a2a:1/128"].map(|net| net.parse().unwrap());
    assert_eq!(later[0].allowed_ips, both);
    assert!(later[1].allowed_ips.is_empty(), "a default route is no peer's address");
    assert!(later[2].allowed_ips.is_empty(), "nobody gets our own address");
    assert!(later.iter().all(|peer| peer.endpoints.len() <= MAX_ENDPOINTS));
}

#[test]
fn the_next_expiry_is_a_peers_or_our_own() {
    let mut map = map();
    assert_eq!(next_expiry(&map, 0), Some(100));
    assert_eq!(next_expiry(&map, 100), None);
    map.not_after = Some(50);
    assert_eq!(next_expiry(&map, 0), Some(50));
}

#[test]
fn what_is_narrower_comes_before_the_peers_and_what_is_wider_after() {
    let (seen, mut told) = Seen::new();
    let live = seen.live("10.42.0.0/24", |_| true);
    settle(&with_policy(&["10.42.0.5"]), 0, Some(&live), &seen).unwrap();
    assert_eq!(told.taken(), ["1 rules, taken", "4 peers"]);
    settle(&with_policy(&["10.42.0.5", "10.42.0.6"]), 0, Some(&live), &seen).unwrap();
    assert_eq!(told.taken(), ["4 peers", "2 rules, taken"]);
    settle(&with_policy(&["10.42.0.5", "10.42.0.6"]), 0, Some(&live), &seen).unwrap();
    assert_eq!(told.taken(), ["4 peers"], "the same policy is not loaded again");
}

#[test]
fn when_nothing_narrower_is_taken_the_peers_go() {
    let (seen, mut told) = Seen::new();
    let live = seen.live("10.42.0.0/24", |_| false);
    assert!(settle(&with_policy(&["10.42.0.5"]), 0, Some(&live), &seen).is_err());
    assert_eq!(told.taken(), ["1 rules, not", "0 rules, not", "0 peers"]);

    let live = seen.live("10.42.0.0/24", |policy| policy.rules().is_empty());
    assert!(settle(&with_policy(&["10.42.0.5"]), 0, Some(&live), &seen).is_err());
    assert_eq!(told.taken(), ["1 rules, not", "0 rules, taken", "4 peers"]);
}

#[test]
fn a_peer_whose_time_is_over_has_neither_rules_nor_peers() {
    let (seen, mut told) = Seen::new();
    let live = seen.live("10.42.0.5", |_| true);
    let over = NetMap { not_after: Some(7), ..with_policy(&["10.42.0.5"]) };
    settle(&over, 7, Some(&live), &seen).unwrap();
    assert_eq!(told.taken(), ["0 rules, taken", "0 peers"]);
    settle(&over, 7, None, &seen).unwrap();
    assert_eq!(told.taken(), ["0 peers"], "a node too");
    settle(&NetMap { not_after: Some(8), ..over }, 7, Some(&live), &seen).unwrap();
    assert_eq!(told.taken(), ["4 peers", "1 rules, taken"]);
}

#[test]
fn when_nothing_narrower_is_taken_the_way_out_of_the_overlay_is_closed() {
    let (inside, outside) = [(); 2].map(|()| Arc::new(Netns::create().unwrap())).into();
    link::add_veth(&inside, "eth0", &outside, "far0").unwrap();
    link::set_up(&inside, "eth0").unwrap();
    let is_up = || link::links(&inside).unwrap().iter().any(|link| link.name == "eth0" && link.up);
    let (seen, mut told) = Seen::new();
    let with_way_out = |takes: fn(&Policy) -> bool| {
        let live = seen.live("10.42.0.0/24", takes);
        live.lock().unwrap().close_by(closing(inside.clone(), vec!["eth0".into()]));
        live
    };
    let live = with_way_out(|policy| policy.rules().is_empty());
    assert!(settle(&with_policy(&["10.42.0.5"]), 0, Some(&live), &seen).is_err());
    assert!(is_up(), "everything is denied: no need");

    let live = with_way_out(|_| false);
    assert!(settle(&with_policy(&["10.42.0.5"]), 0, Some(&live), &seen).is_err());
    assert!(!is_up(), "{:?}", told.taken());
}
