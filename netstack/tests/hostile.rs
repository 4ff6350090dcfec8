//! What peers send that mean harm: floods, guesses, and lies about the network.

#![allow(clippy::unwrap_used, reason = "clippy knows only functions marked #[test] as tests")]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "virtual/net.rs"]
mod net;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "virtual/packet.rs"]
mod packet;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use lattice_netstack::{Cause, Error, Event, FlowId, Limits, Run};
use net::{Conditions, Net, PORT, Stream, address, stack};
use packet::{ACK, FIN, RST, SYN, Tcp, icmp};

const MS: Duration = Duration::from_millis(1);

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

/// A made connection, and the last segment that A sent in it.
fn connected(v6: bool) -> (Net, [FlowId; 2], Tcp) {
    let mut net = Net::new(1, Conditions { delay: 5 * MS, ..Conditions::default() });
    let (tell, told) = std::sync::mpsc::channel();
    net.tap = Box::new(move |end, packet| {
        let _ = tell.send((end, packet.to_vec()));
        true
    });
    let flows = net.pair(v6);
    net.stacks[0].send(net.now, flows[0], b"hello").unwrap();
    net.run(Duration::from_secs(1));
    let last = told.try_iter().filter(|(end, _)| *end == 0).last().unwrap();
    let mut last = Tcp::read(&last.1).unwrap();
    last.sequence += last.payload.len() as u32;
    last.payload.clear();
    last.flags = ACK;
    (net, flows, last)
}

fn is_alive(net: &mut Net, [a, b]: [FlowId; 2]) -> bool {
    net.stacks[1].recv(b, &mut [0; 100]).ok();
    let mut up = Stream::new((0, a), (1, b), 10_000, 7);
    net.until("the stream arrives", |net| up.go_on(net));
    true
}

#[test]
fn nothing_is_answered_before_the_owner_decides() {
    let mut net = Net::new(1, Conditions::default());
    assert!(give(&mut net, segment("10.42.0.9:7", SYN).packet()).is_empty());
    assert!(give(&mut net, segment("10.42.0.9:7", SYN).packet()).is_empty(), "nor when it is repeated");
    net.poll();
    assert_eq!(net.events[1].len(), 1, "{:?}", net.events[1]);
    let Event::Incoming { remote, local, .. } = net.events[1][0] else { panic!("{:?}", net.events[1]) };
    assert_eq!((remote.to_string(), local.to_string()), ("10.42.0.9:7".into(), "10.42.0.2:80".into()));

    let id = net.incoming().unwrap();
    let mut answers = Vec::new();
    net.stacks[1].refuse(id, &mut |run: &mut Run<'_>| {
        let mut answer = vec![0; run.next_len().unwrap()];
        run.write(&mut answer);
        answers.push(Tcp::read(&answer).unwrap());
    });
    assert_eq!((answers[0].flags, answers[0].acknowledgement), (RST | ACK, 1001));

    give(&mut net, segment("10.42.0.9:8", SYN).packet());
    net.poll();
    let id = net.incoming().unwrap();
    net.stacks[1].ignore(id);
    let now = net.now;
    let gone = net.with_stack(1, |stack, _, mut out| stack.accept(now, id, &mut out));
    assert_eq!(gone, Err(Error::Ended));
}

#[test]
fn a_port_without_a_listener_is_refused_and_so_is_what_belongs_to_nothing() {
    let mut net = Net::new(1, Conditions::default());
    net.stacks[1].stop_listening(PORT);
    let a = net.connect(true);
    net.until("A is refused", |net| net.was_told(0, Event::Broken { flow: a, cause: Cause::Refused }));
    let mut stray = segment("10.42.0.9:7", ACK);
    stray.acknowledgement = 77;
    let answers = give(&mut net, stray.packet());
    assert_eq!(Tcp::read(&answers[0]).unwrap().sequence, 77);
    assert!(give(&mut net, segment("10.42.0.9:7", RST).packet()).is_empty(), "a reset is not answered");
}

#[test]
fn a_flood_of_requests_takes_its_bound_and_no_peer_takes_all() {
    let limits = Limits { half_open: 64, ..Limits::default() };
    let mut net = Net::with(1, Conditions::default(), 1420, [limits; 2]);
    let flood = |net: &mut Net, peer: u8, count: u16| {
        for port in 1..=count {
            let answers = give(net, segment(&format!("10.42.1.{peer}:{port}"), SYN).packet());
            assert!(answers.is_empty());
        }
        net.poll();
        net.events[1].drain(..).count()
    };
    assert_eq!(flood(&mut net, 1, 10_000), 16, "one peer gets a quarter");
    assert_eq!((2..=255).map(|peer| flood(&mut net, peer, 100)).sum::<usize>(), 48, "all get all");
    assert_eq!(net.stacks[1].drops().half_open, 10_000 - 16 + 254 * 100 - 48);
    // Nobody has decided; whoever asks later is heard.
    net.run(Duration::from_secs(30));
    net.pair(false);
}

