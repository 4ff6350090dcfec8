//! UDP between two stacks.

use std::{future::poll_fn, io, net::SocketAddr, process::Command, sync::Arc, time::Duration};

use lattice_netstack::Limits;
use lattice_overlay::{
    Netns, link,
    stack::{ConnectError, UdpSocket},
};
use tokio::{io::ReadBuf, time::timeout};

use crate::pair::{Node, pair, v4, v6};

const PORT: u16 = 53;

pub(crate) async fn receive(socket: &UdpSocket, room: usize) -> io::Result<(Vec<u8>, SocketAddr)> {
    let mut bytes = vec![0; room];
    let mut buffer = ReadBuf::new(&mut bytes);
    let from = poll_fn(|context| socket.poll_recv_from(context, &mut buffer)).await?;
    let len = buffer.filled().len();
    bytes.truncate(len);
    Ok((bytes, from))
}

#[test]
fn datagrams_go_both_ways_and_are_cut_to_the_readers_room() {
    let (a, b) = pair();
    drop(b.spawn(|network| async move {
        let socket = network.bind_udp(PORT).unwrap();
        assert_eq!(network.bind_udp(PORT).unwrap_err(), ConnectError::Busy);
        while let Ok((payload, from)) = receive(&socket, 1500).await {
            socket.send_to(&payload, from).unwrap();
        }
    }));
    b.run(|_| async {});
    a.run(|network| async move {
        let socket = network.bind_udp(0).unwrap();
        assert!(socket.port() >= 0x8000);
        for to in [v4(2), v6(2)].map(|ip| SocketAddr::new(ip, PORT)) {
            // The first one waits for the handshake.
            for len in [1, 512, 1360] {
                let payload: Vec<u8> = (0..len).map(|at| at as u8).collect();
                socket.send_to(&payload, to).unwrap();
                assert_eq!(receive(&socket, 1500).await.unwrap(), (payload.clone(), to));
                socket.send_to(&payload, to).unwrap();
                let most = len.min(100);
                assert_eq!(receive(&socket, 100).await.unwrap(), (payload[..most].to_vec(), to));
            }
            assert_eq!(socket.send_to(&[0; 1500], to), Err(ConnectError::Unreachable), "too long");
        }
    });
}

#[test]
fn a_socket_that_is_dropped_frees_its_port_and_one_that_nobody_reads_is_bounded() {
    let (a, b) = pair();
    let (go, mut wait) = tokio::sync::mpsc::unbounded_channel::<()>();
    let counting = b.spawn(|network| async move {
        drop(network.bind_udp(PORT).unwrap());
        let socket = network.bind_udp(PORT).unwrap();
        wait.recv().await.unwrap();
        let mut count = 0;
        while timeout(Duration::from_millis(300), receive(&socket, 1500)).await.is_ok() {
            count += 1;
        }
        count
    });
    b.run(|_| async {});
    a.run(move |network| async move {
        let socket = network.bind_udp(0).unwrap();
        for _ in 0..4000 {
            socket.send_to(&[1; 1000], SocketAddr::new(v4(2), PORT)).unwrap();
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        go.send(()).unwrap();
    });
    let count = counting.wait();
    assert!((1..=256 << 10).contains(&(count * 1040)), "{count}");
    // What was dropped is counted.
    assert!(b.device.drops().unwrap().unwrap().link > 0);
}

/// Two nodes, of which the first reaches the second by a link that is slower than what it sends.
fn behind_a_slow_link() -> (Node, Node) {
    let [here, there] = [1, 2].map(|_| Arc::new(Netns::create().expect("needs root")));
    link::add_veth(&here, "eth0", &there, "eth0").unwrap();
    for (netns, address) in [(&here, "192.0.2.1/24"), (&there, "192.0.2.2/24")] {
        link::add_address(netns, "eth0", address.parse().unwrap()).unwrap();
        link::set_up(netns, "eth0").unwrap();
    }
    // Its queue holds more than the socket's buffer, which is full first.
    let arguments = "qdisc add dev eth0 root tbf rate 20mbit burst 200kb limit 100mb";
    let shaped = here.run(|| Command::new("tc").args(arguments.split(' ')).status());
    assert!(shaped.unwrap().unwrap().success(), "tc");
    let (a, b) = (Node::with(1, Limits::default(), here), Node::with(2, Limits::default(), there));
    a.device.set_peers(&[b.config([192, 0, 2, 2].into())]).unwrap();
    b.device.set_peers(&[a.config([192, 0, 2, 1].into())]).unwrap();
    for node in [&a, &b] {
        node.apply(&["10.42.0.0/16"], &["10.42.0.0/16"], 1);
    }
    (a, b)
}

/// Sends so many, after a first one, which is to be answered if it waits; says how many of them were lost here.
fn lost_of(count: usize, node: &Node, waits: bool) -> u64 {
    let lost = || node.device.drops().unwrap().unwrap().underlay;
    let before = lost();
    node.run(move |network| async move {
        let (socket, to) = (network.bind_udp(0).unwrap(), SocketAddr::new(v4(2), PORT));
        socket.send_to(b"hello", to).unwrap();
        if waits {
            receive(&socket, 1500).await.unwrap();
        }
        for _ in 0..count {
            if waits {
                socket.writable().await;
            }
            socket.send_to(&[1; 1300], to).unwrap();
        }
    });
    lost() - before
}

#[test]
fn who_waits_for_the_underlay_to_have_room_loses_nothing_to_it() {
    let (a, b) = behind_a_slow_link();
    drop(b.spawn(|network| async move {
        let socket = network.bind_udp(PORT).unwrap();
        while let Ok((payload, from)) = receive(&socket, 1500).await {
            if payload == b"hello" {
                socket.send_to(&payload, from).unwrap();
            }
        }
    }));
    b.run(|_| async {});
    // The socket's buffer holds some 14 MB, which the link carries in six seconds.
    assert_eq!(lost_of(12_000, &a, true), 0);
    assert!(lost_of(4_000, &a, false) > 0, "the buffer was not full");
}
