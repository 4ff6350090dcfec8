//! TCP between two stacks.

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use lattice_netstack::Limits;
use lattice_overlay::stack::{ConnectError, Network, TcpStream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::pair::{Node, pair, pair_with, v4, v6};

const PORT: u16 = 80;

/// Has a node echo what it gets, connection by connection, until each ends.
fn echo(node: &Node) {
    drop(node.spawn(|network| async move {
        let mut listener = network.listen(PORT);
        loop {
            let request = listener.request().await;
            tokio::task::spawn_local(async move {
                let Ok(stream) = request.accept().await else { return };
                let (mut from, mut to) = tokio::io::split(stream);
                let _broken = tokio::io::copy(&mut from, &mut to).await;
                let _broken = to.shutdown().await;
            });
        }
    }));
    // The listener is there when work that was begun after it is done.
    node.run(|_| async {});
}

async fn connect(network: &Network, number: u8) -> TcpStream {
    network.connect(SocketAddr::new(v4(number), PORT)).await.unwrap()
}

#[test]
fn a_connection_carries_both_ways_and_ends_in_both() {
    let (a, b) = pair();
    echo(&b);
    for to in [v4(2), v6(2)] {
        let heard = a.run(move |network| async move {
            let mut stream = network.connect(SocketAddr::new(to, PORT)).await.unwrap();
            assert_eq!(stream.remote(), SocketAddr::new(to, PORT));
            stream.write_all(b"hello").await.unwrap();
            stream.shutdown().await.unwrap();
            assert_eq!(stream.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).await.unwrap();
            heard
        });
        assert_eq!(heard, b"hello");
    }
}

#[test]
fn a_port_that_nobody_listens_on_refuses() {
    let (a, b) = pair();
    let to = SocketAddr::new(v4(2), PORT);
    assert_eq!(
        a.run(move |network| async move { network.connect(to).await.unwrap_err() }),
        ConnectError::Refused
    );
    drop(b);
}

/// A checksum that knows the order.
fn fold(sum: u64, data: &[u8]) -> u64 {
    data.iter().fold(sum, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[test]
fn sixty_four_mebibytes_each_way() {
    const BYTES: usize = 64 << 20;
    let (a, b) = pair();
    echo(&b);
    let (sent, received) = a.run(|network| async move {
        let (mut from, mut to) = tokio::io::split(connect(&network, 2).await);
        let writer = tokio::task::spawn_local(async move {
            let (mut sum, mut chunk) = (0, vec![0; 60_000]);
            let mut left = BYTES;
            while left > 0 {
                let len = left.min(chunk.len());
                chunk[..len]
                    .iter_mut()
                    .enumerate()
                    .for_each(|(at, byte)| *byte = (((left + at) * 31) >> 8) as u8);
                to.write_all(&chunk[..len]).await.unwrap();
                sum = fold(sum, &chunk[..len]);
                left -= len;
            }
            to.shutdown().await.unwrap();
            sum
        });
        let (mut sum, mut count, mut chunk) = (0, 0, vec![0; 50_000]);
        loop {
            let len = from.read(&mut chunk).await.unwrap();
            if len == 0 {
                break;
            }
            sum = fold(sum, &chunk[..len]);
            count += len;
        }
        assert_eq!(count, BYTES);
        (writer.await.unwrap(), sum)
    });
    assert_eq!(sent, received);
}

#[test]
fn two_hundred_connections_at_once() {
    const EACH: usize = 100_000;
    let (a, b) = pair();
    echo(&b);
    let all = a.run(|network| async move {
        let one = |number: usize| {
            let network = network.clone();
            async move {
                let (mut from, mut to) = tokio::io::split(connect(&network, 2).await);
                let content: Vec<u8> = (0..EACH).map(|at| (at * 7 + number) as u8).collect();
                let sent = content.clone();
                let writer = tokio::task::spawn_local(async move {
                    to.write_all(&sent).await.unwrap();
                    to.shutdown().await.unwrap();
                });
                let mut heard = Vec::new();
                from.read_to_end(&mut heard).await.unwrap();
                writer.await.unwrap();
                heard == content
            }
        };
        let tasks: Vec<_> = (0..200).map(|number| tokio::task::spawn_local(one(number))).collect();
        let mut intact = 0;
        for task in tasks {
            intact += usize::from(task.await.unwrap());
        }
        intact
    });
    assert_eq!(all, 200);
}

#[test]
fn who_has_ended_still_hears_the_other() {
    let (a, b) = pair();
    let serving = b.spawn(|network| async move {
        let mut stream = network.listen(PORT).request().await.accept().await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        stream.write_all(&vec![7; 3 << 20]).await.unwrap();
        heard
    });
    b.run(|_| async {});
    let heard = a.run(|network| async move {
        let mut stream = connect(&network, 2).await;
        stream.write_all(b"that is all").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        heard.len()
    });
    assert_eq!((heard, serving.wait().as_slice()), (3 << 20, &b"that is all"[..]));
}

#[test]
fn a_reset_is_told_to_both_who_read_and_who_write() {
    let (a, b) = pair();
    let serving = b.spawn(|network| async move {
        let mut listener = network.listen(PORT);
        let mut stream = listener.request().await.accept().await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        let read = stream.read(&mut [0; 8]).await.unwrap_err().kind();
        (read, stream.write(b"late").await.unwrap_err().kind())
    });
    b.run(|_| async {});
    a.run(|network| async move {
        let mut stream = connect(&network, 2).await;
        stream.read_exact(&mut [0; 5]).await.unwrap();
        stream.reset();
    });
    assert_eq!(serving.wait(), (ErrorKind::ConnectionReset, ErrorKind::ConnectionReset));
}

#[test]
fn a_request_that_is_dropped_is_refused_and_a_listener_that_is_dropped_listens_no_more() {
    let (a, b) = pair();
    let serving = b.spawn(|network| async move {
        let mut listener = network.listen(PORT);
        let request = listener.request().await;
        assert_eq!(request.remote().ip(), v4(1));
    });
    b.run(|_| async {});
    let to = SocketAddr::new(v4(2), PORT);
    let refused = a.run(move |network| async move { network.connect(to).await.unwrap_err() });
    assert_eq!(refused, ConnectError::Refused);
    serving.wait();
    let refused = a.run(move |network| async move { network.connect(to).await.unwrap_err() });
    assert_eq!(refused, ConnectError::Refused);
}

/// Both ends together hold what their buffers hold, and the writer waits.
#[test]
fn a_reader_that_does_not_read_holds_its_writer_up() {
    let limits = Limits { receive_buffer: 64 << 10, send_buffer: 64 << 10, ..Limits::default() };
    let (a, b) = pair_with(limits);
    let (go, mut wait) = tokio::sync::mpsc::unbounded_channel::<()>();
    let serving = b.spawn(|network| async move {
        let mut stream = network.listen(PORT).request().await.accept().await.unwrap();
        wait.recv().await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        heard.len()
    });
    b.run(|_| async {});
    let written = a.run(move |network| async move {
        let mut stream = connect(&network, 2).await;
        let mut written = 0;
        // So long without room means that there will be none.
        while let Ok(more) = timeout(Duration::from_millis(500), stream.write(&[1; 10_000])).await {
            written += more.unwrap();
        }
        assert!((64 << 10..=256 << 10).contains(&written), "{written}");
        go.send(()).unwrap();
        stream.write_all(&[1; 100_000]).await.unwrap();
        stream.shutdown().await.unwrap();
        // Until the other end has read everything.
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
        written + 100_000
    });
    assert_eq!(serving.wait(), written);
}

#[test]
fn who_waits_is_told_when_the_device_ends() {
    let (a, b) = pair();
    echo(&b);
    let reading = a.spawn(|network| async move {
        let mut stream = connect(&network, 2).await;
        let read = stream.read(&mut [0; 8]).await.unwrap_err().kind();
        let again = network.connect(SocketAddr::new(v4(2), PORT)).await.unwrap_err();
        (read, again)
    });
    let (ended, has_ended) = tokio::sync::oneshot::channel();
    let left = b.spawn(|network| async move {
        let mut stream = network.listen(81).request().await.accept().await.unwrap();
        ended.send(()).unwrap();
        stream.read(&mut [0; 8]).await.unwrap_err().kind()
    });
    b.run(|_| async {});
    a.run(|network| async move {
        let stream = network.connect(SocketAddr::new(v4(2), 81)).await.unwrap();
        has_ended.await.unwrap();
        // It stays open until the device ends.
        tokio::task::spawn_local(async move {
            let _stream = stream;
            std::future::pending::<()>().await;
        });
    });
    drop(a);
    assert_eq!(reading.wait(), (ErrorKind::BrokenPipe, ConnectError::Stopped));
    assert_eq!(left.wait(), ErrorKind::ConnectionReset, "the peer is told");
}

#[test]
fn nobody_is_woken_for_idle_connections() {
    let (a, b) = pair();
    echo(&b);
    let turns = a.run(|network| async move {
        let mut streams = Vec::new();
        for _ in 0..100 {
            let mut stream = connect(&network, 2).await;
            stream.write_all(b"hello").await.unwrap();
            stream.read_exact(&mut [0; 5]).await.unwrap();
            streams.push(stream);
        }
        // What was said last is acknowledged.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let before = network.turns();
        tokio::time::sleep(Duration::from_secs(2)).await;
        network.turns() - before
    });
    // A timer that was moved to later fires once for nothing.
    assert!(turns <= 2, "{turns} turns");
}