#[test]
fn what_is_accepted_and_never_completed_is_bounded_and_ends() {
    let limits = Limits { half_open: 8, ..Limits::default() };
    let mut net = Net::with(1, Conditions::default(), 1420, [limits; 2]);
    for port in 1..100 {
        give(&mut net, segment(&format!("10.42.1.{port}:7"), SYN).packet());
        net.poll();
        if let Some(id) = net.incoming() {
            net.with_stack(1, |stack, now, mut out| stack.accept(now, id, &mut out)).unwrap();
        }
    }
    assert_eq!(net.stacks[1].flows(), 8);
    net.run(Duration::from_secs(30));
    assert_eq!(net.stacks[1].flows(), 0);
    let broken = net.events[1].iter().filter(|event| matches!(event, Event::Broken { .. })).count();
    assert_eq!(broken, 8, "{:?}", net.events[1]);
    net.pair(false);
}

#[test]
fn connections_that_are_made_are_not_half_open() {
    let limits = Limits { half_open: 4, ..Limits::default() };
    let mut net = Net::with(1, Conditions::default(), 1420, [Limits::default(), limits]);
    for _ in 0..20 {
        net.pair(false);
    }
    assert_eq!((net.stacks[1].flows(), net.stacks[1].drops().half_open), (20, 0));
}

#[test]
fn more_flows_than_may_be_are_refused_and_the_others_go_on() {
    let limits = Limits { flows: 3, ..Limits::default() };
    let mut net = Net::with(1, Conditions::default(), 1420, [Limits::default(), limits]);
    let flows: Vec<_> = (0..3).map(|_| net.pair(false)).collect();
    let a = net.connect(false);
    net.until("it is asked for", |net| {
        net.events[1].iter().any(|told| matches!(told, Event::Incoming { .. }))
    });
    let id = net.incoming().unwrap();
    let refused = net.with_stack(1, |stack, now, mut out| stack.accept(now, id, &mut out));
    assert!(matches!(refused, Err(Error::Limit(_))), "{refused:?}");
    net.until("A is refused", |net| net.was_told(0, Event::Broken { flow: a, cause: Cause::Refused }));
    assert!(flows.into_iter().all(|flows| is_alive(&mut net, flows)));
}

#[test]
fn a_reset_that_is_guessed_ends_nothing_and_the_right_one_does() {
    let (mut net, flows, last) = connected(false);
    for off in [1, 1000, 60_000, 1 << 30, u32::MAX] {
        let reset = Tcp { flags: RST, sequence: last.sequence.wrapping_add(off), ..last.clone() };
        let answers = give(&mut net, reset.packet());
        net.run(Duration::from_secs(1));
        if off <= 60_000 {
            let challenge = Tcp::read(&answers[0]).unwrap();
            assert_eq!((challenge.flags, challenge.acknowledgement), (ACK, last.sequence), "by {off}");
        } else {
            assert!(answers.is_empty(), "by {off}: it is answered outside the window");
        }
    }
    assert_eq!(net.stacks[1].drops().forged, 5);
    let many = Tcp { flags: RST, sequence: last.sequence + 1, ..last.clone() };
    let answers: usize = (0..1000).map(|_| give(&mut net, many.packet()).len()).sum();
    assert!(answers <= 1, "{answers} challenges at once");
    assert!(net.stacks[1].recv(flows[1], &mut [0; 10]).is_ok(), "it lives");

    give(&mut net, Tcp { flags: RST, ..last }.packet());
    let told = Event::Broken { flow: flows[1], cause: Cause::Reset };
    net.until("B is told", |net| net.was_told(1, told));
}

#[test]
fn a_request_in_a_connection_is_challenged_and_what_acknowledges_the_future_is_dropped() {
    let (mut net, flows, last) = connected(true);
    for sequence in [last.sequence, last.sequence + 50, 7] {
        let answers = give(&mut net, Tcp { flags: SYN, sequence, ..last.clone() }.packet());
        assert_eq!(Tcp::read(&answers[0]).unwrap().acknowledgement, last.sequence);
        net.run(Duration::from_secs(1));
    }
    for off in [1, 70_000, 1 << 31] {
        let acknowledgement = last.acknowledgement.wrapping_add(off);
        let forged = Tcp { acknowledgement, payload: b"evil".to_vec(), ..last.clone() };
        give(&mut net, forged.packet());
        net.run(Duration::from_secs(1));
    }
    assert_eq!(net.stacks[1].drops().forged, 6);
    let mut buffer = [0; 100];
    assert_eq!(net.stacks[1].recv(flows[1], &mut buffer), Ok(5));
    assert!(is_alive(&mut net, flows));
}

