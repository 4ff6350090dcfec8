//! In namespaces of their own, with a socket that holds the port as WireGuard's would.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use lattice_paths::mux::STUN_COOKIE;

use super::*;
use crate::{Netns, link};

const HANGS: Duration = Duration::from_secs(30);

struct Host {
    netns: Netns,
    /// Holds the port.
    socket: UdpSocket,
    ips: [IpAddr; 2],
}

impl Host {
    fn port(&self) -> u16 {
        self.socket.local_addr().unwrap().port()
    }

    fn at(&self, is_v6: usize) -> SocketAddr {
        SocketAddr::new(self.ips[is_v6], self.port())
    }
}

/// Two hosts on one link.
fn hosts() -> [Host; 2] {
    let netns = || Netns::create().expect("needs root");
    let (one, other) = (netns(), netns());
    link::add_veth(&one, "eth0", &other, "eth0").unwrap();
    let host = |netns: Netns, number: u8| {
        for address in [format!("192.0.2.{number}/24"), format!("2001:db8::{number}/64")] {
            link::add_address(&netns, "eth0", address.parse().unwrap()).unwrap();
        }
        link::set_up(&netns, "lo").unwrap();
        link::set_up(&netns, "eth0").unwrap();
        let socket = netns.run(|| UdpSocket::bind("[::]:0").unwrap()).unwrap();
        socket.set_read_timeout(Some(HANGS)).unwrap();
        let ips = [format!("192.0.2.{number}"), format!("2001:db8::{number}")].map(|ip| ip.parse().unwrap());
        Host { netns, socket, ips }
    };
    [host(one, 1), host(other, 2)]
}

/// As long as that and beginning so, with STUN's cookie where STUN has it.
fn with_cookie(len: usize, first: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![0; len.max(8)];
    bytes[..4].copy_from_slice(&first);
    bytes[4..8].copy_from_slice(&STUN_COOKIE);
    bytes.truncate(len);
    bytes
}

/// For the port of `host`, in its namespace.
fn open(host: &Host) -> Raw {
    let mut raw = Raw::new(host.port());
    host.netns.run(|| raw.open()).unwrap().unwrap();
    raw
}

fn next(raw: &mut Raw, buffer: &mut [u8]) -> (SocketAddr, IpAddr, Vec<u8>) {
    let begun = Instant::now();
    loop {
        match raw.receive(buffer) {
            Ok(Received { from, to, content }) => return (from, to, content.to_vec()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && begun.elapsed() < HANGS => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn of_what_comes_to_the_port_stun_is_received_and_nothing_else() {
    let [here, there] = hosts();
    let mut raw = open(&here);
    let beside = here.netns.run(|| UdpSocket::bind("[::]:0").unwrap()).unwrap();
    let mut buffer = [0; 4096];
    for is_v6 in [0, 1] {
        let send = |bytes: &[u8], port: u16| {
            let to = match here.ips[is_v6] {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
                v6 => v6,
            };
            there.socket.send_to(bytes, SocketAddr::new(to, port)).unwrap();
        };
        let garbage = [
            with_cookie(32, [4, 0, 0, 0]), // data whose receiver index equals the cookie
            with_cookie(148, [1, 0, 0, 0]),
            with_cookie(19, [0, 1, 0, 0]),
            with_cookie(28, [0x80, 1, 0, 0]),
            vec![0; 28],
            vec![],
        ];
        for bytes in &garbage {
            send(bytes, here.port());
        }
        send(&with_cookie(28, [0, 1, 0, 8]), beside.local_addr().unwrap().port());
        // As short as WireGuard's is not, of another method, and the usual.
        let stun = [[4, 0, 0, 0], [5, 0, 0, 0], [0, 1, 0, 8], [1, 1, 0, 12]];
        for (first, len) in stun.into_iter().zip([31, 32, 28, 32]) {
            let bytes = with_cookie(len, first);
            send(&bytes, here.port());
            let received = next(&mut raw, &mut buffer);
            assert_eq!(received, (there.at(is_v6), here.ips[is_v6], bytes));
        }
        assert_eq!(raw.receive(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        // The holder of the port gets all of it too.
        for bytes in &garbage {
            assert_eq!(here.socket.recv(&mut buffer).unwrap(), bytes.len());
        }
        for len in [31, 32, 28, 32] {
            assert_eq!(here.socket.recv(&mut buffer).unwrap(), len);
        }
    }
    assert!(raw.fds().is_some());
    raw.close();
    assert_eq!(raw.receive(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert!(raw.fds().is_none());
}

#[test]
fn a_flood_by_one_version_of_ip_does_not_silence_the_other() {
    let [here, there] = hosts();
    let mut raw = open(&here);
    let mut buffer = [0; 4096];
    let ask = |is_v6: usize, times: u16| {
        for _ in 0..times {
            // An address of IPv4 by a socket of IPv6.
            let ip = match here.ips[is_v6] {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
                v6 => v6,
            };
            there.socket.send_to(&with_cookie(28, [0, 1, 0, 8]), SocketAddr::new(ip, here.port())).unwrap();
        }
    };
    for (flood, other) in [(0, 1), (1, 0)] {
        ask(flood, 10);
        ask(other, 1);
        // The holder of the port has them all, so the raw sockets do too.
        for _ in 0..11 {
            here.socket.recv(&mut buffer).unwrap();
        }
        let heard = [0; 11].map(|_: u8| next(&mut raw, &mut buffer).1);
        assert!(heard[..2].contains(&here.ips[other]), "{heard:?}");
    }
}

#[test]
fn what_is_sent_comes_from_the_port_and_the_address_that_routes_choose() {
    let [here, there] = hosts();
    let mut raw = Raw::new(here.port());
    link::add_address(&here.netns, "eth0", "192.0.2.77/24".parse().unwrap()).unwrap();
    let mut buffer = [0; 4096];
    for is_v6 in [0, 1] {
        let to = there.at(is_v6);
        let sent = here.netns.run(|| {
            // WireGuard would send from the first one.
            raw.send(Some("192.0.2.77".parse().unwrap()), to, b"from elsewhere");
            for content in [&b"odd"[..], b"even", &[7; 1400]] {
                raw.send(None, to, content);
                raw.send(Some(here.ips[is_v6]), to, content);
            }
        });
        sent.unwrap();
        for content in [&b"odd"[..], b"even", &[7; 1400]] {
            for _ in 0..2 {
                // A wrong checksum would not arrive.
                let (len, from) = there.socket.recv_from(&mut buffer).unwrap();
                let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                assert_eq!((&buffer[..len], from), (content, here.at(is_v6)));
            }
        }
    }
    assert_eq!(raw.failed(), 0);
    here.netns.run(|| raw.send(None, "198.51.100.1:1".parse().unwrap(), b"no route")).unwrap();
    assert_eq!(raw.failed(), 1);
}
