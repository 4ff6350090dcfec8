//! WireGuard devices against each other and against wireguard-go, in anonymous network namespaces. Needs root.

#![allow(clippy::unwrap_used, reason = "clippy knows only functions marked #[test] as tests")]

#[path = "devices/host.rs"]
mod host;
#[allow(dead_code, reason = "the benchmark uses the rest")]
#[path = "devices/wireguard_go.rs"]
mod wireguard_go;

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use host::{Host, eventually, join, pair};
use lattice_overlay::{BackendChoice, DeviceError, PeerConfig, create, endpoints, link};
use lattice_wire::WgPrivateKey;
use nix::errno::Errno;
use wireguard_go::WireGuardGo;

#[test]
fn tcp_and_udp_through_two_devices() {
    let (a, b) = pair();
    for to in [b.inner_v4(), b.inner_v6()] {
        assert_eq!(a.tcp_transfer(&b, to, 4 << 20), 4 << 20);
    }
    assert!(a.udp_echo(&b, b.inner_v4(), &[7; 1300]));
    let status = &a.device().peers().unwrap()[0];
    assert_eq!(status.endpoint, Some(b.endpoint()));
    assert!(status.last_handshake.unwrap().elapsed().unwrap() < Duration::from_secs(60));
    assert!(status.tx_bytes > 8 << 20 && status.rx_bytes > 0, "{status:?}");
    let drops = a.device().drops().unwrap();
    assert_eq!((drops.wrong_source, drops.unauthenticated, drops.malformed), (0, 0, 0), "{drops:?}");
}

#[test]
fn keepalive_connects_without_traffic_and_past_a_dead_candidate() {
    let (a, b) = join(Host::new(1), Host::new(2));
    let dead = "192.0.2.99:51820".parse().unwrap();
    a.set_peers(&[PeerConfig { endpoints: vec![dead, b.endpoint()], keepalive: Some(25), ..b.config() }]);
    b.set_peers(&[PeerConfig { endpoints: vec![], ..a.config() }]);
    eventually("a handshake", || a.has_handshake() && b.has_handshake());
    assert_eq!(b.device().peers().unwrap()[0].endpoint, Some(a.endpoint()));
}

#[test]
fn a_peer_that_learns_of_us_late_is_not_waited_for_until_wireguard_retries() {
    let handshake = || {
        let (a, b) = join(Host::new(1), Host::new(2));
        let began = Instant::now();
        a.set_peers(&[PeerConfig { keepalive: Some(25), ..b.config() }]);
        eventually("the first initiation", || b.device().drops().unwrap().handshake_refused > 0);
        thread::sleep(Duration::from_millis(300));
        b.set_peers(&[PeerConfig { endpoints: vec![], ..a.config() }]);
        eventually("a handshake", || a.has_handshake() && b.has_handshake());
        began.elapsed()
    };
    // WireGuard's retry never comes before 5 s: once sooner is proof. A busy machine may be as slow as that by itself.
    let sooner = (0..5).any(|_| handshake() < Duration::from_millis(4500));
    assert!(sooner, "every handshake waited for the retry");
}

#[test]
fn a_link_says_nothing_unasked() {
    let (a, _b) = pair();
    // Router solicitations would begin within a second.
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(a.sent_packets(), 0);
    let addresses = link::addresses(&a.inside).unwrap();
    let on_wg0: Vec<_> = addresses.iter().filter(|(name, _)| name == "wg0").map(|(_, ip)| *ip).collect();
    assert_eq!(on_wg0, [a.inner_v4(), a.inner_v6()]);
    a.udp_send("10.42.0.99".parse().unwrap(), b"asked");
    // By the TUN device's count, which is of what its reader has taken.
    eventually("what is sent to be counted", || a.sent_packets() == 1);
}

#[test]
fn a_peer_removed_is_unreachable_at_once_and_says_nothing_more() {
    let (a, b) = pair();
    assert!(a.udp_echo(&b, b.inner_v4(), b"before"));
    a.set_peers(&[]);
    let refused = a.tcp_connect(b.inner_v4()).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(Errno::EHOSTUNREACH as i32), "{refused}");
    let refused = a.tcp_connect(b.inner_v6()).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(Errno::EHOSTUNREACH as i32), "{refused}");

    let before = a.device().drops().unwrap();
    b.udp_send(a.inner_v4(), b"is anybody there");
    eventually("the datagram to be dropped", || {
        let drops = a.device().drops().unwrap();
        drops.unknown_peer + drops.handshake_refused > before.unknown_peer + before.handshake_refused
    });
}

