//! Packets of up to 64 KiB through the user-space device: what programs send arrives, and the kernel's ends of the links see
//! few packets where the overlay carries many. Needs root.

#![allow(clippy::unwrap_used, reason = "clippy knows only functions marked #[test] as tests")]

#[allow(dead_code, reason = "other tests of devices use the rest")]
#[path = "devices/host.rs"]
mod host;
#[allow(dead_code, reason = "the benchmark uses the rest")]
#[path = "devices/wireguard_go.rs"]
mod wireguard_go;

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    process::Command,
    thread,
};

use host::{Host, eventually, join, pair};
use lattice_overlay::{PeerConfig, link};
use nix::sys::socket::{setsockopt, sockopt};
use wireguard_go::WireGuardGo;

const MIB: usize = 1 << 20;

/// Of a stream of so many bytes, if it is cut for an MTU of 1420.
const fn segments(bytes: usize) -> u64 {
    (bytes / 1360) as u64
}

#[test]
fn a_stream_crosses_both_links_in_large_packets() {
    for v6 in [false, true] {
        let (a, b) = pair();
        let to = if v6 { b.inner_v6() } else { b.inner_v4() };
        assert_eq!(a.tcp_transfer(&b, to, 32 * MIB), 32 * MIB);
        let (sent, received) = (a.sent_packets(), received_packets(&b));
        assert!(sent < segments(32 * MIB) / 8, "{sent} packets were read");
        assert!(received < segments(32 * MIB) / 8, "{received} packets were written");
        assert_nothing_lost(&a);
        assert_nothing_lost(&b);
    }
}

/// Packets that came to a host by its device, as large as they were written.
fn received_packets(host: &Host) -> u64 {
    host.link_counter(1)
}

/// But for what TCP repairs: nothing that ours made is refused by anybody.
fn assert_nothing_lost(host: &Host) {
    let drops = host.device().drops().unwrap();
    let refused = [drops.malformed, drops.unauthenticated, drops.wrong_source, drops.link, drops.underlay];
    assert_eq!(refused, [0; 5], "{drops:?}");
}

#[test]
fn streams_to_and_from_wireguard_go() {
    let (ours, go) = join(Host::new(1), Host::without_device(2));
    let go = WireGuardGo::start(go);
    go.set_peer(&ours, None);
    ours.set_peers(&[PeerConfig { endpoints: vec![go.endpoint()], keepalive: None, ..go.config() }]);
    go.bring_up();
    ours.bring_up();
    for of in [Host::inner_v4, Host::inner_v6] {
        assert_eq!(ours.tcp_transfer(&go.host, of(&go.host), 16 * MIB), 16 * MIB);
        assert_eq!(go.host.tcp_transfer(&ours, of(&ours), 16 * MIB), 16 * MIB);
    }
    assert_nothing_lost(&ours);
}

/// A socket that hands the kernel several datagrams of `size` bytes at once.
fn segmenting(host: &Host, to: SocketAddr, size: i32) -> UdpSocket {
    let socket = host.inside.run(|| UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }));
    let socket = socket.unwrap().unwrap();
    setsockopt(&socket, sockopt::UdpGsoSegment, &size).unwrap();
    socket
}

#[test]
fn datagrams_that_were_sent_as_one_arrive_each() {
    let (a, b) = pair();
    for ip in [b.inner_v4(), b.inner_v6()] {
        assert!(a.udp_echo(&b, ip, b"a session is there"));
        let inbox = b.udp_inbox();
        let to = SocketAddr::new(ip, inbox.local_addr().unwrap().port());
        let socket = segmenting(&a, to, 1201);
        let content: Vec<u8> = (0..1201 * 40 + 17).map(|at| (at % 253) as u8).collect();
        let (sent, received) = (a.sent_packets(), received_packets(&b));
        assert_eq!(socket.send_to(&content, to).unwrap(), content.len());
        for datagram in content.chunks(1201) {
            let mut buffer = [0; 2048];
            let len = inbox.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], datagram);
        }
        let (sent, received) = (a.sent_packets() - sent, received_packets(&b) - received);
        assert!(sent < 41 && received < 41, "of 41, {sent} were read and {received} written by themselves");
    }
    assert_nothing_lost(&b);
}

#[test]
fn what_a_link_or_the_underlay_does_not_take_is_counted_each() {
    let (a, b) = pair();
    assert!(a.udp_echo(&b, b.inner_v4(), b"a session is there"));
    let to = SocketAddr::new(b.inner_v4(), 9);
    let socket = segmenting(&a, to, 1000);
    let drops = |host: &Host| host.device().drops().unwrap();

    link::set_down(&b.inside, "wg0").unwrap();
    socket.send_to(&[7; 30_000], to).unwrap();
    eventually("the link to take none of 30", || drops(&b).link == 30);

    a.underlay_ip(&["link", "set", "eth0", "down"]);
    socket.send_to(&[7; 30_000], to).unwrap();
    // A keepalive or a handshake may come to them.
    eventually("the underlay to take none of 30", || (30..35).contains(&drops(&a).underlay));
}

#[test]
fn streams_in_both_directions_at_once() {
    let (a, b) = pair();
    thread::scope(|scope| {
        for n in 0..8 {
            let (from, to) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
            let ip = if n < 4 { to.inner_v4() } else { to.inner_v6() };
            scope.spawn(move || assert_eq!(from.tcp_transfer(to, ip, 4 * MIB), 4 * MIB));
        }
    });
    assert_nothing_lost(&a);
    assert_nothing_lost(&b);
}

fn ping(host: &Host, to: IpAddr, size: u32) -> bool {
    let command =
        || Command::new("ping").args(["-c1", "-W20", "-s", &size.to_string(), &to.to_string()]).output();
    host.inside.run(command).unwrap().expect("needs ping (iputils-ping)").status.success()
}

#[test]
fn echoes_of_every_size() {
    let (a, b) = pair();
    for to in [b.inner_v4(), b.inner_v6()] {
        // None, odd, about the MTU, in fragments.
        for size in [0, 57, 1372, 1373, 1392, 1393, 9001, 65_000] {
            assert!(ping(&a, to, size), "{size} bytes to {to}");
        }
    }
    assert_nothing_lost(&a);
}

#[test]
fn every_mtu() {
    let (a, b) = pair();
    // Larger than the underlay's: its datagrams are fragmented, which no run can be.
    for mtu in [9000, 1500, 1419, 1281, 577, 68] {
        for host in [&a, &b] {
            link::set_mtu(&host.inside, "wg0", mtu).unwrap();
        }
        let bytes = if mtu > 1000 { 4 * MIB } else { MIB / 2 };
        assert_eq!(a.tcp_transfer(&b, b.inner_v4(), bytes), bytes, "MTU {mtu}");
        // Less is not enough for IPv6, and the kernel turns it off.
        if mtu > 1280 {
            assert_eq!(b.tcp_transfer(&a, a.inner_v6(), bytes), bytes, "MTU {mtu}");
        }
    }
    assert_nothing_lost(&a);
    assert_nothing_lost(&b);
}
