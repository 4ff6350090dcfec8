//! UDP ASSOCIATE.

use std::net::{IpAddr, SocketAddr};

use lattice_proxy::limits::{UDP_QUEUE, UDP_TARGETS};
use tokio::{
    io::AsyncReadExt as _,
    io::AsyncWriteExt as _,
    net::{TcpStream, UdpSocket},
    task::spawn_local,
    time::timeout,
};

use super::support::{CREDENTIALS, HANGS, Lab, QUIET, program, request, run};

/// An association: its connection, and where its datagrams go.
struct Association {
    connection: TcpStream,
    relay: SocketAddr,
    socket: UdpSocket,
}

impl Association {
    async fn open(lab: &Lab, told: &str) -> Self {
        let mut connection = lab.client().await;
        connection.write_all(&[&[5, 1, 0][..], &request(3, told.parse().unwrap())].concat()).await.unwrap();
        let mut reply = [0; 12];
        connection.read_exact(&mut reply).await.unwrap();
        assert_eq!(reply[..6], [5, 0, 5, 0, 0, 1]);
        let relay = SocketAddr::from((
            [reply[6], reply[7], reply[8], reply[9]],
            u16::from_be_bytes([reply[10], reply[11]]),
        ));
        assert!(relay.ip().is_loopback() && relay.port() != 0);
        Self { connection, relay, socket: UdpSocket::bind("127.0.0.1:0").await.unwrap() }
    }

    async fn send(&self, header: &[u8], payload: &[u8]) {
        self.socket.send_to(&[header, payload].concat(), self.relay).await.unwrap();
    }

    /// The header and the payload of the next datagram.
    async fn receive(&self) -> (Vec<u8>, Vec<u8>) {
        let mut buffer = [0; 2048];
        let (length, from) = timeout(HANGS, self.socket.recv_from(&mut buffer)).await.unwrap().unwrap();
        assert_eq!(from, self.relay);
        (buffer[..10].to_vec(), buffer[10..length].to_vec())
    }
}

fn to(address: SocketAddr) -> Vec<u8> {
    [&[0][..], &request(0, address)[1..]].concat()
}

fn to_name(name: &str, port: u16) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap();
    [&[0, 0, 0, 3, length][..], name.as_bytes(), &port.to_be_bytes()].concat()
}

async fn echo() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    spawn_local(async move {
        let mut buffer = [0; 65_535];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..length], from).await;
        }
    });
    address
}

#[test]
fn datagrams_go_by_address_and_by_name_and_come_back() {
    run(async {
        let (lab, target) = (Lab::start().await, echo().await);
        let association = Association::open(&lab, "0.0.0.0:0").await;
        association.send(&to(target), b"by address").await;
        assert_eq!(association.receive().await, (to(target), b"by address".to_vec()));
        association.send(&to_name("Web.test.", target.port()), b"by name").await;
        assert_eq!(association.receive().await, (to(target), b"by name".to_vec()));
        association.send(&to(target), b"").await;
        assert_eq!(association.receive().await, (to(target), b"".to_vec()));
        let port = target.port();
        let asked = lab.behind.asked.borrow();
        assert_eq!(
            *asked,
            [format!("udp {target}"), format!("udp web.test:{port}"), format!("udp {target}")]
        );
        assert_eq!(lab.counters().datagrams, 6);
    });
}

#[test]
fn a_large_datagram_arrives_whole() {
    run(async {
        let (lab, target) = (Lab::start().await, echo().await);
        let association = Association::open(&lab, "0.0.0.0:0").await;
        let payload: Vec<u8> = (0..60_000u32).map(|n| (n % 251) as u8).collect();
        association.send(&to(target), &payload).await;
        let mut buffer = vec![0; 65_535];
        let (length, _) = timeout(HANGS, association.socket.recv_from(&mut buffer)).await.unwrap().unwrap();
        assert!(buffer[10..length] == payload);
    });
}

