//! What a packet costs through an [`Interface`], and what its encryption alone costs, in turn in one run; then what peers
//! cost that say nothing.
//!
//! `cargo run --release -p lattice-wireguard --example seal_bench`

use std::{
    hint::black_box,
    net::SocketAddr,
    time::{Duration, Instant},
};

use lattice_wire::WgPrivateKey;
use lattice_wireguard::{Interface, Output, Packets, Path, PeerConfig, Single};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// Bytes of an inner packet, and packets that go through in a row: what segmentation makes of 64 KiB.
const LEN: usize = 1420;
const RUN: usize = 44;
const ROUNDS: usize = 400;
const IDLE: usize = 10_000;

/// Room for one run of datagrams, used again and again.
struct Batch {
    room: Vec<u8>,
    used: usize,
    lens: Vec<usize>,
    delivered: usize,
}

impl Batch {
    fn new() -> Self {
        Self { room: vec![0; 1 << 17], used: 0, lens: Vec::with_capacity(RUN), delivered: 0 }
    }

    fn clear(&mut self) {
        self.used = 0;
        self.lens.clear();
    }
}

impl Output for Batch {
    fn transmit(&mut self, _: Path, len: usize, write: impl FnOnce(&mut [u8])) {
        write(&mut self.room[self.used..][..len]);
        self.used += len;
        self.lens.push(len);
    }
    fn deliver(&mut self, packet: &mut [u8]) {
        self.delivered += black_box(packet).len();
    }
}

/// What one read of a link with segmentation offload yields.
struct Segments<'a> {
    packet: &'a [u8],
    left: usize,
}

impl Packets for Segments<'_> {
    fn next_len(&self) -> Option<usize> {
        (self.left > 0).then_some(self.packet.len())
    }
    fn head(&self) -> &[u8] {
        self.packet
    }
    fn write(&mut self, room: &mut [u8]) {
        room.copy_from_slice(self.packet);
        self.left -= 1;
    }
}

fn key(number: u8) -> WgPrivateKey {
    WgPrivateKey::from_random([number; 32])
}

fn at(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 51820))
}

fn interface(own: u8, other: u8, now: Instant) -> Interface {
    let mut interface = Interface::new(&key(own), 1420, now);
    let peer = PeerConfig {
        public_key: key(other).public(),
        allowed_ips: vec![format!("10.42.0.{other}/32").parse().expect("a network")],
        endpoints: vec![at(other)],
        keepalive: None,
    };
    interface.set_peers(&[peer], now, &mut Batch::new());
    interface
}

fn connected(packet: &[u8], now: Instant) -> (Interface, Interface) {
    let (mut a, mut b) = (interface(1, 2, now), interface(2, 1, now));
    let (mut from_a, mut from_b) = (Batch::new(), Batch::new());
    a.handle_packets(&mut Single::new(packet), now, &mut from_a);
    while from_a.used + from_b.used > 0 {
        receive(&mut b, 1, &mut from_a, now, &mut from_b);
        from_a.clear();
        receive(&mut a, 2, &mut from_b, now, &mut from_a);
        from_b.clear();
    }
    assert_eq!(from_b.delivered, LEN, "there is no session");
    (a, b)
}

fn receive(interface: &mut Interface, from: u8, batch: &mut Batch, now: Instant, out: &mut Batch) {
    let mut rest = &mut batch.room[..];
    for len in &batch.lens {
        let datagram;
        (datagram, rest) = rest.split_at_mut(*len);
        interface.handle_datagram(Path::to(at(from)), datagram, now, out);
    }
}

fn nanoseconds_each(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64 / RUN as f64
}

fn nonce(counter: usize) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&(counter as u64).to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn main() {
    let mut packet = vec![0u8; LEN];
    packet[..20].copy_from_slice(&[0x45, 0, 5, 140, 0, 0, 0, 0, 64, 17, 0, 0, 10, 42, 0, 1, 10, 42, 0, 2]);
    let now = Instant::now();
    let (mut a, mut b) = connected(&packet, now);
    let bare = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &[7; 32]).expect("32 bytes"));

    let names = [
        "seal: bare AEAD",
        "seal: one by one",
        "seal: in a run",
        "open: bare AEAD",
        "open: through the interface",
    ];
    let mut times = names.map(|_| Vec::with_capacity(ROUNDS));
    let (mut batch, mut out, mut room) = (Batch::new(), Batch::new(), vec![0; (LEN + 16) * RUN]);
    let started = Instant::now();
    for _ in 0..ROUNDS {
        assert!(started.elapsed() < Duration::from_secs(60), "a session would be renewed meanwhile");
        times[0].push(nanoseconds_each(|| {
            for (counter, room) in room.chunks_exact_mut(LEN + 16).enumerate() {
                room[..LEN].copy_from_slice(&packet);
                let tag = bare.seal_in_place_separate_tag(nonce(counter), Aad::empty(), &mut room[..LEN]);
                room[LEN..].copy_from_slice(tag.expect("short enough").as_ref());
            }
        }));
        times[3].push(nanoseconds_each(|| {
            for (counter, room) in room.chunks_exact_mut(LEN + 16).enumerate() {
                black_box(bare.open_in_place(nonce(counter), Aad::empty(), room).expect("authentic").len());
            }
        }));
        times[1].push(nanoseconds_each(|| {
            for _ in 0..RUN {
                a.handle_packets(&mut Single::new(&packet), now, &mut batch);
            }
        }));
        receive(&mut b, 1, &mut batch, now, &mut out);
        batch.clear();
        times[2].push(nanoseconds_each(|| {
            a.handle_packets(&mut Segments { packet: &packet, left: RUN }, now, &mut batch);
        }));
        times[4].push(nanoseconds_each(|| receive(&mut b, 1, &mut batch, now, &mut out)));
        batch.clear();
    }
    assert_eq!(out.delivered, 2 * ROUNDS * RUN * LEN, "something was lost");
    println!("ns per packet of {LEN} bytes, median of {ROUNDS} runs of {RUN}");
    for (name, times) in names.into_iter().zip(times) {
        println!("  {name:<28}{:>8.0}", median(times));
    }
    idle_peers();
}

fn idle_peers() {
    let config = |number: usize| {
        let [.., high, low] = number.to_be_bytes();
        let mut seed = [7; 32];
        seed[8..10].copy_from_slice(&[high, low]);
        PeerConfig {
            public_key: WgPrivateKey::from_random(seed).public(),
            allowed_ips: vec![format!("10.43.{high}.{low}/32").parse().expect("a network")],
            endpoints: vec![at(high), at(low)],
            keepalive: None,
        }
    };
    let peers: Vec<_> = (0..IDLE).map(config).collect();
    let now = Instant::now();
    let mut interface = Interface::new(&key(1), 1420, now);
    let mut out = Batch::new();
    let before = resident_bytes();
    let times = [(); 3].map(|()| {
        let start = Instant::now();
        interface.set_peers(&peers, now, &mut out);
        start.elapsed()
    });
    let bytes = (resident_bytes() - before) / IDLE;
    println!(
        "{IDLE} idle peers: {bytes} bytes each; set in {:.1?}, set again unchanged in {:.1?}",
        times[0], times[2]
    );
    let start = Instant::now();
    (0..1000).for_each(|_| interface.handle_timeout(black_box(now), &mut out));
    println!("  {:?} to find that none has anything to do", start.elapsed() / 1000);
}

/// What the kernel gave to this process, pages of 4 KiB.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs is mounted");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number") * 4096
}
