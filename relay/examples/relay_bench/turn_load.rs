//! A load for coturn: TURN over UDP (RFC 8656), without authentication.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Outcome,
    server::{Server, command},
    udp_load::{count, socket},
};

const COOKIE: u32 = 0x2112_A442;
const ALLOCATE: u16 = 0x0003;
const CHANNEL_BIND: u16 = 0x0009;
const SUCCESS: u16 = 0x0100;
const CHANNEL: u16 = 0x4000;

/// `None` where coturn is not installed.
pub(crate) fn run(turn: Duration, size: usize, pairs: usize) -> Option<Outcome> {
    let path = env::var_os("PATH").unwrap_or_default();
    let turnserver = env::split_paths(&path).map(|dir| dir.join("turnserver")).find(|file| file.exists())?;
    let dir = tempfile::tempdir().unwrap();
    // A port that is free now, for both protocols.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let in_dir = |name: &str| dir.path().join(name).display().to_string();
    let mut command = command(turnserver);
    command.args(["-n", "--no-auth", "--no-tls", "--no-dtls", "--no-cli", "--allow-loopback-peers"]);
    command.args(["--listening-ip", "127.0.0.1", "--relay-ip", "127.0.0.1", "--no-stdout-log"]);
    command.args(["--listening-port", &port.to_string(), "--log-file", &in_dir("log")]);
    command.args(["--pidfile", &in_dir("pid"), "--userdb", &in_dir("db"), "--realm", "bench"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let server = Server(child, String::new());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));

    let receiver = socket();
    let SocketAddr::V4(to) = receiver.local_addr().unwrap() else { unreachable!("bound to IPv4") };
    let senders: Vec<UdpSocket> = (0..pairs).map(|_| allocated(address, to)).collect();
    let mut datagram = vec![0; 4 + size];
    datagram[..2].copy_from_slice(&CHANNEL.to_be_bytes());
    datagram[2..4].copy_from_slice(&u16::try_from(size).unwrap().to_be_bytes());
    let receiving = count(receiver);
    thread::sleep(Duration::from_millis(50));
    let (begun, before, mut sent) = (Instant::now(), server.cpu(), 0);
    while begun.elapsed() < turn {
        for sender in &senders {
            sent += u64::from(sender.send(&datagram).is_ok());
        }
    }
    let took = begun.elapsed().as_secs_f64();
    Some(Outcome { sent, received: receiving.join().unwrap(), cpu: server.cpu() - before, took })
}

/// A client with an allocation, whose channel leads to `to`.
fn allocated(server: SocketAddr, to: SocketAddrV4) -> UdpSocket {
    let client = socket();
    client.connect(server).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    // REQUESTED-TRANSPORT: UDP.
    ask(&client, ALLOCATE, &[0x00, 0x19, 0, 4, 17, 0, 0, 0]);
    let mut bind = vec![0x00, 0x0C, 0, 4];
    bind.extend(CHANNEL.to_be_bytes());
    bind.extend([0, 0]);
    // XOR-PEER-ADDRESS.
    bind.extend([0x00, 0x12, 0, 8, 0, 1]);
    bind.extend((to.port() ^ (COOKIE >> 16) as u16).to_be_bytes());
    bind.extend((u32::from(*to.ip()) ^ COOKIE).to_be_bytes());
    ask(&client, CHANNEL_BIND, &bind);
    client
}

/// Asks until the answer is a success. An answer to an earlier question, which was asked twice, is passed over.
fn ask(client: &UdpSocket, method: u16, attributes: &[u8]) {
    let mut request = method.to_be_bytes().to_vec();
    request.extend(u16::try_from(attributes.len()).unwrap().to_be_bytes());
    request.extend(COOKIE.to_be_bytes());
    request.extend([method as u8; 12]);
    request.extend(attributes);
    let (begun, mut answer) = (Instant::now(), [0; 2048]);
    loop {
        let _ = client.send(&request);
        if let Ok(length) = client.recv(&mut answer)
            && length >= 20
            && answer[8..20] == request[8..20]
        {
            let kind = u16::from_be_bytes([answer[0], answer[1]]);
            assert_eq!(kind, method | SUCCESS, "coturn refuses: {:?}", &answer[..length]);
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "coturn does not answer");
        thread::sleep(Duration::from_millis(20));
    }
}
