//! Loads for the relay.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use lattice_relay::{
    Fingerprint,
    client::{self, Credential},
    sized_udp,
};
use lattice_wire::{RelayClaims, WgPublicKey, WorkspaceId, lrp::Frame, relay_token::issue};
use nkeys::KeyPair;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::JoinSet};

use crate::{
    Outcome,
    server::{Server, issuer, runtime},
};

/// Datagrams that wait in QUIC, in bytes.
const QUEUE: usize = 256 << 10;
/// Datagrams that a TCP client writes at once, and those that a QUIC client hands on before others have their turn.
const BATCH: usize = 16;

/// Where a relay is.
#[derive(Clone, Copy)]
struct Place {
    quic: SocketAddr,
    tcp: SocketAddr,
    fingerprint: Fingerprint,
}

impl Place {
    fn of(server: &Server) -> Self {
        let parts: Vec<&str> = server.1.split(' ').collect();
        let [quic, tcp] = [0, 1].map(|index| parts[index].parse().unwrap());
        Self { quic, tcp, fingerprint: parts[2].parse().unwrap() }
    }

    async fn quic(&self, number: usize) -> client::Quic {
        let (key, token) = peer(number);
        let socket = sized_udp("127.0.0.1:0".parse().unwrap()).unwrap();
        let credential = Credential { token: &token, key: &key };
        client::quic(socket, self.quic, self.fingerprint, credential, QUEUE).await.unwrap()
    }

    async fn tcp(&self, number: usize) -> client::Tcp {
        let (key, token) = peer(number);
        let stream = TcpStream::connect(self.tcp).await.unwrap();
        client::tcp(stream, self.fingerprint, Credential { token: &token, key: &key }).await.unwrap()
    }
}

fn address(number: usize) -> WgPublicKey {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&(number as u64 + 1).to_be_bytes());
    WgPublicKey(key)
}

fn peer(number: usize) -> (KeyPair, String) {
    let key = KeyPair::new_user();
    let claims = RelayClaims {
        workspace: WorkspaceId::from_random([1; 10]),
        wireguard: address(number),
        nats: key.public_key(),
        not_after: i64::MAX,
    };
    let token = issue(&claims, &issuer()).unwrap();
    (key, token)
}

fn ask(number: usize) -> Vec<u8> {
    let mut ask = Vec::new();
    Frame::Ask(address(number)).write(&mut ask);
    ask
}

/// The handle in the relay's answer.
fn handle(frame: &[u8]) -> u32 {
    match Frame::parse(frame) {
        Ok(Frame::Route(handle, _)) => handle,
        other => panic!("no route: {other:?}"),
    }
}

/// A data body of `size` bytes for the peer behind `handle`.
fn body(handle: u32, size: usize) -> Vec<u8> {
    [handle.to_be_bytes().as_slice(), &vec![0; size]].concat()
}

/// As many pairs, each with one that sends as fast as it may and one that receives.
pub(crate) fn run(turn: Duration, size: usize, pairs: usize, quic: bool) -> Outcome {
    let server = Server::start("--relay");
    let place = Place::of(&server);
    let (received, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    runtime().block_on(async {
        let mut sending = JoinSet::new();
        let mut waiting = Vec::new();
        let begin = Arc::new(tokio::sync::Notify::new());
        for pair in 0..pairs {
            let (one, other) = (2 * pair, 2 * pair + 1);
            let (count, stop, begin) = (received.clone(), stop.clone(), begin.clone());
            if quic {
                let (mut a, b) = (place.quic(one).await, place.quic(other).await);
                a.control.write_all(&ask(other)).await.unwrap();
                let handle = handle(&a.frames.next().await.unwrap().unwrap());
                waiting.push(tokio::spawn(async move {
                    // Whole: who drops the control stream alone has left, as far as the relay can see.
                    let b = b;
                    while b.connection.read_datagram().await.is_ok() {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }));
                let body = Bytes::from(body(handle, size));
                sending.spawn(async move {
                    let a = a;
                    begin.notified().await;
                    let mut sent = 0_u64;
                    while !stop.load(Ordering::Relaxed) {
                        match a.connection.send_datagram_wait(body.clone()).await {
                            Ok(()) => sent += 1,
                            // So much was lost that QUIC takes the path for one that became narrow. A peer connects anew.
                            Err(quinn::SendDatagramError::TooLarge) => {
                                eprintln!(
                                    "one sender of {pairs} stops: QUIC has given up full-size datagrams"
                                );
                                break;
                            }
                            Err(error) => panic!("the relay has ended the connection: {error}"),
                        }
                        if sent.is_multiple_of(BATCH as u64) {
                            tokio::task::yield_now().await;
                        }
                    }
                    sent
                });
            } else {
                let (mut a, mut b) = (place.tcp(one).await, place.tcp(other).await);
                a.writer.write_all(&ask(other)).await.unwrap();
                a.writer.flush().await.unwrap();
                let handle = handle(&a.frames.next().await.unwrap().unwrap());
                waiting.push(tokio::spawn(async move {
                    while let Ok(Some(_)) = b.frames.next().await {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }));
                let (body, mut batch) = (body(handle, size), Vec::new());
                (0..BATCH).for_each(|_| Frame::Data(&body).write(&mut batch));
                sending.spawn(async move {
                    begin.notified().await;
                    let mut sent = 0;
                    while !stop.load(Ordering::Relaxed) {
                        a.writer.write_all(&batch).await.unwrap();
                        sent += BATCH as u64;
                    }
                    sent
                });
            }
        }
        // All of them wait for it by now.
        tokio::time::sleep(Duration::from_millis(300)).await;
        received.store(0, Ordering::Relaxed);
        let (started, before) = (Instant::now(), server.cpu());
        begin.notify_waiters();
        tokio::time::sleep(turn).await;
        stop.store(true, Ordering::Relaxed);
        let mut sent = 0;
        while let Some(more) = sending.join_next().await {
            sent += more.unwrap();
        }
        let took = started.elapsed().as_secs_f64();
        tokio::time::sleep(Duration::from_millis(500)).await;
        Outcome { sent, received: received.load(Ordering::Relaxed), cpu: server.cpu() - before, took }
    })
}

/// What the relay needs for one client that does nothing, in bytes.
pub(crate) fn idle(server: &Server, clients: usize, quic: bool) -> f64 {
    let place = Place::of(server);
    runtime().block_on(async {
        let (mut by_quic, mut by_tcp) = (Vec::new(), Vec::new());
        let mut connect = async |number| match quic {
            true => by_quic.push(place.quic(number).await),
            false => by_tcp.push(place.tcp(number).await),
        };
        // The first ones make it allocate what all share.
        let warm = clients / 10;
        for number in 0..warm {
            connect(number).await;
        }
        let before = server.memory();
        for number in warm..clients {
            connect(number).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        (server.memory() - before) / (clients - warm) as f64
    })
}
