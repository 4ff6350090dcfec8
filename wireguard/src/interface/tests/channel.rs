//! Two interfaces over a channel that loses, repeats and reorders, with clocks that jump and ends that forget.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// One of the two sends that many packets.
    Send(bool, u8),
    /// What is under way to one of the two, from some place in the row: lost, delivered, or delivered and left there.
    Carry(bool, prop::sample::Index, Fate),
    /// Carries all that is under way.
    CarryAll,
    Pass(u64),
    Forget(bool),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Lost,
    Delivered,
    Repeated,
}

fn step() -> impl Strategy<Value = Step> {
    let fate = prop::sample::select(vec![Fate::Lost, Fate::Delivered, Fate::Delivered, Fate::Repeated]);
    // Short waits, those about the timers, and those that end a session.
    let millis = prop_oneof![0u64..300, 4_000u64..16_000, 100_000u64..200_000];
    prop_oneof![
        4 => (any::<bool>(), 1u8..4).prop_map(|(by, count)| Step::Send(by, count)),
        8 => (any::<bool>(), any::<prop::sample::Index>(), fate).prop_map(|(to, at, fate)| Step::Carry(to, at, fate)),
        1 => Just(Step::CarryAll),
        3 => millis.prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Forget),
    ]
}

struct Channel {
    nodes: [Node; 2],
    sent: [HashSet<Vec<u8>>; 2],
    count: u32,
}

impl Channel {
    fn new() -> Self {
        let (a, b) = pair();
        Self { nodes: [a, b], sent: Default::default(), count: 0 }
    }

    fn send(&mut self, by: usize) {
        self.count += 1;
        let (from, to) = if by == 0 { (A, B) } else { (B, A) };
        // Of all lengths, so that padding has its part.
        let payload = [&self.count.to_be_bytes()[..], &vec![7; self.count as usize % 40]].concat();
        let packet = packet(from, to, &payload);
        self.nodes[by].send(&packet);
        self.sent[by].insert(packet);
    }

    fn carry(&mut self, to: usize, at: prop::sample::Index, fate: Fate) {
        let sent = &mut self.nodes[1 - to].sink.sent;
        if sent.is_empty() {
            return;
        }
        let at = at.index(sent.len());
        let (_, datagram) = if fate == Fate::Repeated { sent[at].clone() } else { sent.remove(at).unwrap() };
        if fate != Fate::Lost {
            let from = self.nodes[1 - to].at;
            self.nodes[to].receive(from, &datagram);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.nodes.iter_mut().for_each(|node| node.pass(time));
    }

    fn carry_all(&mut self) {
        let [a, b] = &mut self.nodes;
        exchange(a, b);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_packet_arrives_twice_or_changed_and_the_two_always_find_each_other_again(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut channel = Channel::new();
        for step in steps {
            match step {
                Step::Send(by, count) => (0..count).for_each(|_| channel.send(by.into())),
                Step::Carry(to, at, fate) => channel.carry(to.into(), at, fate),
                Step::CarryAll => channel.carry_all(),
                Step::Pass(millis) => channel.pass(Duration::from_millis(millis)),
                Step::Forget(who) => {
                    let node = &mut channel.nodes[usize::from(who)];
                    node.tell_time();
                    node.interface.forget_sessions(node.now, &mut node.sink);
                }
            }
        }
        for (to, node) in channel.nodes.iter().enumerate() {
            let delivered = &node.sink.delivered;
            prop_assert!(delivered.iter().all(|packet| channel.sent[1 - to].contains(packet)));
            prop_assert_eq!(delivered.iter().collect::<HashSet<_>>().len(), delivered.len(), "twice");
        }

        // From here on the channel is good. At worst one end has forgotten a session that the other has, which notices after
        // 15 s of silence.
        for _ in 0..40 {
            channel.pass(Duration::from_millis(500));
            channel.carry_all();
            (0..2).for_each(|by| channel.send(by));
            channel.carry_all();
        }
        let before = channel.nodes.each_ref().map(|node| node.sink.delivered.len());
        (0..2).for_each(|by| channel.send(by));
        channel.carry_all();
        let after = channel.nodes.each_ref().map(|node| node.sink.delivered.len());
        prop_assert_eq!(after, before.map(|count| count + 1));
    }
}