#[test]
fn a_lost_connection_is_found_by_its_challenge() {
    // A was started anew, and asks again by chance from the same port.
    let (mut net, flows, last) = connected(false);
    let now = net.now;
    net.stacks[0] = stack(0, 99, 1420, Limits::default(), now);
    let request = Tcp { flags: SYN, sequence: 5, acknowledgement: 0, ..last };
    net.put(0, vec![request.packet()]);
    let told = Event::Broken { flow: flows[1], cause: Cause::Reset };
    net.until("A's answer to the challenge ends it", |net| net.was_told(1, told));
}

#[test]
fn broken_packets_are_counted_and_nothing_else() {
    let (mut net, flows, last) = connected(false);
    let fin = Tcp { flags: FIN | ACK, ..last.clone() }.packet();
    for at in 0..fin.len() {
        for bit in 0..8 {
            let mut broken = fin.clone();
            broken[at] ^= 1 << bit;
            give(&mut net, broken);
        }
    }
    let drops = net.stacks[1].drops();
    let all = drops.malformed + drops.checksum + drops.not_ours;
    assert_eq!(all as usize, fin.len() * 8, "{drops:?}");
    assert!(is_alive(&mut net, flows));
    let elsewhere = Tcp { to: "10.42.0.3:80".parse().unwrap(), flags: SYN, ..last };
    assert!(give(&mut net, elsewhere.packet()).is_empty());
    assert_eq!(net.stacks[1].drops().not_ours, drops.not_ours + 1);
}

#[test]
fn ended_connections_are_remembered_in_bounds() {
    let limits = Limits { time_wait: 10, ..Limits::default() };
    let mut net = Net::with(1, Conditions { delay: MS, ..Conditions::default() }, 1420, [limits; 2]);
    let (tell, told) = std::sync::mpsc::channel();
    net.tap = Box::new(move |end, packet| {
        let _ = tell.send((end, packet.to_vec()));
        true
    });
    let mut last = Vec::new();
    for number in 0..30 {
        let [a, b] = net.pair(false);
        let mut up = Stream::new((0, a), (1, b), 100, number);
        let mut down = Stream::new((1, b), (0, a), 100, number);
        net.until("both end", |net| up.go_on(net) & down.go_on(net));
        net.until("A is told", |net| net.was_told(0, Event::Closed(a)));
        net.until("B is told", |net| net.was_told(1, Event::Closed(b)));
        // B's last word, which A must be able to hear again.
        last.push(told.try_iter().filter(|(end, _)| *end == 1).last().unwrap().1);
    }
    assert_eq!((net.stacks[0].flows(), net.stacks[1].flows()), (0, 0));
    let mut resets = 0;
    for packet in &last {
        let mut fin = Tcp::read(packet).unwrap();
        fin.flags |= FIN;
        let mut answers = Vec::new();
        let mut packet = fin.packet();
        net.stacks[0].receive(net.now, &mut packet, &mut |run: &mut Run<'_>| {
            let mut answer = vec![0; run.next_len().unwrap()];
            run.write(&mut answer);
            answers.push(Tcp::read(&answer).unwrap());
        });
        resets += usize::from(answers[0].flags & RST != 0);
    }
    assert_eq!(resets, 20, "the oldest have been forgotten");
}

