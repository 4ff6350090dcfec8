//! What a stream costs through two stacks back to back, and what it costs through two bare smoltcp interfaces with their
//! usual settings, in turn in one run; then what idle connections cost.
//!
//! `cargo run --release -p lattice-netstack --example stack_bench`

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use lattice_netstack::{Config, Event, FlowId, Limits, Run, Stack};
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

/// Packets one after another, as they would be sealed.
struct Wire {
    room: Vec<u8>,
    lens: Vec<usize>,
    packets: u64,
}

impl Wire {
    fn new() -> Self {
        Self { room: Vec::with_capacity(1 << 23), lens: Vec::with_capacity(1 << 13), packets: 0 }
    }

    fn take(&mut self, run: &mut Run<'_>) {
        while let Some(len) = run.next_len() {
            let at = self.room.len();
            self.room.resize(at + len, 0);
            run.write(&mut self.room[at..]);
            self.lens.push(len);
            self.packets += 1;
        }
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
        for end in [0, 1] {
            let (stacks, wires) = (&mut self.stacks, &mut self.wires);
            stacks[end].poll(now, &mut |run: &mut Run<'_>| wires[end].take(run));
            let Wire { mut room, mut lens, packets } =
                std::mem::replace(&mut wires[end], Wire { room: Vec::new(), lens: Vec::new(), packets: 0 });
            let mut rest = &mut room[..];
            for len in &lens {
                let packet;
                (packet, rest) = rest.split_at_mut(*len);
                stacks[1 - end].receive(now, packet, &mut |run: &mut Run<'_>| wires[1 - end].take(run));
            }
            room.clear();
            lens.clear();
            wires[end] = Wire { room, lens, packets };
        }
    }

    fn connect(&mut self, v6: bool) -> [FlowId; 2] {
        let now = Instant::now();
        let a = self.stacks[0].connect(now, SocketAddr::new(address(2, v6), 80)).expect("a free flow");
        loop {
            self.exchange();
            if let Some(Event::Incoming { id, .. }) = self.stacks[1].poll_event() {
                let wire = &mut self.wires[1];
                let b = self.stacks[1].accept(now, id, &mut |run: &mut Run<'_>| wire.take(run));
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
    let flows: Vec<_> = (0..count).map(|_| pair.connect(v6)).collect();
    let mut received = 0;
    let start = cpu();
    while received < BYTES {
        let now = Instant::now();
        for [a, b] in &flows {
            while let Ok(len) = pair.stacks[0].send_with(now, *a, |room| {
                room.fill(1);
                (room.len(), room.len())
            }) && len > 0
            {}
            while let Ok(len) = pair.stacks[1].recv_with(*b, |data| (data.len(), data.len()))
                && len > 0
            {
                received += len;
            }
        }
        pair.exchange();
        while pair.stacks.iter_mut().any(|stack| stack.poll_event().is_some()) {}
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
