//! A stack that stands for others, as one must to whom a default route leads.

#![allow(clippy::unwrap_used, reason = "clippy knows only functions marked #[test] as tests")]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "virtual/net.rs"]
mod net;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "virtual/packet.rs"]
mod packet;

use std::net::SocketAddr;

use lattice_netstack::{Event, Run};
use net::{Conditions, Net, PORT, address};
use packet::{ACK, RST, SYN, Tcp};

/// Gives B a packet; returns what it answers at once.
fn give(net: &mut Net, mut packet: Vec<u8>) -> Vec<Vec<u8>> {
    let mut answers = Vec::new();
    net.stacks[1].receive(net.now, &mut packet, &mut |run: &mut Run<'_>| {
        while let Some(len) = run.next_len() {
            let mut answer = vec![0; len];
            run.write(&mut answer);
            answers.push(answer);
        }
    });
    answers
}

fn segment(from: &str, flags: u8) -> Tcp {
    let to = SocketAddr::new(address(1, false), PORT);
    let (sequence, acknowledgement, window) = (1000, 0, 1000);
    Tcp { from: from.parse().unwrap(), to, sequence, acknowledgement, flags, window, payload: Vec::new() }
}

#[test]
fn one_who_stands_for_others_answers_in_their_names_and_only_as_the_owner_says() {
    for (host, agent, from) in
        [("203.0.113.9:81", "10.42.0.7:4711", "10.42.0.7"), ("[2001:db8::9]:81", "[fd00::7]:4711", "fd00::7")]
    {
        let mut net = Net::new(1, Conditions::default());
        let host: SocketAddr = host.parse().unwrap();
        let syn = |port: u16| {
            let mut syn = segment(agent, SYN);
            (syn.to, syn.from) = (host, SocketAddr::new(syn.from.ip(), port));
            syn.packet()
        };
        assert!(give(&mut net, syn(1)).is_empty(), "it is not its address");
        net.stacks[1].stand_for_others();
        let mut asked = |port| {
            assert!(give(&mut net, syn(port)).is_empty(), "nothing before the owner has said so");
            let event = net.stacks[1].poll_event();
            let Some(Event::Incoming { id, remote, local }) = event else { panic!("{event:?}") };
            assert_eq!((local, remote.ip(), remote.port()), (host, from.parse().unwrap(), port));
            id
        };
        let ids = [2, 3, 4].map(&mut asked);
        let now = net.now;
        let mut answers: Vec<Vec<u8>> = Vec::new();
        let mut out = |run: &mut Run<'_>| {
            while let Some(len) = run.next_len() {
                answers.push(vec![0; len]);
                run.write(answers.last_mut().unwrap());
            }
        };
        net.stacks[1].accept(now, ids[0], &mut out).unwrap();
        net.stacks[1].poll(now, &mut out);
        net.stacks[1].refuse(ids[1], &mut out);
        net.stacks[1].refuse_as_unreachable(ids[2], &mut out);
        let [accepted, refused, unreachable] = &answers[..] else { panic!("{}", answers.len()) };
        let (accepted, refused) = (Tcp::read(accepted).unwrap(), Tcp::read(refused).unwrap());
        assert_eq!((accepted.from, accepted.to.port(), accepted.flags), (host, 2, SYN | ACK));
        assert_eq!((refused.from, refused.to.port(), refused.flags & RST), (host, 3, RST));
        let quoted = syn(4);
        let (head, code) = if host.is_ipv4() { (20, [3, 1]) } else { (40, [1, 3]) };
        assert_eq!(&unreachable[head..head + 2], &code);
        // The addresses, and the ports and sequence number of the SYN.
        assert_eq!(unreachable[head + 8 + head - 8..][..16], quoted[head - 8..][..16]);
    }
}