#[test]
fn a_path_that_takes_less_is_learned_only_of_what_is_under_way() {
    for v6 in [false, true] {
        let mut net = Net::new(1, Conditions { delay: 5 * MS, ..Conditions::default() });
        let [a, b] = net.pair(v6);
        let (lost, was_lost) = std::sync::mpsc::channel();
        net.tap = Box::new(move |end, packet| {
            let fits = packet.len() <= 1300;
            if end == 0 && !fits {
                let _ = lost.send(packet.to_vec());
            }
            fits
        });
        let mut up = Stream::new((0, a), (1, b), 300_000, 1);
        up.go_on(&mut net);
        net.poll();
        let packet = was_lost.recv().unwrap();
        let kind = if v6 { [2, 0] } else { [3, 4] };
        let router = if v6 { "fd42::99".parse().unwrap() } else { IpAddr::V4(Ipv4Addr::new(10, 42, 0, 99)) };
        let tell = |net: &mut Net, about: &[u8], mtu: u32| {
            let mut error = icmp(router, address(0, v6), kind, mtu, &about[..about.len().min(100)]);
            net.with_stack(0, |stack, now, mut out| stack.receive(now, &mut error, &mut out));
        };
        let at = if v6 { 44 } else { 24 };
        let mut guess = packet.clone();
        guess[at] ^= 0x40;
        tell(&mut net, &guess, 600);
        assert_eq!(net.stacks[0].drops().forged, 1);
        tell(&mut net, &packet, 1300);
        let start = net.now;
        net.until("the stream arrives", |net| up.go_on(net));
        assert!(net.now - start < Duration::from_secs(10), "{:?}", net.now - start);

        // The next connection knows it from the start, and a lie makes packets no smaller than can be.
        let [a, b] = net.pair(v6);
        let before = was_lost.try_iter().count();
        let mut up = Stream::new((0, a), (1, b), 100_000, 2);
        net.until("the stream arrives", |net| up.go_on(net));
        assert_eq!(was_lost.try_iter().count(), 0, "after {before}");
    }
}

#[test]
fn a_path_is_never_taken_for_narrower_than_any_is() {
    for (v6, least) in [(false, 576), (true, 1280)] {
        let mut net = Net::new(1, Conditions { delay: 5 * MS, ..Conditions::default() });
        let [a, b] = net.pair(v6);
        let (tell, told) = std::sync::mpsc::channel();
        net.tap = Box::new(move |end, packet| {
            let _ = tell.send((end, packet.to_vec()));
            true
        });
        let mut up = Stream::new((0, a), (1, b), 100_000, 1);
        up.go_on(&mut net);
        net.poll();
        let (_, packet) = told.try_iter().find(|(end, packet)| *end == 0 && packet.len() > 1000).unwrap();
        let kind = if v6 { [2, 0] } else { [3, 4] };
        let mut lie = icmp(address(1, v6), address(0, v6), kind, 69, &packet[..100]);
        net.with_stack(0, |stack, now, mut out| stack.receive(now, &mut lie, &mut out));
        net.until("the stream arrives", |net| up.go_on(net));
        let longest = told.try_iter().filter(|(end, _)| *end == 0).map(|(_, packet)| packet.len()).max();
        assert_eq!(longest, Some(least));
    }
}

#[test]
fn a_network_that_says_no_ends_a_connection_that_is_not_made() {
    let mut net = Net::new(1, Conditions { delay: 5 * MS, ..Conditions::default() });
    let (tell, told) = std::sync::mpsc::channel();
    net.tap = Box::new(move |_, packet| {
        let _ = tell.send(packet.to_vec());
        false
    });
    let a = net.connect(false);
    net.poll();
    let syn = told.recv().unwrap();
    let by = IpAddr::V4(Ipv4Addr::new(10, 42, 0, 99));
    let mut guess = syn.clone();
    guess[24] ^= 1;
    for about in [guess, syn] {
        assert!(net.events[0].is_empty());
        let mut error = icmp(by, address(0, false), [3, 13], 0, &about[..28]);
        net.with_stack(0, |stack, now, mut out| stack.receive(now, &mut error, &mut out));
        net.poll();
    }
    assert_eq!(net.events[0], [Event::Broken { flow: a, cause: Cause::Unreachable { by, code: 13 } }]);
}

#[test]
fn what_is_left_of_an_older_connection_does_not_disturb_its_successor() {
    for acknowledged in [100, 0x7000_0000, 0xffff_f000] {
        let mut net = Net::new(1, Conditions { delay: 5 * MS, ..Conditions::default() });
        let (tell, told) = std::sync::mpsc::channel();
        let mut has_passed = false;
        net.tap = Box::new(move |_, packet| {
            let _ = tell.send(packet.to_vec());
            std::mem::replace(&mut has_passed, true)
        });
        let a = net.connect(false);
        net.poll();
        let syn = Tcp::read(&told.recv().unwrap()).unwrap();
        let acknowledgement = syn.sequence.wrapping_add(acknowledged);
        let older = Tcp { from: syn.to, to: syn.from, sequence: 77, acknowledgement, flags: ACK, ..syn };
        net.with_stack(0, |stack, now, mut out| stack.receive(now, &mut older.packet(), &mut out));
        let answer = Tcp::read(&told.recv().unwrap()).unwrap();
        assert_eq!((answer.flags & RST, answer.sequence), (RST, acknowledgement));

        let b = net.accept();
        let mut down = Stream::new((1, b), (0, a), 10_000, 8);
        net.until("the stream arrives", |net| down.go_on(net));
        assert!(is_alive(&mut net, [a, b]));
    }
}
