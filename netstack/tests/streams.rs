//! Streams between two stacks, through links that do what links do.

#![allow(clippy::unwrap_used, reason = "clippy knows only functions marked #[test] as tests")]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "virtual/net.rs"]
mod net;

use std::{collections::HashSet, net::SocketAddr, time::Duration};

use lattice_netstack::{Cause, Event, Limits, Output, Run};
use net::{Conditions, Net, Stream, next_random};

const MS: Duration = Duration::from_millis(1);

/// Streams both ways at once over one connection, to their ends.
fn both_ways(net: &mut Net, v6: bool, len: usize) -> Duration {
    let [a, b] = net.pair(v6);
    let mut up = Stream::new((0, a), (1, b), len, 1);
    let mut down = Stream::new((1, b), (0, a), len / 3, 2);
    let start = net.now;
    net.until("both streams arrive", |net| up.go_on(net) & down.go_on(net));
    let took = net.now - start;
    net.until("A is told that it is over", |net| net.was_told(0, Event::Closed(a)));
    net.until("B is told that it is over", |net| net.was_told(1, Event::Closed(b)));
    assert_eq!((net.stacks[0].flows(), net.stacks[1].flows()), (0, 0));
    took
}

#[test]
fn arrive_whole_whatever_the_link_does() {
    for seed in 0..100 {
        let mut random = seed;
        let mut upto = |most: u64| next_random(&mut random) % (most + 1);
        let conditions = Conditions {
            delay: Duration::from_micros(upto(50_000)),
            jitter: Duration::from_micros([0, 100, 20_000][upto(2) as usize]),
            lost: [0, 10, 50][upto(2) as usize],
            doubled: upto(50),
            broken: upto(20),
        };
        let len = 1 + upto(300_000) as usize;
        let v6 = upto(1) == 1;
        println!("seed {seed}: {len} bytes, v6 {v6}, {conditions:?}");
        both_ways(&mut Net::new(seed, conditions), v6, len);
    }
}

#[test]
fn packets_are_full_when_windows_are_narrow() {
    for v6 in [false, true] {
        let conditions = Conditions { delay: 20 * MS, ..Conditions::default() };
        let narrow = Limits { receive_buffer: 20_000, ..Limits::default() };
        let mut net = Net::with(1, conditions, 1420, [narrow; 2]);
        let [a, b] = net.pair(v6);
        let mut up = Stream::new((0, a), (1, b), 8 << 20, 1);
        let (tell, told) = std::sync::mpsc::channel();
        net.tap = Box::new(move |end, _| end == 1 || tell.send(()).is_ok());
        net.until("the stream arrives", |net| {
            // A reader that opens the window by little, and never by whole packets.
            up.receive(net, 7_777);
            up.go_on(net)
        });
        let full = (8 << 20) / (1420 - if v6 { 60 } else { 40 });
        let packets = told.try_iter().count();
        println!("{packets} packets, where {full} are full");
        assert!(packets < full * 101 / 100, "{packets} packets, where {full} are full");
    }
}