#[test]
fn only_the_client_is_served_and_only_whole_datagrams() {
    run(async {
        let (lab, target) = (Lab::start().await, echo().await);
        let association = Association::open(&lab, "0.0.0.0:0").await;
        association.send(&to(target), b"first").await;
        association.receive().await;

        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let elsewhere = UdpSocket::bind("127.0.0.2:0").await.unwrap();
        for other in [&stranger, &elsewhere] {
            other.send_to(&[&to(target)[..], b"mine"].concat(), association.relay).await.unwrap();
        }
        lab.until(|c| c.datagrams_foreign == 2).await;

        let mut fragment = to(target);
        fragment[2] = 1;
        let no_port = to(SocketAddr::new(target.ip(), 0));
        for header in [&fragment, &no_port, &to_name("a\0b", 53), &b"\0\0\0".to_vec(), &Vec::new()] {
            association.send(header, b"").await;
        }
        lab.until(|c| c.datagrams_malformed == 5).await;
        association.send(&to("192.0.2.1:53".parse().unwrap()), b"denied").await;
        association.send(&to_name("denied.test", 53), b"denied").await;
        lab.until(|c| c.datagrams_refused == 2).await;

        association.send(&to(target), b"last").await;
        assert_eq!(association.receive().await.1, b"last");
        assert_eq!(lab.counters().datagrams, 4);
    });
}

#[test]
fn an_address_that_is_not_the_connections_is_not_the_clients() {
    run(async {
        let (lab, target) = (Lab::start().await, echo().await);
        let association = Association::open(&lab, "0.0.0.0:0").await;
        // Before the client has said anything, somebody else may not say it either.
        let elsewhere = UdpSocket::bind("127.0.0.2:0").await.unwrap();
        elsewhere.send_to(&[&to(target)[..], b"mine"].concat(), association.relay).await.unwrap();
        lab.until(|c| c.datagrams_foreign == 1).await;
        association.send(&to(target), b"hello").await;
        assert_eq!(association.receive().await.1, b"hello");
    });
}

#[test]
fn a_port_that_the_client_named_is_held_to() {
    run(async {
        let (lab, target) = (Lab::start().await, echo().await);
        for (told, foreign) in [("0.0.0.0:1", true), ("127.0.0.1:1", true), ("8.8.8.8:1", false)] {
            let association = Association::open(&lab, told).await;
            let before = lab.counters();
            association.send(&to(target), b"from another port").await;
            lab.until(|c| {
                (c.datagrams_foreign > before.datagrams_foreign, c.datagrams > before.datagrams)
                    == (foreign, !foreign)
            })
            .await;
        }
    });
}

#[test]
fn it_ends_with_its_connection() {
    run(async {
        let (lab, target) = (Lab::start().await, echo().await);
        let Association { connection, relay, socket } = Association::open(&lab, "0.0.0.0:0").await;
        assert!(UdpSocket::bind(relay).await.is_err());
        drop(connection);
        lab.until(|c| c.active == 0).await;
        // The port is free, and what goes there reaches nobody.
        drop(UdpSocket::bind(relay).await.unwrap());
        socket.send_to(&[&to(target)[..], b"late"].concat(), relay).await.unwrap();
        assert!(timeout(QUIET, socket.recv_from(&mut [0; 64])).await.is_err());
        assert!(lab.behind.asked.borrow().is_empty());
    });
}

#[test]
fn targets_and_waiting_names_are_bounded() {
    run(async {
        let (lab, target) = (Lab::start().await, echo().await);
        let association = Association::open(&lab, "0.0.0.0:0").await;
        // Names that nobody resolves wait; addresses do not wait behind them.
        for _ in 0..UDP_QUEUE + 5 {
            association.send(&to_name("slow.test", 53), b"x").await;
        }
        lab.until(|c| c.datagrams_dropped >= 5).await;
        assert_eq!(lab.behind.asked.borrow().len(), UDP_QUEUE);
        association.send(&to(target), b"not held up").await;
        assert_eq!(association.receive().await.1, b"not held up");

        // slow.test and the echo server are two.
        let others = u16::try_from(UDP_TARGETS).unwrap() - 2 + 3;
        for port in 1..=others {
            association.send(&to(SocketAddr::from(([192, 0, 2, 1], port))), b"x").await;
        }
        // Behind all of these, in the same queue.
        association.send(&to(target), b"still known").await;
        assert_eq!(association.receive().await.1, b"still known");
        assert_eq!(lab.counters().datagrams_refused, u64::from(others) - 3);
    });
}