#[test]
fn an_inner_source_the_peer_does_not_own_is_dropped() {
    let (a, b) = pair();
    assert!(a.udp_echo(&b, b.inner_v4(), b"before"));
    let inbox = b.udp_inbox();
    let stolen = "10.42.0.77".parse().unwrap();
    link::add_address(&a.inside, "wg0", ipnet::IpNet::new(stolen, 32).unwrap()).unwrap();
    let to = SocketAddr::new(b.inner_v4(), inbox.local_addr().unwrap().port());
    let send_from = |source: SocketAddr, payload: &[u8]| {
        a.inside.run(|| UdpSocket::bind(source).unwrap().send_to(payload, to).unwrap()).unwrap();
    };
    send_from(SocketAddr::new(stolen, 0), b"forged");
    send_from(SocketAddr::new(a.inner_v4(), 0), b"honest");
    let mut buffer = [0; 16];
    let len = inbox.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"honest");
    assert_eq!(b.device().drops().unwrap().wrong_source, 1);
}

#[test]
fn another_key_gets_no_session() {
    let (a, b) = join(Host::new(1), Host::new(2));
    let other = WgPrivateKey::from_random([99; 32]).public();
    a.set_peers(&[PeerConfig { keepalive: Some(25), ..b.config() }]);
    b.set_peers(&[PeerConfig { public_key: other, ..a.config() }]);
    eventually("the initiation to be dropped", || b.device().drops().unwrap().unknown_peer > 0);
    assert!(!a.has_handshake() && !b.has_handshake());

    a.set_peers(&[PeerConfig { public_key: other, keepalive: Some(25), ..b.config() }]);
    eventually("the initiation to be refused", || b.device().drops().unwrap().handshake_refused > 0);
    assert!(!a.has_handshake() && !b.has_handshake());
}

#[test]
fn a_peer_that_moves_is_followed() {
    let (a, b) = pair();
    assert!(b.udp_echo(&a, a.inner_v4(), b"before"));
    b.underlay_ip(&["address", "del", "192.0.2.2/24", "dev", "eth0"]);
    b.underlay_ip(&["address", "add", "192.0.2.102/24", "dev", "eth0"]);
    let moved = SocketAddr::from(([192, 0, 2, 102], b.device().listen_port()));
    eventually("a to hear b from its new address", || {
        b.udp_send(a.inner_v4(), b"here I am");
        a.device().peers().unwrap()[0].endpoint == Some(moved)
    });
    assert!(a.udp_echo(&b, b.inner_v4(), b"after"));
}

#[test]
fn answers_leave_by_the_address_that_was_asked() {
    let (a, b) = join(Host::new(1), Host::new(2));
    b.underlay_ip(&["address", "add", "192.0.2.102/24", "dev", "eth0"]);
    b.underlay_ip(&["-6", "address", "add", "2001:db8::2/64", "dev", "eth0", "nodad"]);
    b.underlay_ip(&["-6", "address", "add", "2001:db8::102/64", "dev", "eth0", "nodad"]);
    a.underlay_ip(&["-6", "address", "add", "2001:db8::1/64", "dev", "eth0", "nodad"]);
    a.bring_up();
    b.bring_up();
    b.set_peers(&[PeerConfig { endpoints: vec![], ..a.config() }]);
    for ip in ["192.0.2.102", "2001:db8::102", "2001:db8::2"] {
        let asked = SocketAddr::new(ip.parse().unwrap(), b.device().listen_port());
        a.set_peers(&[]);
        a.set_peers(&[PeerConfig { endpoints: vec![asked], ..b.config() }]);
        assert!(a.udp_echo(&b, b.inner_v4(), b"hello"), "{asked}");
        assert_eq!(a.tcp_transfer(&b, b.inner_v4(), 1 << 20), 1 << 20, "in runs as well");
        assert_eq!(a.device().peers().unwrap()[0].endpoint, Some(asked), "it would have followed an answer");
    }
}

