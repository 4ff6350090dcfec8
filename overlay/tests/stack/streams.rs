//! TCP between two stacks.

use std::{io::ErrorKind, net::SocketAddr};

use lattice_overlay::stack::{ConnectError, Network, TcpStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::pair::{Node, pair, v4, v6};

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
                    .for_each(|(at, byte)| *byte = ((left + at) * 31 >> 8) as u8);
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