/// A nameserver that knows one address, and answers whatever it is asked.
async fn nameserver() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    spawn_local(async move {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query).await {
            let mut answer = query[..length].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            answer.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x07");
            let _ = socket.send_to(&answer, from).await;
        }
    });
    address
}

const PYTHON: &str = r#"
import socket, struct, sys
proxy, nameserver = (sys.argv[1], int(sys.argv[2])), ("127.0.0.1", int(sys.argv[3]))
tcp = socket.create_connection(proxy, 20)
tcp.sendall(b"\x05\x01\x00")
assert tcp.recv(2) == b"\x05\x00"
tcp.sendall(b"\x05\x03\x00\x01" + bytes(6))
reply = tcp.recv(10, socket.MSG_WAITALL)
assert reply[:4] == b"\x05\x00\x00\x01", reply
relay = (socket.inet_ntoa(reply[4:8]), struct.unpack("!H", reply[8:])[0])
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.settimeout(20)
query = struct.pack("!6H", 4711, 0x100, 1, 0, 0, 0) + b"\x07example\x03com\x00" + struct.pack("!2H", 1, 1)
header = b"\x00\x00\x00\x01" + socket.inet_aton(nameserver[0]) + struct.pack("!H", nameserver[1])
udp.sendto(header + query, relay)
answer, sender = udp.recvfrom(2048)
assert sender == relay and answer[:10] == header, answer
assert answer[10:12] == struct.pack("!H", 4711)
print(socket.inet_ntoa(answer[-4:]))
"#;

#[test]
fn python_asks_a_nameserver() {
    run(async {
        let (lab, nameserver) = (Lab::start().await, nameserver().await);
        let ports = [lab.address.port().to_string(), nameserver.port().to_string()];
        let proxy = lab.address.ip().to_string();
        let Some(output) = program("python3", &["-c", PYTHON, &proxy, &ports[0], &ports[1]]).await else {
            return;
        };
        assert_eq!(String::from_utf8_lossy(&output.stdout), "192.0.2.7\n", "{output:?}");
    });
}

#[test]
fn on_every_address_it_answers_from_the_one_that_was_reached() {
    run(async {
        let target = echo().await;
        for (listen, reached) in [("0.0.0.0:0", "127.0.0.1"), ("[::]:0", "127.0.0.1"), ("[::]:0", "::1")] {
            let lab = Lab::on(listen.parse().unwrap(), Some(CREDENTIALS), |_| {}).await;
            let ip: IpAddr = reached.parse().unwrap();
            let mut connection = TcpStream::connect((ip, lab.address.port())).await.unwrap();
            let handshake = b"\x05\x01\x02\x01\x06merlin\x100123456789abcdef\x05\x03\0\x01\0\0\0\0\0\0";
            connection.write_all(handshake).await.unwrap();
            let mut reply = vec![0; if ip.is_ipv4() { 14 } else { 26 }];
            connection.read_exact(&mut reply).await.unwrap();
            assert_eq!(reply[..7], [5, 2, 1, 0, 5, 0, 0]);
            let (bound, port) = reply[8..].split_at(reply.len() - 10);
            match ip {
                IpAddr::V4(ip) => assert_eq!((reply[7], bound), (1, &ip.octets()[..])),
                IpAddr::V6(ip) => assert_eq!((reply[7], bound), (4, &ip.octets()[..])),
            }
            let socket = UdpSocket::bind((ip, 0)).await.unwrap();
            let relay = (ip, u16::from_be_bytes([port[0], port[1]]));
            socket.send_to(&[&to(target)[..], b"hello"].concat(), relay).await.unwrap();
            let mut answer = [0; 64];
            let (length, _) = timeout(HANGS, socket.recv_from(&mut answer)).await.unwrap().unwrap();
            assert_eq!(answer[..length], [&to(target)[..], b"hello"].concat());
        }
    });
}
