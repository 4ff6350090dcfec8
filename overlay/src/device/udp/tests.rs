//! A socket that is full, behind a slow link. Needs root.

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{setsockopt, sockopt},
};

use super::*;
use crate::{Netns, link};

const DATAGRAMS: usize = 600;
const LEN: usize = 1400;

/// A socket in one namespace, and one in another to which datagrams go by a link of 20 Mbit/s.
fn slow_link() -> (Udp, UdpSocket, Way) {
    let [here, there] = [1, 2].map(|_| Arc::new(Netns::create().expect("needs root")));
    link::add_veth(&here, "eth0", &there, "eth0").unwrap();
    for (netns, address) in [(&here, "192.0.2.1/24"), (&there, "192.0.2.2/24")] {
        link::add_address(netns, "eth0", address.parse().unwrap()).unwrap();
        link::set_up(netns, "eth0").unwrap();
    }
    let shaped = here.run(|| {
        let arguments = "qdisc add dev eth0 root tbf rate 20mbit burst 70kb latency 1s";
        Command::new("tc").args(arguments.split(' ')).status()
    });
    assert!(shaped.unwrap().unwrap().success(), "tc");
    let to = there.run(|| UdpSocket::bind("192.0.2.2:0").unwrap()).unwrap();
    let udp = here.run(|| Udp::bind(0).unwrap()).unwrap();
    setsockopt(udp.sender.socket(), sockopt::SndBuf, &(128 << 10)).unwrap();
    setsockopt(&to, sockopt::RcvBufForce, &(8 << 20)).unwrap();
    let way = Way { remote: to.local_addr().unwrap(), local: None };
    (udp, to, way)
}

fn push(udp: &mut Udp, to: Way, number: usize) {
    udp.push(to, LEN, |room| {
        room.fill(0);
        room[..8].copy_from_slice(&number.to_be_bytes());
    });
}

#[test]
fn what_finds_no_room_waits_in_its_order_and_nothing_is_lost_by_who_heeds_it() {
    let (mut udp, to, way) = slow_link();
    udp.wait_never();
    let began = Instant::now();
    let mut was_full = 0;
    for number in 0..DATAGRAMS {
        push(&mut udp, way, number);
        while udp.is_full() {
            was_full += 1;
            let mut room = [PollFd::new(udp.sender.socket().as_fd(), PollFlags::POLLOUT)];
            assert_eq!(poll(&mut room, PollTimeout::from(10_000_u16)), Ok(1), "no room for 10 s");
            udp.flush();
        }
    }
    udp.flush();
    assert!(was_full > 0, "sent in {:?}", began.elapsed());
    to.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut buffer = [0; LEN + 1];
    for number in 0..DATAGRAMS {
        assert_eq!(to.recv(&mut buffer).unwrap(), LEN);
        assert_eq!(&buffer[..8], number.to_be_bytes());
    }
    assert_eq!(udp.failed(), 0);
}

#[test]
fn who_does_not_heed_it_loses_what_is_beyond_the_bound_and_that_is_counted() {
    let (mut udp, _to, way) = slow_link();
    udp.wait_never();
    (0..10 * DATAGRAMS).for_each(|number| push(&mut udp, way, number));
    assert!(udp.is_full() && udp.failed() > DATAGRAMS as u64);
}