#[test]
fn the_socket_is_in_the_underlay_and_the_link_inside() {
    let a = Host::new(1);
    let names = |netns| link::links(netns).unwrap().into_iter().map(|link| link.name).collect::<Vec<_>>();
    assert_eq!(names(&a.inside), ["lo", "wg0"]);
    assert!(!names(&a.underlay).contains(&"wg0".into()));
    let wg0 = link::links(&a.inside).unwrap().into_iter().find(|link| link.name == "wg0").unwrap();
    assert!(wg0.tunnel && !wg0.ethernet && !wg0.up);

    let port = a.device().listen_port();
    let sockets = |netns: &lattice_overlay::Netns| {
        let table = netns.run(|| std::fs::read_to_string("/proc/thread-self/net/udp6").unwrap()).unwrap();
        table.matches(&format!(":{port:04X} ")).count()
    };
    assert_eq!((sockets(&a.underlay), sockets(&a.inside)), (1, 0));
}

#[test]
fn endpoints_are_the_underlays_addresses() {
    let (a, _b) = join(Host::new(1), Host::new(2));
    assert_eq!(endpoints(&a.underlay, 7).unwrap(), ["192.0.2.1:7".parse().unwrap()]);
}

#[test]
fn a_taken_port_is_replaced_and_a_taken_name_refused() {
    let a = Host::new(1);
    let mut config = a.device_config();
    config.listen_port = a.device().listen_port();
    config.name = "wg1".into();
    let second = create(config, BackendChoice::UserSpace).unwrap();
    assert_ne!(second.listen_port(), a.device().listen_port());

    let taken = create(a.device_config(), BackendChoice::UserSpace).unwrap_err();
    assert!(matches!(taken, DeviceError::Taken(ref name) if name == "wg0"), "{taken}");
    let mut config = a.device_config();
    config.name = "../wg0".into();
    assert!(matches!(create(config, BackendChoice::Auto), Err(DeviceError::Name(_))));
}

#[test]
fn dropping_a_device_removes_its_link_port_and_thread() {
    let mut a = Host::named(1, "wgdrop");
    let threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|name| name.trim() == "wgdrop").count()
    };
    let port = a.device().listen_port();
    eventually("the thread to take its name", || threads() == 1);
    a.drop_device();
    eventually("the thread to end", || threads() == 0);
    assert!(link::links(&a.inside).unwrap().iter().all(|link| link.name == "lo"));
    assert!(a.underlay.run(|| UdpSocket::bind(("::", port))).unwrap().is_ok());
}

#[test]
fn a_device_whose_link_is_deleted_says_so() {
    let a = Host::new(1);
    link::delete(&a.inside, "wg0").unwrap();
    eventually("the device to stop", || matches!(a.device().peers(), Err(DeviceError::Stopped(_))));
    let stopped = a.device().set_peers(&[]).unwrap_err();
    assert!(stopped.to_string().contains("wg0"), "{stopped}");
}

#[test]
fn the_kernel_backend_is_refused_where_the_kernel_has_none() {
    if lattice_overlay::kernel_has_wireguard() {
        return;
    }
    let a = Host::new(1);
    let mut config = a.device_config();
    config.name = "wg1".into();
    let refused = create(config, BackendChoice::Kernel).unwrap_err();
    assert!(matches!(refused, DeviceError::NoKernelWireGuard), "{refused}");
}

#[test]
fn wireguard_go_as_responder_and_as_initiator() {
    for we_begin in [true, false] {
        let (ours, go) = join(Host::new(1), Host::without_device(2));
        let go = WireGuardGo::start(go);
        go.set_peer(&ours, if we_begin { None } else { Some(ours.endpoint()) });
        let endpoints = if we_begin { vec![go.endpoint()] } else { vec![] };
        ours.set_peers(&[PeerConfig { endpoints, keepalive: None, ..go.config() }]);
        go.bring_up();
        ours.bring_up();
        let (first, second) = if we_begin { (&ours, &go.host) } else { (&go.host, &ours) };
        assert!(first.udp_echo(second, second.inner_v4(), b"hello"));
        assert!(second.udp_echo(first, first.inner_v4(), b"hello back"));
        assert_eq!(first.tcp_transfer(second, second.inner_v4(), 1 << 20), 1 << 20);
        assert_eq!(second.tcp_transfer(first, first.inner_v4(), 1 << 20), 1 << 20);
        assert!(ours.has_handshake());
        let drops = ours.device().drops().unwrap();
        assert_eq!((drops.unauthenticated, drops.malformed, drops.wrong_source), (0, 0, 0), "{drops:?}");
    }
}
