//! What a stream costs through two stacks back to back, and what it costs through two bare smoltcp interfaces with their
//! usual settings, in turn in one run; then what idle connections cost.
//!
//! `cargo run --release -p lattice-netstack --example stack_bench`

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use lattice_netstack::{Config, Event, FlowId, Limits, Output, Run, Stack};
use nix::time::{ClockId, clock_gettime};

#[path = "stack_bench/bare.rs"]
mod bare;
#[path = "stack_bench/mallopt.rs"]
mod mallopt;

const MTU: u16 = 1420;
const BUFFER: usize = 1 << 20;
const BYTES: usize = 1 << 30;
const ROUNDS: usize = 5;
const IDLE: usize = 100;

fn main() {
    mallopt::give_large_buffers_back();
    println!("CPU-s per GiB, both ends, MTU {MTU}, buffers of {} KiB; median of {ROUNDS}", BUFFER >> 10);
    let mut times = [const { Vec::new() }; 5];
    let mut packets = [0; 5];
    for _ in 0..ROUNDS {
        let mut note = |at: usize, (time, sent): (Duration, u64)| {
            times[at].push(time.as_secs_f64());
            packets[at] = sent;
        };
        note(0, bare::stream(BYTES, BUFFER, MTU, false));
        note(1, bare::stream(BYTES, BUFFER, MTU, true));
        note(2, stream(false, 1));
        note(3, stream(true, 1));
        note(4, stream(false, 100));
    }
    let names = [
        "bare smoltcp, IPv4",
        "bare smoltcp, IPv4, no Nagle",
        "ours, IPv4",
        "ours, IPv6",
        "ours, IPv4, 100 streams",
    ];
    for ((name, times), packets) in names.into_iter().zip(times).zip(packets) {
        let median = median(times);
        println!("  {name:<30}{median:>7.3}{:>8.1} Gbit/s on one core{packets:>9} packets", 8.59 / median);
    }
    idle();
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("every process has one").into()
}

fn address(end: u8, v6: bool) -> IpAddr {
    if v6 { IpAddr::from([0xfd42, 0, 0, 0, 0, 0, 0, u16::from(end)]) } else { IpAddr::from([10, 42, 0, end]) }
}

fn stack(end: u8, limits: Limits, now: Instant) -> Stack {
    let addresses = vec![address(end, false), address(end, true)];
    let mut state = u64::from(end);
    let random = Box::new(move |bytes: &mut [u8]| {
        for byte in bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (state >> 33) as u8;
        }
    });
    let mut stack =
        Stack::new(Config { addresses, mtu: MTU, limits, random }, now).expect("a valid configuration");
    stack.listen(80);
    stack
}

/// Packets that one end sends before the other gets them, at both kinds: what is sealed into one run of datagrams.
const BATCH: usize = 44;

/// Packets one after another, as they would be sealed.
struct Wire {
    room: Vec<u8>,
    lens: Vec<usize>,
    used: usize,
    packets: u64,
}

impl Wire {
    fn new() -> Self {
        Self { room: vec![0; 1 << 20], lens: Vec::with_capacity(1 << 10), used: 0, packets: 0 }
    }

    fn receive(&mut self, stack: &mut Stack, now: Instant, answers: &mut Self) {
        let mut rest = &mut self.room[..];
        for len in self.lens.drain(..) {
            let packet;
            (packet, rest) = rest.split_at_mut(len);
            stack.receive(now, packet, answers);
        }
        self.used = 0;
    }
}

impl Output for Wire {
    fn transmit(&mut self, packets: &mut Run<'_>) {
        while let Some(len) = packets.next_len() {
            packets.write(&mut self.room[self.used..][..len]);
            self.used += len;
            self.lens.push(len);
            self.packets += 1;
        }
    }

    fn is_full(&self) -> bool {
        self.lens.len() >= BATCH
    }
}

/// Two stacks, and what is under way between them.
struct Pair {
    stacks: [Stack; 2],
    wires: [Wire; 2],
}

impl Pair {
    fn new(limits: Limits) -> Self {
        let now = Instant::now();
        Self { stacks: [stack(1, limits, now), stack(2, limits, now)], wires: [Wire::new(), Wire::new()] }
    }

    /// Lets both send, and brings each what the other sent.
    fn exchange(&mut self) {
        let now = Instant::now();
        let ([a, b], [from_a, from_b]) = (&mut self.stacks, &mut self.wires);
        a.poll(now, from_a);
        from_a.receive(b, now, from_b);
        b.poll(now, from_b);
        from_b.receive(a, now, from_a);
    }

    /// Writes what there is room for.
    fn fill(&mut self, flow: FlowId) {
        let fill = |room: &mut [u8]| {
            room.fill(1);
            (room.len(), ())
        };
        while self.stacks[0].send_with(Instant::now(), flow, fill).is_ok() {}
    }

    fn connect(&mut self, v6: bool) -> [FlowId; 2] {
        let now = Instant::now();
        let a = self.stacks[0].connect(now, SocketAddr::new(address(2, v6), 80)).expect("a free flow");
        loop {
            self.exchange();
            if let Some(Event::Incoming { id, .. }) = self.stacks[1].poll_event() {
                let b = self.stacks[1].accept(now, id, &mut self.wires[1]);
                (0..3).for_each(|_| self.exchange());
                while self.stacks.iter_mut().any(|stack| stack.poll_event().is_some()) {}
                return [a, b.expect("a free flow")];
            }
        }
    }
}

/// Sends [`BYTES`] in so many streams at once; says what that took, and how many packets.
fn stream(v6: bool, count: usize) -> (Duration, u64) {
    let buffer = BUFFER / count.min(16);
    let limits = Limits {
        flows: count,
        memory: count * 2 * buffer * 70,
        receive_buffer: buffer,
        send_buffer: buffer,
        ..Limits::default()
    };
    let mut pair = Pair::new(limits);
    for _ in 0..count {
        let [a, _] = pair.connect(v6);
        pair.fill(a);
    }
    let mut received = 0;
    let start = cpu();
    while received < BYTES {
        pair.exchange();
        while let Some(event) = pair.stacks[0].poll_event() {
            if let Event::Writable(flow) = event {
                pair.fill(flow);
            }
        }
        while let Some(event) = pair.stacks[1].poll_event() {
            let Event::Readable(flow) = event else { continue };
            while let Ok(len) = pair.stacks[1].recv_with(flow, |data| (data.len(), data.len())) {
                received += len;
            }
        }
    }
    ((cpu() - start).mul_f64(BYTES as f64 / received as f64), pair.wires[0].packets)
}

fn idle() {
    let before = resident_kib();
    let mut pair = Pair::new(Limits::default());
    let flows: Vec<_> = (0..IDLE).map(|_| pair.connect(false)).collect();
    let after = resident_kib();
    for [a, b] in &flows {
        let now = Instant::now();
        pair.stacks[0].send(now, *a, b"a question").expect("room");
        pair.exchange();
        pair.stacks[1].recv(*b, &mut [0; 100]).expect("it has come");
    }
    let used = resident_kib();
    let each = |kib: usize| (kib - before) / (2 * IDLE);
    println!(
        "{IDLE} idle connections: {} KiB each at each end, {} KiB once they have been used; the process {} MiB, both ends",
        each(after),
        each(used),
        used >> 10
    );
    let start = Instant::now();
    (0..1000).for_each(|_| pair.exchange());
    println!("  {:?} to find at both ends that none has anything to do", start.elapsed() / 1000);
}

/// What the kernel gave to this process, in KiB.
fn resident_kib() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs is mounted");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number") * 4
}
