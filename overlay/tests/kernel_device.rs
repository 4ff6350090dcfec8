//! The kernel's WireGuard behind the same interface, against itself and against our own, in anonymous network
//! namespaces. Needs root and a kernel with WireGuard: the tests in virtual machines (`tests/vm`) run it on two.

#![allow(clippy::unwrap_used, reason = "clippy knows only functions marked #[test] as tests")]

#[allow(dead_code, reason = "the tests of the user-space device use the rest")]
#[path = "devices/host.rs"]
mod host;

use std::net::{SocketAddr, UdpSocket};

use host::{Host, eventually, join};
use lattice_overlay::{Backend, BackendChoice, DeviceError, Netns, PeerConfig, create, link};
use nix::errno::Errno;

/// Skips the calling test where there is nothing to test.
macro_rules! needs_kernel_wireguard {
    () => {
        if !lattice_overlay::kernel_has_wireguard() {
            println!("SKIPPED: kernel WireGuard: this kernel has none; the virtual machines' have");
            return;
        }
    };
}

const DEAD: &str = "192.0.2.99:51820";

fn host(number: u8) -> Host {
    Host::with_backend(number, "wg0", BackendChoice::Kernel)
}

fn know_each_other(a: &Host, b: &Host) {
    for (host, other) in [(a, b), (b, a)] {
        host.set_peers(&[other.config()]);
        host.bring_up();
    }
}

fn names(netns: &Netns) -> Vec<String> {
    let mut names: Vec<_> = link::links(netns).unwrap().into_iter().map(|link| link.name).collect();
    names.sort();
    names
}

#[test]
fn tcp_and_udp_between_two_kernels_and_between_a_kernel_and_ours() {
    needs_kernel_wireguard!();
    for other in [BackendChoice::Kernel, BackendChoice::UserSpace] {
        let (a, b) = join(host(1), Host::with_backend(2, "wg0", other));
        know_each_other(&a, &b);
        assert_eq!(a.device().backend(), Backend::Kernel);
        for to in [b.inner_v4(), b.inner_v6()] {
            assert_eq!(a.tcp_transfer(&b, to, 1 << 18), 1 << 18, "{other:?}");
        }
        assert!(b.udp_echo(&a, a.inner_v4(), &[7; 1300]));
        let status = &a.device().peers().unwrap()[0];
        assert_eq!(status.endpoint, Some(b.endpoint()));
        assert!(
            status.last_handshake.is_some() && status.tx_bytes > 1 << 19 && status.rx_bytes > 0,
            "{status:?}"
        );
        let drops = a.device().drops().unwrap();
        assert_eq!((drops.malformed, drops.underlay), (0, 0), "{drops:?}");
    }
}

#[test]
fn the_socket_is_in_the_underlay_and_the_link_inside() {
    needs_kernel_wireguard!();
    let mut a = host(1);
    assert_eq!((names(&a.inside), names(&a.underlay)), (vec!["lo".into(), "wg0".into()], vec!["lo".into()]));
    let wg0 = link::links(&a.inside).unwrap().into_iter().find(|link| link.name == "wg0").unwrap();
    assert!(wg0.tunnel && !wg0.ethernet && !wg0.up);
    a.bring_up();
    let port = a.device().listen_port();
    let free = |netns: &Netns| netns.run(|| UdpSocket::bind(("0.0.0.0", port))).unwrap().is_ok();
    assert_eq!((free(&a.underlay), free(&a.inside)), (false, true));
    a.drop_device();
    assert_eq!(names(&a.inside), ["lo"]);
    assert!(free(&a.underlay));
}

#[test]
fn keepalive_connects_without_traffic_and_past_dead_candidates() {
    needs_kernel_wireguard!();
    let (a, b) = join(host(1), host(2));
    let dead: SocketAddr = DEAD.parse().unwrap();
    let endpoints = vec![dead, "127.0.0.1:9".parse().unwrap(), b.endpoint()];
    let wanted = [PeerConfig { endpoints, keepalive: Some(25), ..b.config() }];
    a.set_peers(&wanted);
    b.set_peers(&[PeerConfig { endpoints: vec![], ..a.config() }]);
    a.bring_up();
    b.bring_up();
    eventually("a handshake", || a.has_handshake() && b.has_handshake());
    assert_eq!(b.device().peers().unwrap()[0].endpoint, Some(a.endpoint()));
    assert!(a.udp_echo(&b, b.inner_v4(), b"through"));
    a.set_peers(&wanted);
    assert_eq!(a.device().peers().unwrap()[0].endpoint, Some(b.endpoint()), "what works is kept");
}

#[test]
fn a_peer_removed_is_unreachable_at_once() {
    needs_kernel_wireguard!();
    let (a, b) = join(host(1), host(2));
    know_each_other(&a, &b);
    assert!(a.udp_echo(&b, b.inner_v4(), b"before"));
    a.set_peers(&[]);
    for to in [b.inner_v4(), b.inner_v6()] {
        let refused = a.tcp_connect(to).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(Errno::EHOSTUNREACH as i32), "{refused}");
    }
    a.set_peers(&[b.config()]);
    assert!(a.udp_echo(&b, b.inner_v4(), b"and back"));
}

#[test]
fn a_taken_port_is_replaced_and_a_taken_name_refused() {
    needs_kernel_wireguard!();
    let a = host(1);
    let port = a.underlay.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    let mut config = a.device_config();
    config.listen_port = port.local_addr().unwrap().port();
    config.name = "wg1".into();
    let second = create(config, BackendChoice::Kernel).unwrap();
    assert_ne!(second.listen_port(), port.local_addr().unwrap().port());
    assert_ne!(second.listen_port(), 0);

    let taken = create(a.device_config(), BackendChoice::Kernel).unwrap_err();
    assert!(matches!(taken, DeviceError::Taken(ref name) if name == "wg0"), "{taken}");
    assert_eq!(names(&a.underlay), ["lo"], "a link that was refused is removed");
}

#[test]
fn a_device_whose_link_is_deleted_says_so() {
    needs_kernel_wireguard!();
    let a = host(1);
    link::delete(&a.inside, "wg0").unwrap();
    assert!(matches!(a.device().peers(), Err(DeviceError::Stopped(_))));
    let stopped = a.device().set_peers(&[a.config()]).unwrap_err();
    assert!(matches!(stopped, DeviceError::Stopped(_)), "{stopped}");
    assert_eq!(names(&a.inside), ["lo"], "it is not made anew");
}
