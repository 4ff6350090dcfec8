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
    assert!(b.device.drops().unwrap().link > 0);
}

/// Two namespaces, and a link whose queue holds more than a socket's buffer, which is full first.
fn link_with_a_queue() -> [Arc<Netns>; 2] {
    let ends = [1, 2].map(|_| Arc::new(Netns::create().expect("needs root")));
    link::add_veth(&ends[0], "eth0", &ends[1], "eth0").unwrap();
    for (netns, address) in ends.iter().zip(["192.0.2.1/24", "192.0.2.2/24"]) {
        link::add_address(netns, "eth0", address.parse().unwrap()).unwrap();
        link::set_up(netns, "eth0").unwrap();
    }
    set_rate(&ends[0], "add", "1gbit");
    ends
}

fn set_rate(netns: &Netns, action: &str, rate: &str) {
    let arguments = format!("qdisc {action} dev eth0 root tbf rate {rate} burst 200kb limit 100mb");
    let set = netns.run(|| {
        let set = Command::new("tc").args(arguments.split(' ')).status();
        // The queue looks at its clock anew when something comes in.
        let kick = std::net::UdpSocket::bind("192.0.2.1:0").unwrap();
        kick.send_to(b"x", "192.0.2.2:9").unwrap();
        set
    });
    assert!(set.unwrap().unwrap().success(), "tc");
}

#[test]
fn who_waits_for_the_underlay_to_have_room_loses_nothing_to_it() {
    let [here, there] = link_with_a_queue();
    let to = SocketAddr::new(v4(2), PORT);
    let (a, b) =
        (Node::with(1, Limits::default(), Arc::clone(&here)), Node::with(2, Limits::default(), there));
    a.device.set_peers(&[b.config([192, 0, 2, 2].into())]).unwrap();
    b.device.set_peers(&[a.config([192, 0, 2, 1].into())]).unwrap();
    for node in [&a, &b] {
        node.apply(&["10.42.0.0/16"], &["10.42.0.0/16"], 1);
    }
    drop(b.spawn(|network| async move {
        let socket = network.bind_udp(PORT).unwrap();
        let (payload, from) = receive(&socket, 1500).await.unwrap();
        socket.send_to(&payload, from).unwrap();
        std::future::pending::<()>().await;
    }));
    b.run(|_| async {});
    a.run(move |network| async move {
        let socket = network.bind_udp(0).unwrap();
        socket.send_to(b"hello", to).unwrap();
        receive(&socket, 1500).await.unwrap();
    });
    let lost = || a.device.drops().unwrap().underlay;

    // As good as standing still: whoever does not wait fills the socket's buffer of some 14 MB, and loses the rest.
    set_rate(&here, "change", "8kbit");
    a.run(move |network| async move {
        let socket = network.bind_udp(0).unwrap();
        (0..20_000).for_each(|_| socket.send_to(&[1; 1300], to).unwrap());
    });
    let before = lost();
    assert!(before > 0, "the buffer is not full");
    let sending = a.spawn(move |network| async move {
        let socket = network.bind_udp(0).unwrap();
        let waits = timeout(Duration::from_millis(100), socket.writable()).await.is_err();
        for _ in 0..2_000 {
            socket.writable().await;
            socket.send_to(&[1; 1300], to).unwrap();
        }
        waits
    });
    a.run(|_| async { tokio::time::sleep(Duration::from_millis(300)).await });
    set_rate(&here, "change", "1gbit");
    assert!(sending.wait(), "there was room");
    assert_eq!(lost(), before);
}
