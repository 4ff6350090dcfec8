//! UDP and echoes between two stacks.

#![allow(clippy::unwrap_used, reason = "clippy knows only functions marked #[test] as tests")]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "virtual/net.rs"]
mod net;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "virtual/packet.rs"]
mod packet;

use std::{net::SocketAddr, time::Duration};

use lattice_netstack::{Error, Event, Limits, Run};
use net::{Conditions, Net, address};

fn send(net: &mut Net, from: usize, port: u16, to: SocketAddr, payload: &[u8]) -> Result<(), Error> {
    net.with_stack(from, |stack, now, mut out| stack.send_to(now, port, to, payload, &mut out))
}

#[test]
fn datagrams_arrive_each_with_its_sender() {
    let mut net = Net::new(1, Conditions::default());
    let port = net.stacks[0].bind_udp(0).unwrap();
    assert!(port >= 32_768);
    assert_eq!(net.stacks[1].bind_udp(53), Ok(53));
    assert_eq!(net.stacks[1].bind_udp(53), Err(Error::PortTaken(53)));
    for v6 in [false, true] {
        let to = SocketAddr::new(address(1, v6), 53);
        let longest = 1420 - if v6 { 48 } else { 28 };
        for len in [0, 1, 1000, longest] {
            send(&mut net, 0, port, to, &vec![len as u8; len]).unwrap();
        }
        assert_eq!(
            send(&mut net, 0, port, to, &vec![0; longest + 1]),
            Err(Error::TooLong { len: longest + 1, most: longest })
        );
        net.until("B is told", |net| net.was_told(1, Event::Datagrams { port: 53 }));
        net.run(Duration::from_secs(1));
        assert!(net.events[1].is_empty(), "it is told once: {:?}", net.events[1]);
        let mut buffer = [0; 2000];
        for len in [0, 1, 1000, longest] {
            let got = net.stacks[1].recv_from(53, &mut buffer).unwrap();
            assert_eq!(
                (got.remote, got.local, got.len),
                (SocketAddr::new(address(0, v6), port), to.ip(), len)
            );
            assert!(buffer[..len].iter().all(|byte| *byte == len as u8));
        }
        assert_eq!(net.stacks[1].recv_from(53, &mut buffer), None);
    }
    net.stacks[1].close_udp(53);
    assert_eq!(
        send(&mut net, 1, 53, SocketAddr::new(address(0, false), port), b""),
        Err(Error::NotBound(53))
    );
}

#[test]
fn a_reader_that_does_not_come_costs_its_bound() {
    let limits = Limits { datagrams: 10_000, udp_sockets: 1, ..Limits::default() };
    let mut net = Net::with(1, Conditions::default(), 1420, [limits; 2]);
    net.stacks[0].bind_udp(9).unwrap();
    net.stacks[1].bind_udp(9).unwrap();
    assert!(matches!(net.stacks[1].bind_udp(10), Err(Error::Limit(_))));
    let to = SocketAddr::new(address(1, false), 9);
    for number in 0..1000_u16 {
        send(&mut net, 0, 9, to, &number.to_be_bytes()).unwrap();
    }
    net.run(Duration::from_secs(1));
    let mut read = 0_u16;
    let mut buffer = [0; 1];
    while let Some(datagram) = net.stacks[1].recv_from(9, &mut buffer) {
        assert_eq!((datagram.len, buffer[0]), (2, (read >> 8) as u8), "the oldest are kept, in order");
        read += 1;
    }
    assert_eq!(u64::from(1000 - read), net.stacks[1].drops().datagrams);
    assert!((200..300).contains(&read), "{read} were kept");
}

#[test]
fn nobody_listens_is_answered_in_bounds() {
    let mut net = Net::new(1, Conditions::default());
    net.stacks[0].bind_udp(9).unwrap();
    for v6 in [false, true] {
        let before = net.packets;
        for _ in 0..1000 {
            send(&mut net, 0, 9, SocketAddr::new(address(1, v6), 10), &[7; 900]).unwrap();
        }
        net.run(Duration::from_millis(1));
        let answers = net.packets - before - 1000;
        assert!((1..=51).contains(&answers), "{answers} answers");
        net.run(Duration::from_secs(10));
    }
}

#[test]
fn echoes_are_answered_whole() {
    let mut net = Net::new(1, Conditions::default());
    for (v6, request, answer) in [(false, 8, 0), (true, 128, 129)] {
        for len in [0, 56, 57, 1300] {
            let data: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let from = address(0, v6);
            let mut packet = packet::icmp(from, address(1, v6), [request, 0], 0x1234_0007, &data);
            let expected = packet::icmp(address(1, v6), from, [answer, 0], 0x1234_0007, &data);
            let mut answers = Vec::new();
            net.stacks[1].receive(net.now, &mut packet, &mut |run: &mut Run<'_>| {
                let mut packet = vec![0; run.next_len().unwrap()];
                run.write(&mut packet);
                answers.push(packet);
            });
            // But for what the sender may choose: "don't fragment", and with it the header's checksum.
            let at = if v6 { 0 } else { 12 };
            assert_eq!(answers[0][at..], expected[at..]);
            assert_eq!(answers.len(), 1);
        }
    }
}