#[test]
fn reordering_is_not_loss() {
    let delayed = Conditions { delay: 20 * MS, jitter: MS / 10, ..Conditions::default() };
    let took = both_ways(&mut Net::new(3, delayed), false, 1 << 20);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// Mbit/s of 8 MiB over a path of 40 ms, in which so many packets in a thousand are lost.
fn far_away(lost: u64) -> f64 {
    let conditions = Conditions { delay: 20 * MS, lost, ..Conditions::default() };
    let bytes = 8 << 20;
    let times = (0..4).map(|seed| {
        let mut net = Net::new(seed, conditions);
        let [a, b] = net.pair(false);
        let mut up = Stream::new((0, a), (1, b), bytes, 1);
        let start = net.now;
        net.until("the stream arrives", |net| up.go_on(net));
        (net.now - start).as_secs_f64()
    });
    4.0 * bytes as f64 * 8e-6 / times.sum::<f64>()
}

#[test]
fn a_long_path_is_filled_though_acknowledgements_are_few_and_packets_are_lost() {
    let rates = [0, 1, 10].map(far_away);
    println!("{rates:?} Mbit/s");
    // Without what `flow::acks` does, these were 15, 4 and 0.8.
    assert!(rates[0] > 50.0 && rates[1] > 8.0 && rates[2] > 1.5, "{rates:?} Mbit/s");
}

#[test]
fn a_side_that_has_ended_still_receives() {
    let mut net = Net::new(1, Conditions { delay: 5 * MS, ..Conditions::default() });
    let [a, b] = net.pair(false);
    let mut up = Stream::new((0, a), (1, b), 1000, 1);
    net.until("A's half ends", |net| up.go_on(net));
    assert!(net.was_told(1, Event::PeerClosed(b)));
    net.run(Duration::from_secs(3600));
    let mut down = Stream::new((1, b), (0, a), 500_000, 2);
    net.until("B's half arrives", |net| down.go_on(net));
    net.until("A is told", |net| net.was_told(0, Event::Closed(a)));
}

#[test]
fn what_was_not_read_outlasts_the_connection() {
    let mut net = Net::new(1, Conditions { delay: 5 * MS, ..Conditions::default() });
    let [a, b] = net.pair(false);
    let now = net.now;
    net.stacks[0].shutdown_write(now, a).unwrap();
    let data = vec![7; 10_000];
    assert_eq!(net.stacks[1].send(now, b, &data), Ok(10_000));
    net.stacks[1].shutdown_write(now, b).unwrap();
    net.run(Duration::from_secs(600));
    let mut buffer = vec![0; 20_000];
    assert_eq!(net.stacks[0].recv(a, &mut buffer[..4000]), Ok(4000));
    net.poll();
    assert_eq!(net.stacks[0].recv(a, &mut buffer[4000..]), Ok(6000));
    net.poll();
    assert_eq!(buffer[..10_000], data);
    assert_eq!(net.stacks[0].recv(a, &mut buffer), Ok(0));
    net.until("A is told", |net| net.was_told(0, Event::Closed(a)));
    assert_eq!(net.stacks[0].flows(), 0);
}

#[test]
fn a_slow_reader_closes_the_window_and_nothing_grows() {
    let mut net = Net::new(1, Conditions { delay: 5 * MS, lost: 5, ..Conditions::default() });
    let [a, b] = net.pair(false);
    let mut up = Stream::new((0, a), (1, b), 10 << 20, 1);
    let mut most = 0;
    net.until("the stream arrives", |net| {
        let sent = up.sent;
        up.send(net);
        most = most.max(up.sent - up.received);
        // Now and then, a long time passes before the reader comes.
        if up.sent == sent && up.sent < up.len {
            net.run(Duration::from_secs(30));
        }
        up.receive(net, 200_000);
        up.sent == up.len && up.go_on(net)
    });
    assert!(most <= 4 << 20, "{most} bytes were on their way");
    assert!(!net.events[0].iter().any(|event| matches!(event, Event::Broken { .. })), "{:?}", net.events);
}

#[test]
fn two_that_have_lost_what_the_other_said_do_not_wait_for_each_other() {
    let mut net = Net::new(1, Conditions { delay: 5 * MS, ..Conditions::default() });
    let flows = net.pair(false);
    let streams =
        |len, seed| [0, 1].map(|end| Stream::new((end, flows[end]), (1 - end, flows[1 - end]), len, seed));
    // Windows have grown. Then what both say arrives, but nothing of what they answer.
    for end in [0, 1] {
        assert_eq!(net.stacks[end].send(net.now, flows[end], &[0; 90_000]), Ok(90_000));
    }
    let mut left = [90_000; 2];
    net.until("it arrives", |net| {
        for end in [0, 1] {
            left[end] -= net.stacks[end].recv(flows[end], &mut [0; 90_000]).unwrap_or(0);
        }
        left == [0; 2]
    });
    net.run(Duration::from_secs(10));
    let mut streams = streams(400_000, 3);
    streams.iter_mut().for_each(|stream| assert!(!stream.go_on(&mut net)));
    net.poll();
    net.tap = Box::new(|_, _| false);
    net.run(Duration::from_millis(1500));
    net.tap = Box::new(|_, _| true);
    let start = net.now;
    net.until("both arrive", |net| streams.iter_mut().fold(true, |all, stream| stream.go_on(net) & all));
    assert!(net.now - start < Duration::from_secs(20), "after {:?}", net.now - start);
}

#[test]
fn the_last_to_end_knows_at_once() {
    let mut net = Net::new(1, Conditions { delay: 5 * MS, ..Conditions::default() });
    let [a, b] = net.pair(false);
    net.stacks[0].shutdown_write(net.now, a).unwrap();
    net.until("B is told", |net| net.was_told(1, Event::PeerClosed(b)));
    assert_eq!(net.stacks[1].recv(b, &mut [0]), Ok(0));
    // With the last of its data comes its end.
    net.stacks[1].send(net.now, b, b"that is all").unwrap();
    net.stacks[1].shutdown_write(net.now, b).unwrap();
    let start = net.now;
    net.until("B is told", |net| net.was_told(1, Event::Closed(b)));
    assert!(net.now - start < Duration::from_millis(500), "after {:?}", net.now - start);
}

/// Takes one packet or run, and is full.
struct Narrow(Vec<SocketAddr>);

impl Output for Narrow {
    fn transmit(&mut self, packets: &mut Run<'_>) {
        let head = packets.head();
        let port = u16::from_be_bytes([head[20], head[21]]);
        self.0.push(SocketAddr::new(net::address(0, false), port));
    }

    fn is_full(&self) -> bool {
        !self.0.is_empty()
    }
}

#[test]
fn who_has_sent_waits_until_all_others_have() {
    let mut net = Net::new(1, Conditions { delay: 5 * MS, ..Conditions::default() });
    let flows: Vec<_> = (0..10).map(|_| net.pair(false)).collect();
    let mut left = [300_000; 10];
    for [a, _] in &flows {
        assert_eq!(net.stacks[0].send(net.now, *a, &[0; 300_000]), Ok(300_000));
    }
    net.until("windows have grown", |net| {
        for ([_, b], left) in flows.iter().zip(&mut left) {
            *left -= net.stacks[1].recv(*b, &mut [0; 300_000]).unwrap_or(0);
        }
        left == [0; 10]
    });
    net.run(Duration::from_secs(10));
    for [a, _] in &flows {
        assert_eq!(net.stacks[0].send(net.now, *a, &[0; 300_000]), Ok(300_000));
    }
    for round in 0..2 {
        let mut turns = HashSet::new();
        for _ in 0..10 {
            let mut narrow = Narrow(Vec::new());
            net.stacks[0].poll(net.now, &mut narrow);
            assert!(net.stacks[0].is_ready(), "the rest waits");
            turns.extend(narrow.0);
        }
        assert_eq!(turns.len(), 10, "round {round}: {turns:?}");
    }
}

#[test]
fn a_reset_reaches_the_other_owner_from_both_sides() {
    for who in [0, 1] {
        let mut net = Net::new(1, Conditions { delay: 5 * MS, ..Conditions::default() });
        let flows = net.pair(true);
        let (flow, other) = (flows[who], flows[1 - who]);
        let now = net.now;
        net.stacks[who].send(now, flow, b"half a sentence").unwrap();
        net.stacks[who].abort(flow);
        let told = Event::Broken { flow: other, cause: Cause::Reset };
        net.until("the other is told", |net| net.was_told(1 - who, told));
        assert_eq!((net.stacks[0].flows(), net.stacks[1].flows()), (0, 0));
        assert!(net.stacks[who].recv(flow, &mut [0; 10]).is_err());
        assert_eq!(net.stacks.iter().filter_map(|stack| stack.poll_at()).count(), 0, "a timer is left");
    }
}

#[test]
fn closing_sends_what_was_written_and_refuses_what_comes() {
    let mut net = Net::new(1, Conditions { delay: 5 * MS, ..Conditions::default() });
    let [a, b] = net.pair(false);
    let now = net.now;
    assert_eq!(net.stacks[0].send(now, a, &[7; 100_000]), Ok(100_000));
    net.stacks[0].close(now, a);
    let mut got = 0;
    net.until("all arrives", |net| {
        while let Ok(len) = net.stacks[1].recv(b, &mut [0; 9000]) {
            got += len;
            if len == 0 {
                return true;
            }
        }
        false
    });
    assert_eq!(got, 100_000);
    let now = net.now;
    net.stacks[1].send(now, b, b"too late").unwrap();
    let told = Event::Broken { flow: b, cause: Cause::Reset };
    net.until("B is told that nobody reads", |net| net.was_told(1, told));
    assert!(net.now - now < Duration::from_secs(1), "after {:?}", net.now - now);
    net.run(Duration::from_secs(1));
    assert_eq!((net.stacks[0].flows(), net.stacks[1].flows()), (0, 0));
}

#[test]
fn a_thousand_at_once_each_get_their_turn() {
    let mut net = Net::new(1, Conditions { delay: 5 * MS, ..Conditions::default() });
    let count = 1000;
    let mut streams: Vec<Stream> = (0..count)
        .map(|number| {
            let [a, b] = net.pair(number % 2 == 0);
            Stream::new((0, a), (1, b), 20_000, number)
        })
        .collect();
    let mut done = 0;
    net.until("all arrive", |net| {
        done = streams.iter_mut().map(|stream| stream.go_on(net)).filter(|done| *done).count();
        // None is far behind while another is done.
        if done > 0 {
            let least = streams.iter().map(|stream| stream.received).min().unwrap();
            assert!(least > 0, "one has received nothing while {done} are done");
        }
        done == streams.len()
    });
}

#[test]
fn an_idle_connection_stays_and_one_whose_peer_is_gone_ends() {
    let mut net = Net::new(1, Conditions { delay: 5 * MS, ..Conditions::default() });
    let [a, b] = net.pair(false);
    net.run(Duration::from_secs(24 * 3600));
    let mut up = Stream::new((0, a), (1, b), 1000, 1);
    net.until("it still works", |net| up.go_on(net));

    let [a, b] = net.pair(false);
    net.tap = Box::new(|_, _| false);
    let now = net.now;
    net.stacks[0].send(now, a, b"is anybody there?").unwrap();
    let told = |flow| Event::Broken { flow, cause: Cause::TimedOut };
    net.until("who asks is told", |net| net.was_told(0, told(a)));
    assert!(net.now - now < Duration::from_secs(310), "{:?}", net.now - now);
    net.until("who only waits is told, too", |net| net.was_told(1, told(b)));
    assert_eq!(net.stacks[1].flows(), 0);
}
