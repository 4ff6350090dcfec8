//! The policy, from the first packet to the last.

use std::{future::poll_fn, io::ErrorKind, net::SocketAddr, time::Duration};

use lattice_overlay::stack::{ConnectError, Denied, Transport};
use lattice_policy::{Action, Direction, Reason, RuleId};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::pair::{Node, pair, v4, v6};

const OPEN: u16 = 7000;
const CLOSED: u16 = 7001;

/// What `node` is told when it connects.
fn connect_error(node: &Node, to: SocketAddr) -> ConnectError {
    node.run(move |network| async move { network.connect(to).await.unwrap_err() })
}

fn reason(error: &ConnectError) -> (Reason, u32) {
    match error {
        ConnectError::Denied(Denied { decision, generation }) => (decision.reason, *generation),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_denial_is_told_counted_and_on_record_and_comes_before_that_nobody_is_there() {
    let (mut a, b) = pair();
    for (nobody, number) in [(v4(99), 5), (v6(99), 6)] {
        a.apply(&["tcp:10.42.0.0/16:7000", "tcp:[fd42::/64]:7000"], &[], number);
        let closed = SocketAddr::new(nobody, CLOSED);
        assert_eq!(reason(&connect_error(&a, closed)), (Reason::DefaultDeny, number));
        let told = a.told(|flow| flow.dst == closed);
        assert_eq!((told.action, told.reason, told.generation), (Action::Deny, Reason::DefaultDeny, number));
        assert_eq!((told.direction, told.proto), (Direction::Egress, 6));
        assert!(told.src.port() >= 0x8000, "a port of its own: {}", told.src);
        let counters = a.filter().counters().unwrap();
        assert!(
            counters.iter().any(|(rule, counter)| *rule == RuleId::NONE && counter.packets == 1),
            "{counters:?}"
        );
        assert_eq!(connect_error(&a, SocketAddr::new(nobody, OPEN)), ConnectError::NoPeer);
    }
    let (here, there) =
        a.run(|network| async move { (network.leads_to_peer(v4(2)), network.leads_to_peer(v4(99))) });
    assert!(here && !there);
    drop(b);
}

#[test]
fn nothing_leaves_and_nothing_comes_in_before_a_policy() {
    let a = Node::new(1);
    let (mut b, to) = (Node::new(2), SocketAddr::new(v4(2), OPEN));
    a.device.set_peers(&[b.config([127, 0, 0, 1].into())]).unwrap();
    b.device.set_peers(&[a.config([127, 0, 0, 1].into())]).unwrap();
    assert_eq!(reason(&connect_error(&a, to)), (Reason::NoPolicy, 0));
    a.apply(&["10.42.0.0/16"], &[], 1);
    let given_up = a.run(move |network| async move {
        timeout(Duration::from_millis(500), network.connect(to)).await.is_err()
    });
    assert!(given_up);
    let told = b.told(|flow| flow.dst == to);
    assert_eq!((told.direction, told.reason), (Direction::Ingress, Reason::NoPolicy));
}

#[test]
fn a_datagram_that_is_denied_is_told_and_on_record() {
    let (mut a, b) = pair();
    a.apply(&["udp:10.42.0.0/16:7000"], &[], 2);
    let [open, closed] = [OPEN, CLOSED].map(|port| SocketAddr::new(v4(2), port));
    let nobody = SocketAddr::new(v4(99), OPEN);
    let (sent, denied, lost, port) = a.run(move |network| async move {
        let socket = network.bind_udp(0).unwrap();
        (
            socket.send_to(b"a", open),
            socket.send_to(b"b", closed),
            socket.send_to(b"c", nobody),
            socket.port(),
        )
    });
    assert_eq!((sent, lost), (Ok(()), Err(ConnectError::NoPeer)));
    assert_eq!(reason(&denied.unwrap_err()), (Reason::DefaultDeny, 2));
    let told = a.told(|flow| flow.dst == closed);
    assert_eq!((told.src.port(), told.proto, told.action), (port, 17, Action::Deny));
    drop(b);
}

/// One that writes, one that only reads, and one that a peer began: none says a word in time, but for the first.
#[test]
fn a_narrowed_policy_ends_live_connections_at_once() {
    let (mut a, b) = pair();
    let peer = b.spawn(|network| async move {
        let mut listener = network.listen(OPEN);
        let mut streams = Vec::new();
        for _ in 0..2 {
            streams.push(listener.request().await.accept().await.unwrap());
        }
        streams.push(network.connect(SocketAddr::new(v4(1), OPEN)).await.unwrap());
        std::future::pending::<()>().await;
    });
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let ended = a.spawn(move |network| async move {
        let mut listener = network.listen(OPEN);
        let to = SocketAddr::new(v4(2), OPEN);
        let mut writing = network.connect(to).await.unwrap();
        let mut reading = network.connect(to).await.unwrap();
        let mut accepted = listener.request().await.accept().await.unwrap();
        ready.send(()).unwrap();
        let write = async {
            loop {
                if let Err(error) = writing.write_all(&[1; 1 << 14]).await {
                    return error.kind();
                }
            }
        };
        let (mut one, mut other) = ([0; 8], [0; 8]);
        let (write, read, served) = tokio::join!(write, reading.read(&mut one), accepted.read(&mut other));
        (write, read.unwrap_err().kind(), served.unwrap_err().kind())
    });
    is_ready.blocking_recv().unwrap();
    a.apply(&["tcp:10.42.0.2:7002"], &[], 3);
    let denied = ErrorKind::PermissionDenied;
    assert_eq!(ended.wait(), (denied, denied, denied));
    let told = a.told(|flow| flow.generation == 3 && flow.dst.port() == OPEN);
    assert_eq!(
        (told.direction, told.action, told.reason),
        (Direction::Egress, Action::Deny, Reason::DefaultDeny)
    );
    drop(peer);
}

/// As a proxy whose client has stopped reading does: it takes nothing from the connection, which is full.
#[test]
fn who_does_not_read_is_told_that_the_connection_is_cut() {
    let (a, b) = pair();
    drop(b.spawn(|network| async move {
        let mut stream = network.listen(OPEN).request().await.accept().await.unwrap();
        while stream.write_all(&[1; 1 << 16]).await.is_ok() {}
    }));
    b.run(|_| async {});
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let cut = a.spawn(move |network| async move {
        let mut stream = network.connect(SocketAddr::new(v4(2), OPEN)).await.unwrap();
        stream.read_exact(&mut [0]).await.unwrap();
        let early = timeout(Duration::from_millis(100), poll_fn(|context| stream.poll_cut(context))).await;
        ready.send(()).unwrap();
        (early.is_err(), poll_fn(|context| stream.poll_cut(context)).await.kind())
    });
    is_ready.blocking_recv().unwrap();
    a.apply(&["tcp:10.42.0.2:7002"], &[], 2);
    assert_eq!(cut.wait(), (true, ErrorKind::PermissionDenied));
}

#[test]
fn what_led_to_a_peer_that_is_no_more_ends_at_once() {
    let (a, b) = pair();
    let (go_on, mut goes_on) = tokio::sync::mpsc::unbounded_channel::<()>();
    drop(b.spawn(|network| async move {
        let mut listener = network.listen(OPEN);
        let mut streams = Vec::new();
        loop {
            streams.push(listener.request().await.accept().await.unwrap());
        }
    }));
    b.run(|_| async {});
    let ended = a.spawn(move |network| async move {
        let to = SocketAddr::new(v4(2), OPEN);
        let mut reading = network.connect(to).await.unwrap();
        let cut = network.connect(to).await.unwrap();
        go_on.send(()).unwrap();
        let (mut byte, waits) = ([0], poll_fn(|context| cut.poll_cut(context)));
        let (read, cut) = tokio::join!(reading.read(&mut byte), waits);
        (read.unwrap_err().kind(), cut.kind(), network.connect(to).await.unwrap_err())
    });
    goes_on.blocking_recv().unwrap();
    // The same peer once more cuts nothing.
    a.device.set_peers(&[b.config([127, 0, 0, 1].into())]).unwrap();
    a.device.set_peers(&[]).unwrap();
    let gone = ErrorKind::HostUnreachable;
    assert_eq!(ended.wait(), (gone, gone, ConnectError::NoPeer));
}

#[test]
fn a_policy_that_stays_wide_enough_cuts_nothing() {
    let (a, b) = pair();
    drop(b.spawn(|network| async move {
        let mut stream = network.listen(OPEN).request().await.accept().await.unwrap();
        let mut byte = [0];
        while stream.read_exact(&mut byte).await.is_ok() {
            stream.write_all(&byte).await.unwrap();
        }
    }));
    b.run(|_| async {});
    let (go, mut wait) = tokio::sync::mpsc::unbounded_channel::<()>();
    let talking = a.spawn(move |network| async move {
        let admitted = network.admit(Transport::Tcp, SocketAddr::from(([192, 0, 2, 7], 443))).is_err();
        let mut stream = network.connect(SocketAddr::new(v4(2), OPEN)).await.unwrap();
        wait.recv().await.unwrap();
        stream.write_all(b"x").await.unwrap();
        stream.read_exact(&mut [0]).await.unwrap();
        admitted
    });
    a.run(|_| async {});
    a.apply(&["tcp:10.42.0.2:7000-7001"], &[], 2);
    b.apply(&[], &["tcp:10.42.0.1:7000"], 2);
    go.send(()).unwrap();
    assert!(talking.wait(), "an address that no rule names");
}

#[test]
fn an_admission_lasts_as_long_as_the_policy_permits() {
    let (mut a, _b) = pair();
    let (web, six) =
        (SocketAddr::from(([192, 0, 2, 7], 443)), SocketAddr::new("2001:db8::7".parse().unwrap(), 443));
    a.apply(&["tcp:192.0.2.7:443", "udp:[2001:db8::7]:443"], &[], 2);
    let denied = a.run(move |network| async move {
        let wrong = network.admit(Transport::Udp, web).unwrap_err();
        network.admit(Transport::Tcp, web).unwrap();
        network.admit(Transport::Udp, six).unwrap();
        wrong
    });
    assert_eq!((denied.decision.reason, denied.generation), (Reason::DefaultDeny, 2));
    let told = a.told(|flow| flow.dst == web && flow.action == Action::Deny);
    assert_eq!((told.proto, told.src.ip()), (17, v4(1)));
    let told = a.told(|flow| flow.dst == web && flow.action == Action::Allow);
    assert_eq!((told.proto, told.reason, told.direction), (6, Reason::RuleAllow, Direction::Egress));
    assert_eq!(a.told(|flow| flow.dst == six).src.ip(), v6(1));

    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let revoked = a.spawn(move |network| async move {
        let stays = network.admit(Transport::Udp, six).unwrap();
        let goes = network.admit(Transport::Tcp, web).unwrap();
        ready.send(()).unwrap();
        goes.revoked().await;
        goes.revoked().await;
        timeout(Duration::from_millis(200), stays.revoked()).await.is_err()
    });
    is_ready.blocking_recv().unwrap();
    a.apply(&["udp:[2001:db8::7]:443"], &[], 3);
    assert!(revoked.wait(), "the other goes on");
    let told = a.told(|flow| flow.dst == web && flow.generation == 3);
    assert_eq!((told.action, told.reason), (Action::Deny, Reason::DefaultDeny));
}
