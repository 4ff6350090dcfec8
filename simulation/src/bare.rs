//! WireGuard alone: it searches its peers at the addresses that the control plane names. No relay, no hole punching.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use ipnet::IpNet;
use lattice_paths::address::may_be_probed;
use lattice_wire::{WgPrivateKey, WgPublicKey};
use lattice_wireguard::{Interface, Output, Path, PeerConfig, Single, Sources};

use crate::{Device, Effect, Input, Member, Random, world};

/// What the inner packets may measure.
const MTU: u16 = 1280;
/// The time of day at the beginning, in seconds.
const EPOCH: Duration = Duration::from_secs(1_800_000_000);

/// An interface as a device.
pub struct Bare(WireGuard);

/// An interface, and the time of day that it goes by.
pub(crate) struct WireGuard {
    pub(crate) interface: Interface,
    start: Instant,
    elapsed: Arc<AtomicU64>,
}

/// What an interface puts out.
pub(crate) struct Out<'a>(pub(crate) &'a mut Vec<Effect>);

/// The addresses of the overlay.
pub(crate) fn pool() -> IpNet {
    IpNet::new([10, 42, 0, 0].into(), 16).expect("16 is a prefix length")
}

/// A peer as WireGuard knows it. What it says of its addresses is sifted by the interface's owner.
fn peer(member: &Member) -> PeerConfig {
    let endpoints = member.endpoints.iter().filter(|endpoint| may_be_probed(**endpoint, &[pool()]));
    PeerConfig {
        public_key: member.key,
        allowed_ips: vec![IpAddr::V4(member.overlay).into()],
        endpoints: endpoints.copied().collect(),
        keepalive: None,
    }
}

// === impl WireGuard ===

impl WireGuard {
    pub(crate) fn new(private_key: &WgPrivateKey, mut random: Random, now: Instant) -> Self {
        let elapsed = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&elapsed);
        let sources = Sources {
            random: Box::new(Seeded(random.split())),
            wall_clock: Box::new(move || {
                SystemTime::UNIX_EPOCH + EPOCH + Duration::from_nanos(clock.load(Ordering::Relaxed))
            }),
        };
        Self { interface: Interface::with_sources(private_key, MTU, now, sources), start: now, elapsed }
    }

    /// Lets it know how late it is. To be called with each input.
    pub(crate) fn set_time(&mut self, now: Instant) {
        self.elapsed.store((now - self.start).as_nanos() as u64, Ordering::Relaxed);
    }

    pub(crate) fn set_peers(&mut self, members: &[Member], now: Instant, out: &mut Vec<Effect>) {
        let peers: Vec<PeerConfig> = members.iter().map(peer).collect();
        self.interface.set_peers(&peers, now, &mut Out(out));
    }
}

/// Chance as the interface wants it.
struct Seeded(Random);

impl lattice_wireguard::Random for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}

impl Output for Out<'_> {
    fn transmit(&mut self, path: Path, len: usize, write: impl FnOnce(&mut [u8])) {
        let mut bytes = vec![0; len];
        write(&mut bytes);
        self.0.push(match path {
            Path::Direct { remote, local } => Effect::Datagram { local, remote, bytes },
            Path::Relay { relay, peer } => Effect::Relayed { relay, to: peer, bytes },
        });
    }

    fn deliver(&mut self, packet: &mut [u8]) {
        self.0.push(Effect::Packet(packet.to_vec()));
    }
}

// === impl Bare ===

impl Bare {
    /// A device without peers.
    pub fn boxed(identity: world::Identity, now: Instant) -> Box<dyn Device> {
        Box::new(Self(WireGuard::new(&identity.private_key, identity.random, now)))
    }
}

impl Device for Bare {
    fn handle(&mut self, input: Input<'_>, now: Instant, out: &mut Vec<Effect>) {
        self.0.set_time(now);
        let interface = &mut self.0.interface;
        match input {
            Input::Map(members) => self.0.set_peers(members, now, out),
            Input::Datagram { local, remote, bytes } => {
                let from = Path::Direct { remote, local: Some(local.ip()) };
                let _whose = interface.handle_datagram(from, &mut bytes.to_vec(), now, &mut Out(out));
            }
            Input::Packet(packet) => {
                let _whose = interface.handle_packets(&mut Single::new(packet), now, &mut Out(out));
            }
            Input::Timeout => interface.handle_timeout(now, &mut Out(out)),
            Input::Resumed => interface.forget_sessions(now, &mut Out(out)),
            Input::Addresses(_) | Input::Relayed { .. } | Input::Relay { .. } | Input::Signal { .. } => {}
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.0.interface.poll_timeout()
    }

    fn path(&self, key: &WgPublicKey) -> Option<Path> {
        self.0.interface.peer(key)?.path()
    }

    fn describe(&self) -> String {
        format!("{:?}", self.0.interface.drops())
    }
}
