//! Devices find paths through NATs of the kernel's own: with the kernel's WireGuard where there is one, as in the virtual machines that
//! run these tests, and in user space. Needs root and nft.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy knows only functions marked #[test] as tests"
)]

mod lab;

use std::time::Instant;

use lab::{HANGS, Host, Nat, World, acquaint, eventually, next, reaches};
use lattice_overlay::{
    BackendChoice::{Auto, UserSpace},
    Path,
};

fn is_relayed(host: &Host) -> bool {
    let (path, endpoint) = host.path();
    matches!(path.path, Some(Path::Relay { .. })) && endpoint.is_none()
}

fn is_direct(host: &Host, to: &Host) -> bool {
    let (path, endpoint) = host.path();
    let ip = |at: std::net::SocketAddr| at.ip() == std::net::IpAddr::from(to.outer);
    path.path.and_then(|path| path.remote()).is_some_and(ip) && endpoint.is_some_and(ip)
}

#[test]
fn a_relay_is_left_for_a_direct_path_without_a_loss_taken_when_it_dies_and_left_again() {
    let world = World::new();
    let a = Host::behind(&world, 1, Nat::Cone, Auto);
    let mut b = Host::behind(&world, 2, Nat::Cone, Auto);
    let sockets = [&a.socket(), &b.socket()];
    let [at_a, at_b] = sockets;
    a.cut(&b);
    acquaint(&a, &b);
    reaches(at_a, at_b);
    eventually("the relay", sockets, || is_relayed(&a) && is_relayed(&b));
    let mut stream = a.connect(&b);
    a.fills(&mut stream, true);
    assert!(a.path().0.why_not_direct.is_some() && a.path().0.rtt.is_some(), "{:?}", a.path());

    // Numbered datagrams both ways while the path changes: each arrives once.
    a.heal();
    let mut number = 0_u32;
    let mut numbers = || {
        for (from, to) in [(at_a, at_b), (at_b, at_a)] {
            number += 1;
            from.send_to(&number.to_be_bytes(), to.local_addr().unwrap()).unwrap();
            assert_eq!(next(to), number.to_be_bytes());
        }
    };
    let begun = Instant::now();
    while !(is_direct(&a, &b) && is_direct(&b, &a)) {
        assert!(begun.elapsed() < HANGS, "{:?} {:?}", a.path(), b.path());
        numbers();
    }
    (0..100).for_each(|_| numbers());
    a.fills(&mut stream, false);
    a.fills(&mut a.connect(&b), false);

    b.cut(&a);
    eventually("the relay in its place", sockets, || is_relayed(&a) && is_relayed(&b));
    reaches(at_a, at_b);
    reaches(at_b, at_a);
    a.fills(&mut stream, true);
    b.heal();
    eventually("the direct path", sockets, || is_direct(&a, &b) && is_direct(&b, &a));
    a.fills(&mut stream, false);
    b.renumber(&world);
    eventually("the new address", sockets, || is_direct(&a, &b) && is_direct(&b, &a));
    reaches(at_a, at_b);
    reaches(at_b, at_a);
}

/// One of them is in user space in any case.
#[test]
fn two_symmetric_nats_leave_the_relay_and_it_is_said_why() {
    let world = World::new();
    let a = Host::behind(&world, 1, Nat::Symmetric, Auto);
    let b = Host::behind(&world, 2, Nat::Symmetric, UserSpace);
    let sockets = [&a.socket(), &b.socket()];
    acquaint(&a, &b);
    reaches(sockets[0], sockets[1]);
    reaches(sockets[1], sockets[0]);
    eventually("the reason", sockets, || {
        let why = |host: &Host| host.path().0.why_not_direct.unwrap_or_default();
        is_relayed(&a) && is_relayed(&b) && why(&a).contains("symmetric") && why(&b).contains("symmetric")
    });
}
