//! What becomes of datagrams.

use std::time::Duration;

use bytes::Bytes;
use lattice_wire::lrp::{self, Frame, Reason};

use super::support::{HANGS, Link, Peer, TestRelay, Told};

async fn both_ways(relay: &TestRelay, mut of_a: Link, mut of_b: Link, a: &Peer, b: &Peer) {
    let handle = of_a.route_to(b).await;
    assert_eq!(of_b.told().await, Told::Route(handle, a.address()));
    let full = vec![0xab; lrp::FULL_SIZE];
    of_a.send(handle, &full).await;
    assert_eq!(of_b.receive().await, (handle, Bytes::from(full.clone())));
    of_b.send(handle, b"back").await;
    assert_eq!(of_a.receive().await, (handle, Bytes::from_static(b"back")));
    assert_eq!(relay.count("lattice_relay_datagrams_total"), 2);
    assert_eq!(relay.count("lattice_relay_bytes_total"), (lrp::FULL_SIZE + 4 + 2 * lrp::HANDLE) as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_size_datagrams_pass_by_every_pair_of_transports() {
    for (a_quic, b_quic) in [(true, true), (true, false), (false, true), (false, false)] {
        let relay = TestRelay::start();
        let (a, b) = (Peer::new(1, 1), Peer::new(1, 2));
        let of_a = if a_quic { relay.quic(&a).await } else { relay.tcp(&a).await };
        let of_b = if b_quic { relay.quic(&b).await } else { relay.tcp(&b).await };
        both_ways(&relay, of_a.unwrap(), of_b.unwrap(), &a, &b).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_is_gone_and_who_comes_back_has_another_handle() {
    let relay = TestRelay::start();
    let (a, b) = (Peer::new(1, 1), Peer::new(1, 2));
    let mut of_a = relay.quic(&a).await.unwrap();
    of_a.send_frame(Frame::Ask(b.address())).await;
    assert_eq!(of_a.told().await, Told::Absent(b.address()));
    let of_b = relay.tcp(&b).await.unwrap();
    let Told::Route(first, _) = of_a.told().await else { panic!() };
    drop(of_b);
    assert_eq!(of_a.told().await, Told::Gone(first));
    let mut of_b = relay.quic(&b).await.unwrap();
    let Told::Route(second, _) = of_a.told().await else { panic!() };
    assert_ne!(first, second);
    assert_eq!(of_b.told().await, Told::Route(second, a.address()));
    of_a.send(first, b"to nobody").await;
    of_a.send(second, b"to b").await;
    assert_eq!(of_b.receive().await, (second, Bytes::from_static(b"to b")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_connection_of_a_peer_wins() {
    let relay = TestRelay::start();
    let peer = Peer::new(1, 1);
    let mut first = relay.quic(&peer).await.unwrap();
    let mut second = relay.tcp(&peer).await.unwrap();
    assert_eq!(first.told().await, Told::Ended(Reason::Replaced.to_string()));
    let mut third = relay.quic(&peer).await.unwrap();
    assert_eq!(second.told().await, Told::Ended(Reason::Replaced.to_string()));
    third.nothing_comes().await;
    relay.until(|relay| relay.count(r#"lattice_relay_clients{transport="tcp"}"#) == 0).await;
    assert_eq!(relay.relay.clients(), 1);
}

/// One who reads nothing costs the others nothing, and the relay no more than its queue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_receiver_stalls_nobody() {
    let relay = TestRelay::with(|config| config.queue = 64 << 10);
    let (a, slow, b) = (Peer::new(1, 1), Peer::new(1, 2), Peer::new(1, 3));
    let mut of_a = relay.quic(&a).await.unwrap();
    let _of_slow = relay.tcp(&slow).await.unwrap();
    let mut of_b = relay.tcp(&b).await.unwrap();
    let (to_slow, to_b) = (of_a.route_to(&slow).await, of_a.route_to(&b).await);
    let full = vec![1; lrp::FULL_SIZE];
    let flood = async {
        // More than the kernel buffers for a TCP connection, and the queue, can hold.
        while relay.count(r#"lattice_relay_dropped_total{why="queue_full"}"#) == 0 {
            for _ in 0..100 {
                of_a.send(to_slow, &full).await;
            }
        }
    };
    tokio::time::timeout(HANGS, flood).await.expect("nothing is ever dropped: the queue has no bound");
    let mut arrived = false;
    // The flood may have filled a's own receive queue at the relay.
    for _ in 0..100 {
        of_a.send(to_b, b"past the slow one").await;
        arrived = tokio::time::timeout(Duration::from_millis(200), of_b.receive()).await.is_ok();
        if arrived {
            break;
        }
    }
    assert!(arrived);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_held_to_its_rate() {
    let relay = TestRelay::with(|config| config.rate = Some(100_000));
    let (a, b) = (Peer::new(1, 1), Peer::new(1, 2));
    let (mut of_a, _of_b) = (relay.tcp(&a).await.unwrap(), relay.tcp(&b).await.unwrap());
    let handle = of_a.route_to(&b).await;
    let begun = std::time::Instant::now();
    for _ in 0..1000 {
        of_a.send(handle, &[1; 1000]).await;
    }
    let dropped = || relay.count(r#"lattice_relay_dropped_total{why="rate"}"#);
    relay.until(|relay| relay.count("lattice_relay_datagrams_total") + dropped() == 1000).await;
    // The burst is 64 KiB.
    let most = 65_536.0 + 100_000.0 * begun.elapsed().as_secs_f64();
    assert!(relay.count("lattice_relay_bytes_total") as f64 <= most);
    assert!(dropped() > 0);
}

/// A datagram that does not fit the receiver's path is counted, and the receiver told to come by TCP.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_for_a_path_is_said_to_its_end() {
    let relay = TestRelay::start();
    let (a, b) = (Peer::new(1, 1), Peer::new(1, 2));
    let (mut of_a, mut of_b) = (relay.tcp(&a).await.unwrap(), relay.quic(&b).await.unwrap());
    let handle = of_a.route_to(&b).await;
    assert_eq!(of_b.told().await, Told::Route(handle, a.address()));
    of_a.send(handle, &[1; lrp::MAX_DATAGRAM]).await;
    assert_eq!(of_b.told().await, Told::TooLarge);
    assert_eq!(relay.count(r#"lattice_relay_dropped_total{why="too_large"}"#), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_ends_says_so_and_waits_for_nobody_long() {
    let relay = TestRelay::start();
    let (mut of_a, mut of_b) =
        (relay.quic(&Peer::new(1, 1)).await.unwrap(), relay.tcp(&Peer::new(1, 2)).await.unwrap());
    let draining = relay.relay.drain(HANGS);
    let told = async {
        assert_eq!(of_a.told().await, Told::Ended(Reason::Draining.to_string()));
        assert_eq!(of_b.told().await, Told::Ended(Reason::Draining.to_string()));
    };
    let (drained, ()) = tokio::join!(tokio::time::timeout(HANGS / 2, draining), told);
    drained.expect("it waits although everybody has gone");
}
