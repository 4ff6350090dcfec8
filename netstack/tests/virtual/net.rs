//! Two stacks and a link between them, in virtual time: what the link does to packets follows from a seed.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use lattice_netstack::{Config, Error, Event, FlowId, Limits, Run, Stack};

pub(crate) const PORT: u16 = 80;

/// What the link does.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Conditions {
    pub(crate) delay: Duration,
    /// How much later than others a packet may be, so that later ones overtake it.
    pub(crate) jitter: Duration,
    /// Packets in a thousand that are lost, that come twice, and in which a bit is flipped.
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) broken: u64,
}

/// Gets the sending end and the packet.
pub(crate) type Tap = Box<dyn FnMut(usize, &[u8]) -> bool>;

/// Both ends, A and B.
pub(crate) struct Net {
    pub(crate) now: Instant,
    pub(crate) stacks: [Stack; 2],
    pub(crate) events: [Vec<Event>; 2],
    pub(crate) conditions: Conditions,
    /// Packets that were put on the link.
    pub(crate) packets: u64,
    /// Looks at each packet, and says whether it may pass.
    pub(crate) tap: Tap,
    under_way: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    random: u64,
}

pub(crate) fn address(end: usize, v6: bool) -> IpAddr {
    let text = match (end, v6) {
        (0, false) => "10.42.0.1",
        (0, true) => "fd42::1",
        (_, false) => "10.42.0.2",
        (_, true) => "fd42::2",
    };
    text.parse().unwrap()
}

/// SplitMix64.
pub(crate) fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub(crate) fn stack(end: usize, seed: u64, mtu: u16, limits: Limits, now: Instant) -> Stack {
    let mut state = seed ^ (end as u64) << 60;
    let random = Box::new(move |bytes: &mut [u8]| {
        bytes.iter_mut().for_each(|byte| *byte = next_random(&mut state) as u8);
    });
    let addresses = vec![address(end, false), address(end, true)];
    Stack::new(Config { addresses, mtu, limits, random }, now).unwrap()
}

impl Net {
    pub(crate) fn new(seed: u64, conditions: Conditions) -> Self {
        Self::with(seed, conditions, 1420, [Limits::default(); 2])
    }

    pub(crate) fn with(seed: u64, conditions: Conditions, mtu: u16, limits: [Limits; 2]) -> Self {
        let now = Instant::now();
        let mut stacks = [0, 1].map(|end| stack(end, seed, mtu, limits[end], now));
        stacks[1].listen(PORT);
        Self {
            now,
            stacks,
            events: [Vec::new(), Vec::new()],
            conditions,
            packets: 0,
            tap: Box::new(|_, _| true),
            under_way: BTreeMap::new(),
            random: seed,
        }
    }

    fn chance(&mut self, in_a_thousand: u64) -> bool {
        next_random(&mut self.random) % 1000 < in_a_thousand
    }

    /// Puts what one end sends on the link.
    pub(crate) fn put(&mut self, from: usize, packets: Vec<Vec<u8>>) {
        for packet in packets {
            self.packets += 1;
            if !(self.tap)(from, &packet) || self.chance(self.conditions.lost) {
                continue;
            }
            let copies = if self.chance(self.conditions.doubled) { 2 } else { 1 };
            for _ in 0..copies {
                let mut packet = packet.clone();
                if self.chance(self.conditions.broken) {
                    let at = next_random(&mut self.random) as usize % packet.len();
                    packet[at] ^= 1 << (self.random % 8);
                }
                let jitter = self.conditions.jitter.as_micros() as u64 + 1;
                let late = Duration::from_micros(next_random(&mut self.random) % jitter);
                let at = self.now + self.conditions.delay + late;
                self.under_way.insert((at, self.packets * 2 + copies), (1 - from, packet));
            }
        }
    }

