//! The STUN server over real sockets.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use lattice_relay::{Metrics, stun::StunServer};
use tokio::{net::UdpSocket, time::timeout};

use super::support::{HANGS, LOOPBACK};

const REQUEST: [u8; 20] = *b"\0\x01\0\0\x21\x12\xa4\x42transaction!";

async fn server(address: &str) -> (StunServer, Arc<Metrics>, UdpSocket) {
    let (metrics, address): (_, SocketAddr) = (Arc::new(Metrics::default()), address.parse().unwrap());
    let server = StunServer::start(&[address], &metrics).unwrap();
    let client = UdpSocket::bind(address).await.unwrap();
    client.connect(server.addresses()[0]).await.unwrap();
    (server, metrics, client)
}

#[tokio::test]
async fn tells_both_families_their_address() {
    for (address, family) in [(LOOPBACK, 1), ("[::1]:0", 2)] {
        let (_server, _, client) = server(address).await;
        client.send(&REQUEST).await.unwrap();
        let mut answer = [0; 100];
        let length = timeout(HANGS, client.recv(&mut answer)).await.unwrap().unwrap();
        assert_eq!((length, answer[25]), (20 + 4 + if family == 1 { 8 } else { 20 }, family));
        let port = u16::from_be_bytes([answer[26], answer[27]]) ^ 0x2112;
        assert_eq!(port, client.local_addr().unwrap().port());
    }
}

#[tokio::test]
async fn garbage_and_floods_are_dropped_and_counted() {
    let (_server, metrics, client) = server(LOOPBACK).await;
    let count = |name: &str| -> u64 {
        let text = metrics.text().unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)).map_or(0, |n| n.trim().parse().unwrap())
    };
    client.send(b"garbage").await.unwrap();
    for _ in 0..600 {
        client.send(&REQUEST).await.unwrap();
        tokio::task::yield_now().await;
    }
    let counted = async {
        while count("lattice_relay_stun_answered_total") + count("lattice_relay_stun_limited_total") < 600 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(HANGS, counted).await.unwrap_or_else(|_| panic!("{}", metrics.text().unwrap()));
    assert_eq!(count("lattice_relay_stun_malformed_total"), 1);
    assert!(count("lattice_relay_stun_limited_total") > 0);
}
