//! Many peers, most of them idle.

use super::*;

const PEERS: usize = 1_000;

fn configs() -> Vec<PeerConfig> {
    let config = |number: usize| {
        let [.., high, low] = (number as u32).to_be_bytes();
        let mut seed = [7; 32];
        seed[8..10].copy_from_slice(&[high, low]);
        PeerConfig {
            public_key: WgPrivateKey::from_random(seed).public(),
            allowed_ips: vec![IpNet::from(IpAddr::from([10, 43, high, low]))],
            endpoints: vec![SocketAddr::from(([198, 51, 100, 1], number as u16 + 1))],
            keepalive: None,
        }
    };
    (0..PEERS).map(config).collect()
}

#[test]
fn idle_peers_have_no_timers_and_little_memory() {
    let mut a = Node::new(1);
    let mut peers = configs();
    a.set_peers(&peers);
    assert!(a.interface.poll_timeout().is_none() && a.sink.sent.is_empty());
    assert!(size_of::<Peer>() <= 768, "{} bytes", size_of::<Peer>());

    // One of them is searched; nobody else's timers are set.
    a.send(&packet(A, [10, 43, 1, 2], b"x"));
    assert_eq!(to_of(&mut a), [258 + 1]);
    let due = a.interface.poll_timeout();
    assert!(due.is_some());
    // The same peers again, in another order, change nothing of that.
    peers.reverse();
    a.set_peers(&peers);
    assert_eq!((a.interface.poll_timeout(), a.interface.peers().count()), (due, PEERS));
    a.pass(Duration::from_millis(50));
    assert_eq!(to_of(&mut a), [258 + 1]);

    // Half go and others come in their place.
    a.set_peers(&peers[..PEERS / 2]);
    assert_eq!(a.interface.peers().count(), PEERS / 2);
    assert!(a.interface.poll_timeout().is_none(), "the one that was searched is among those that went");
    a.set_peers(&peers);
    assert_eq!((a.interface.peers().count(), a.interface.slots.len()), (PEERS, PEERS));
    a.send(&packet(A, [10, 43, 1, 2], b"x"));
    assert_eq!(to_of(&mut a), [258 + 1]);
}

fn to_of(node: &mut Node) -> Vec<u16> {
    node.sink.sent.drain(..).map(|(to, _)| to.port()).collect()
}

#[test]
fn what_waits_for_all_together_is_bounded() {
    let mut a = Node::new(1);
    a.set_peers(&configs());
    let big = vec![0; 1380];
    for number in 0..1000u32 {
        let [.., high, low] = number.to_be_bytes();
        for _ in 0..20 {
            a.send(&packet(A, [10, 43, high, low], &big));
        }
    }
    let most = (8 << 20) / 1400;
    assert_eq!(a.interface.drops().queue, 20_000 - most);
    a.set_peers(&[]);
    assert_eq!(a.interface.drops().queue, 20_000);
}