    /// Gives a stack something to do, and puts what it sends on the link.
    pub(crate) fn with_stack<R>(
        &mut self,
        end: usize,
        work: impl FnOnce(&mut Stack, Instant, &mut dyn FnMut(&mut Run<'_>)) -> R,
    ) -> R {
        let mut packets = Vec::new();
        let result = work(&mut self.stacks[end], self.now, &mut |run: &mut Run<'_>| take(run, &mut packets));
        self.put(end, packets);
        result
    }

    /// Lets both ends do what they have to do now.
    pub(crate) fn poll(&mut self) {
        for end in [0, 1] {
            self.with_stack(end, |stack, now, mut out| stack.poll(now, &mut out));
            while let Some(event) = self.stacks[end].poll_event() {
                self.events[end].push(event);
            }
        }
    }

    /// Goes on to when next something happens; `false` when nothing ever will.
    pub(crate) fn step(&mut self) -> bool {
        let timers = self.stacks.iter().filter_map(Stack::poll_at);
        let Some(next) = timers.chain(self.under_way.keys().next().map(|(at, _)| *at)).min() else {
            return false;
        };
        self.now = self.now.max(next);
        while let Some(entry) = self.under_way.first_entry()
            && entry.key().0 <= self.now
        {
            let (end, mut packet) = entry.remove();
            self.with_stack(end, |stack, now, mut out| stack.receive(now, &mut packet, &mut out));
        }
        self.poll();
        true
    }

    /// Runs until something holds, for at most an hour of theirs.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let end = self.now + Duration::from_secs(3600);
        self.poll();
        while !holds(self) {
            self.poll();
            assert!(self.step() && self.now < end, "never: {what}; {:?}", self.events);
        }
    }

    /// Runs for a time.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.poll();
        loop {
            let timers = self.stacks.iter().filter_map(Stack::poll_at);
            match timers.chain(self.under_way.keys().next().map(|(at, _)| *at)).min() {
                Some(next) if next <= end => drop(self.step()),
                _ => break,
            }
        }
        self.now = end;
        self.poll();
    }

    pub(crate) fn connect(&mut self, v6: bool) -> FlowId {
        let now = self.now;
        self.stacks[0].connect(now, SocketAddr::new(address(1, v6), PORT)).unwrap()
    }

    /// Whether an end was told so; it is told once.
    pub(crate) fn was_told(&mut self, end: usize, event: Event) -> bool {
        let found = self.events[end].iter().position(|told| *told == event);
        found.map(|at| self.events[end].remove(at)).is_some()
    }

    /// What somebody asks B for.
    pub(crate) fn incoming(&mut self) -> Option<lattice_netstack::IncomingId> {
        let found = self.events[1].iter().position(|told| matches!(told, Event::Incoming { .. }))?;
        let Event::Incoming { id, .. } = self.events[1].remove(found) else { unreachable!() };
        Some(id)
    }

    /// Accepts what A has asked for.
    pub(crate) fn accept(&mut self) -> FlowId {
        let mut incoming = None;
        self.until("a SYN comes", |net| {
            incoming = net.incoming();
            incoming.is_some()
        });
        self.with_stack(1, |stack, now, mut out| stack.accept(now, incoming.unwrap(), &mut out)).unwrap()
    }

    /// A connection, made.
    pub(crate) fn pair(&mut self, v6: bool) -> [FlowId; 2] {
        let a = self.connect(v6);
        let b = self.accept();
        self.until("it is made", |net| net.was_told(0, Event::Established(a)));
        self.until("it is made", |net| net.was_told(1, Event::Established(b)));
        [a, b]
    }
}

fn take(run: &mut Run<'_>, packets: &mut Vec<Vec<u8>>) {
    let (count, bytes) = (run.count(), run.bytes());
    let before = packets.len();
    while let Some(len) = run.next_len() {
        let head = run.head().to_vec();
        let mut packet = vec![0xee; len];
        run.write(&mut packet);
        assert_eq!(head[12..16], packet[12..16], "the head says where to");
        packets.push(packet);
    }
    assert_eq!(count, packets.len() - before);
    assert_eq!(bytes, packets[before..].iter().map(Vec::len).sum::<usize>());
}

/// One direction of a stream: content that says where it is from.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) from: (usize, FlowId),
    pub(crate) to: (usize, FlowId),
    pub(crate) len: usize,
    pub(crate) sent: usize,
    pub(crate) received: usize,
    pub(crate) has_ended: bool,
    seed: u64,
}

impl Stream {
    pub(crate) fn new(from: (usize, FlowId), to: (usize, FlowId), len: usize, seed: u64) -> Self {
        Self { from, to, len, sent: 0, received: 0, has_ended: false, seed }
    }

    fn byte(&self, at: usize) -> u8 {
        (((at as u64) ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8
    }

    /// Sends and receives what can be; says whether all has arrived, and its end.
    pub(crate) fn go_on(&mut self, net: &mut Net) -> bool {
        self.send(net);
        self.receive(net, usize::MAX);
        self.has_ended
    }

    /// Sends what there is room for.
    pub(crate) fn send(&mut self, net: &mut Net) {
        while self.sent < self.len {
            let end = self.len.min(self.sent + 5000);
            let data: Vec<u8> = (self.sent..end).map(|at| self.byte(at)).collect();
            match net.stacks[self.from.0].send(net.now, self.from.1, &data) {
                Ok(len) => self.sent += len,
                Err(Error::WouldBlock) => break,
                Err(error) => panic!("{error} after {} bytes", self.sent),
            }
            if self.sent == self.len {
                net.stacks[self.from.0].shutdown_write(net.now, self.from.1).unwrap();
            }
        }
    }

    /// Reads at most so much.
    pub(crate) fn receive(&mut self, net: &mut Net, most: usize) {
        let mut left = most;
        let mut buffer = vec![0; 7000];
        while left > 0 && !self.has_ended {
            let room = left.min(buffer.len());
            match net.stacks[self.to.0].recv(self.to.1, &mut buffer[..room]) {
                Ok(0) => {
                    assert_eq!(self.received, self.len, "the stream ends too early");
                    self.has_ended = true;
                }
                Ok(len) => {
                    for (at, byte) in buffer[..len].iter().enumerate() {
                        assert_eq!(*byte, self.byte(self.received + at), "byte {}", self.received + at);
                    }
                    self.received += len;
                    left -= len;
                }
                Err(Error::WouldBlock) => break,
                Err(error) => panic!("{error} after {} bytes", self.received),
            }
        }
    }
}
