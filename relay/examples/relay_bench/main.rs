//! What it costs to pass on a full-size datagram, in CPU time of the relay's process, beside a process that does nothing but receive
//! from one UDP socket and send to another. Loads of both take turns.
//!
//! `cargo run --release -p lattice-relay --example relay_bench [seconds per turn]`

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    net::{SocketAddr, UdpSocket},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use lattice_relay::{
    Config, Fingerprint, Identity, Metrics, Relay,
    client::{self, Credential},
    sized_udp,
};
use lattice_wire::{
    RelayClaims, WgPublicKey, WorkspaceId,
    lrp::{self, Frame},
    relay_token::{TrustedKeys, issue},
};
use nkeys::{KeyPair, KeyPairType};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, runtime::Runtime};

const ROUNDS: usize = 3;

fn main() {
    match env::args().nth(1).as_deref() {
        Some("--relay") => serve_relay(),
        Some("--udp") => serve_udp(),
        seconds => compare(Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(3))),
    }
}

fn issuer() -> KeyPair {
    KeyPair::new_from_raw(KeyPairType::Account, [7; 32]).unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn serve_relay() {
    runtime().block_on(async {
        let identity = Identity::generate().unwrap();
        let fingerprint = identity.fingerprint();
        let trusted = TrustedKeys::new([issuer().public_key().as_str()]).unwrap();
        let any = Some("127.0.0.1:0".parse().unwrap());
        let config = Config { quic: any, tcp: any, ..Config::new(trusted) };
        let relay = Relay::start(config, identity, Arc::new(Metrics::default())).unwrap();
        println!("{} {} {fingerprint}", relay.quic_address().unwrap(), relay.tcp_address().unwrap());
        std::future::pending::<()>().await;
    });
}

/// Learns the receiver from its first datagram, and sends it everything that comes from others.
fn serve_udp() {
    let socket = sized_udp("127.0.0.1:0".parse().unwrap()).unwrap();
    socket.set_nonblocking(false).unwrap();
    println!("{}", socket.local_addr().unwrap());
    let mut buffer = [0; 2048];
    let (_, receiver) = socket.recv_from(&mut buffer).unwrap();
    loop {
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        if from != receiver {
            let _ = socket.send_to(&buffer[..length], receiver);
        }
    }
}

/// A server in a process of its own, killed when dropped.
struct Server(Child, String);

impl Server {
    fn start(mode: &str) -> Self {
        let mut child =
            Command::new(env::current_exe().unwrap()).arg(mode).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self(child, line.trim().to_owned())
    }

    /// CPU time so far, in seconds.
    fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        // In ticks, 100 a second on every Linux (proc(5), utime and stime).
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn compare(turn: Duration) {
    println!("{:<22} {:>10} {:>14} {:>10}", "", "datagrams/s", "per CPU-second", "lost");
    for _ in 0..ROUNDS {
        report("bare UDP forwarder", udp(turn));
        report("LRP, QUIC to QUIC", lrp(turn, true));
        report("LRP, TCP to TCP", lrp(turn, false));
    }
}

struct Result {
    sent: u64,
    received: u64,
    cpu: f64,
    took: f64,
}

fn report(name: &str, result: Result) {
    let lost = 100.0 * (1.0 - result.received as f64 / result.sent as f64);
    println!(
        "{name:<22} {:>10.0} {:>14.0} {lost:>8.1} %",
        result.received as f64 / result.took,
        result.received as f64 / result.cpu
    );
}

fn udp(turn: Duration) -> Result {
    let server = Server::start("--udp");
    let address: SocketAddr = server.1.parse().unwrap();
    let bind = || {
        let socket: UdpSocket = sized_udp("127.0.0.1:0".parse().unwrap()).unwrap();
        socket.set_nonblocking(false).unwrap();
        socket.connect(address).unwrap();
        socket
    };
    let (sender, receiver) = (bind(), bind());
    receiver.send(b"here").unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let receiving = thread::spawn(move || {
        let (mut buffer, mut count) = ([0; 2048], 0);
        while receiver.recv(&mut buffer).is_ok() {
            count += 1;
        }
        count
    });
    thread::sleep(Duration::from_millis(50));
    let (begun, before, mut sent) = (Instant::now(), server.cpu(), 0);
    while begun.elapsed() < turn {
        sent += u64::from(sender.send(&[0; lrp::HANDLE + lrp::FULL_SIZE]).is_ok());
    }
    let took = begun.elapsed().as_secs_f64();
    Result { sent, received: receiving.join().unwrap(), cpu: server.cpu() - before, took }
}

fn lrp(turn: Duration, quic: bool) -> Result {
    let server = Server::start("--relay");
    let parts: Vec<&str> = server.1.split(' ').collect();
    let (at_quic, at_tcp): (SocketAddr, SocketAddr) = (parts[0].parse().unwrap(), parts[1].parse().unwrap());
    let fingerprint: Fingerprint = parts[2].parse().unwrap();
    let (received, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    runtime().block_on(async {
        let [a, b] = [1, 2].map(peer);
        let mut ask = Vec::new();
        Frame::Ask(WgPublicKey([2; 32])).write(&mut ask);
        let body = [1u32.to_be_bytes().as_slice(), &[0; lrp::FULL_SIZE]].concat();
        let count = Arc::clone(&received);
        let stopped = Arc::clone(&stop);
        let before;
        let begun;
        let sent;
        if quic {
            let connect = async |(key, token): &(KeyPair, String)| {
                let socket = sized_udp("127.0.0.1:0".parse().unwrap()).unwrap();
                client::quic(socket, at_quic, fingerprint, Credential { token, key }, 1 << 20).await.unwrap()
            };
            let (mut a, b) = (connect(&a).await, connect(&b).await);
            a.control.write_all(&ask).await.unwrap();
            a.frames.next().await.unwrap().unwrap();
            tokio::spawn(async move {
                while b.connection.read_datagram().await.is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
            (begun, before) = (Instant::now(), server.cpu());
            let body = bytes::Bytes::from(body);
            let sending = async move {
                let mut sent = 0;
                while !stopped.load(Ordering::Relaxed) {
                    a.connection.send_datagram_wait(body.clone()).await.unwrap();
                    sent += 1;
                }
                sent
            };
            let sending = tokio::spawn(sending);
            tokio::time::sleep(turn).await;
            stop.store(true, Ordering::Relaxed);
            sent = sending.await.unwrap();
        } else {
            let connect = async |(key, token): &(KeyPair, String)| {
                let stream = TcpStream::connect(at_tcp).await.unwrap();
                client::tcp(stream, fingerprint, Credential { token, key }).await.unwrap()
            };
            let (mut a, mut b) = (connect(&a).await, connect(&b).await);
            a.writer.write_all(&ask).await.unwrap();
            a.frames.next().await.unwrap().unwrap();
            tokio::spawn(async move {
                while let Ok(Some(_)) = b.frames.next().await {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
            (begun, before) = (Instant::now(), server.cpu());
            let mut batch = Vec::new();
            (0..16).for_each(|_| Frame::Data(&body).write(&mut batch));
            let sending = tokio::spawn(async move {
                let mut sent = 0;
                while !stopped.load(Ordering::Relaxed) {
                    a.writer.write_all(&batch).await.unwrap();
                    sent += 16;
                }
                sent
            });
            tokio::time::sleep(turn).await;
            stop.store(true, Ordering::Relaxed);
            sent = sending.await.unwrap();
        }
        let took = begun.elapsed().as_secs_f64();
        tokio::time::sleep(Duration::from_millis(500)).await;
        Result { sent, received: received.load(Ordering::Relaxed), cpu: server.cpu() - before, took }
    })
}

fn peer(number: u8) -> (KeyPair, String) {
    let key = KeyPair::new_user();
    let claims = RelayClaims {
        workspace: WorkspaceId::from_random([1; 10]),
        wireguard: WgPublicKey([number; 32]),
        nats: key.public_key(),
        not_after: i64::MAX,
    };
    let token = issue(&claims, &issuer()).unwrap();
    (key, token)
}
