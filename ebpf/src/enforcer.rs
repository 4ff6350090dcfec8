//! The loader: programs and maps, their pins, and the switch of policies.

use std::{
    fs::{DirBuilder, File},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::atomic::{Ordering, fence},
};

use aya::{
    Ebpf,
    maps::{Array, ArrayOfMaps, Map, MapData, PerCpuArray, RingBuf},
};
use lattice_policy::{Match, Overlay, Pin, Table, builtin};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use crate::{
    AttachMode, Attached, EbpfError, Events,
    abi::{self, Stats},
    bpffs, cgroup,
    counters::Counters,
    lines::Lines,
    link::{Framing, Link},
    lpm::Tries,
    pins::{self, Pins},
    probe,
};

mod object;
mod own;
mod tally;
#[cfg(test)]
mod verdicts;

pub(crate) use object::{load_all, program, refused};
use own::Own;
pub use tally::Overflow;

/// How to load the policy program.
#[derive(Debug, Clone)]
pub struct Options {
    /// An existing directory on a mounted BPF file system, one for each sandbox; see [`bpffs::mount`]. Pins go below it.
    pub pin_dir: PathBuf,
    /// Addresses of the sandbox on every link: sources that it may use, destinations that are let in. Those of a single
    /// link are told with it; see [`Enforcer::attach`].
    pub own: Vec<IpAddr>,
    /// How to attach to links.
    pub attach: AttachMode,
}

/// A loaded policy program. Dropping it ends nothing: policy and links stay until the pins go.
///
/// A program that is not loaded yet names its maps by descriptor *number*. So no descriptor of a map is closed as long
/// as `ebpf` lives: the maps taken out of it are kept here, and what is given away is opened anew from its pin.
pub struct Enforcer {
    pub(crate) ebpf: Ebpf,
    own: Own,
    events_taken: bool,
    config: Array<MapData, u64>,
    lines: Lines,
    pinned: Pins,
    grace: Grace,
    stats: PerCpuArray<MapData, Stats>,
    counters: Counters,
    pins: PathBuf,
    mode: AttachMode,
    /// Two writers would overwrite each other's slots.
    _lock: Flock<File>,
}

type AnyMap = Array<MapData, u32>;

/// Waits for the programs that run now.
struct Grace {
    map: ArrayOfMaps<MapData, AnyMap>,
    any: AnyMap,
}

impl Enforcer {
    /// Makes and pins the maps of the programs, which are loaded when a link needs them. Everything is denied until a
    /// policy is applied; a policy that is already pinned below `pin_dir` stays in force, and is taken over.
    ///
    /// # Errors
    /// When a capability or kernel feature is missing, when `pin_dir` is not on a BPF file system, or when another
    /// process has loaded from it.
    pub fn load(options: &Options) -> Result<Self, EbpfError> {
        probe::permitted()?;
        let pins = options.pin_dir.join(format!("abi{}", abi::VERSION));
        let lock = open_pins(&options.pin_dir, &pins)?;
        let mut ebpf = object::load(&pins)?;
        let mut own = Own::new(object::take(&mut ebpf, "OWN")?);
        own.set(abi::ANY_LINK, &options.own)?;
        let config = object::take(&mut ebpf, "CONFIG")?;
        let is_taken_over = epoch_of(read(&config)?) != 0;
        let grace = Grace {
            map: object::take(&mut ebpf, "GRACE")?,
            any: AnyMap::create(1, 0).map_err(EbpfError::map("make room", "GRACE"))?,
        };
        Ok(Self {
            own,
            events_taken: false,
            config,
            lines: Lines::new(object::take(&mut ebpf, "POLICY")?, object::take(&mut ebpf, "PORTS")?)?,
            pinned: Pins::new(object::take(&mut ebpf, "PINS")?, is_taken_over)?,
            grace,
            stats: object::take(&mut ebpf, "STATS")?,
            counters: Counters {
                low: object::take(&mut ebpf, "COUNTERS")?,
                high: object::take(&mut ebpf, "HIGH_COUNTERS")?,
                used: [abi::COUNTED_RULES; 2],
            },
            ebpf,
            pins,
            mode: options.attach,
            _lock: lock,
        })
    }

    /// Puts `table` and `pins` in force at once and as a whole: every packet sees the old policy with its pins, or this one
    /// with these. Live flows are judged anew at their next packet. `generation` is what events will say; the caller
    /// chooses it.
    ///
    /// # Errors
    /// When there are too many pins, or the kernel has no memory for it; the old policy is then still in force.
    pub fn apply(&mut self, table: &Table, pins: &[Pin], generation: u32) -> Result<(), EbpfError> {
        pins::check(pins)?;
        let old = epoch_of(read(&self.config)?);
        let epoch = next_epoch(old);
        // It is clear already, but for what a try that failed or a loader that was killed has left.
        self.clear(epoch)?;
        self.lines.fill(abi::slot(epoch), &Tries::new(abi::slot(epoch), table))?;
        self.pinned.fill(epoch, pins)?;
        self.counters.reset(old, epoch)?;
        let entries = table.egress.iter().chain(&table.ingress).map(|entry| &entry.matches);
        self.expect(epoch, entries.chain(pins.iter().map(|pin| &pin.matches)).flatten());
        let word = u64::from(epoch) << 32 | u64::from(generation);
        self.config.set(0, word, 0).map_err(EbpfError::map("write", "CONFIG"))?;
        // A program that finds the next slot cleared must find this policy in force.
        fence(Ordering::SeqCst);
        // It is in force, so this is no failure of it. The next policy tries again.
        let _left_for_the_next = self.clear(next_epoch(epoch));
        Ok(())
    }

    /// Adds pins to the policy in force. One for an address that has one replaces it as a whole; of several for the same
    /// address the last counts. When there is no room, those that are over are removed first.
    ///
    /// # Errors
    /// When there are too many, or the kernel has no memory for them; then some of them may be in force.
    pub fn pin(&mut self, pins: &[Pin]) -> Result<(), EbpfError> {
        pins::check(pins)?;
        let epoch = epoch_of(read(&self.config)?);
        self.pinned.make_room(epoch, pins)?;
        self.wait_for_grace()?;
        self.expect(epoch, pins.iter().flat_map(|pin| &pin.matches));
        self.pinned.add(epoch, pins)
    }

    /// Clears the slot of a policy that is not in force.
    fn clear(&mut self, epoch: u32) -> Result<(), EbpfError> {
        self.lines.clear(abi::slot(epoch))?;
        self.pinned.clear(epoch)?;
        self.wait_for_grace()
    }

    /// Lets the memory of removed pins be used again.
    fn wait_for_grace(&mut self) -> Result<(), EbpfError> {
        if self.pinned.needs_grace() {
            let Grace { map, any } = &mut self.grace;
            map.set(0, any, 0).map_err(EbpfError::map("wait for running programs", "GRACE"))?;
            self.pinned.grace_passed();
        }
        Ok(())
    }

    /// Counts for the rules of these lines. Built-in ones have counters of another kind.
    fn expect<'a>(&mut self, epoch: u32, lines: impl Iterator<Item = &'a Match>) {
        let rules = lines.map(|line| line.rule).filter(|rule| builtin::rule(*rule).is_none());
        if let Some(last) = rules.max() {
            self.counters.expect(epoch, last);
        }
    }

    /// Loads the programs for links of these kinds now, so that their first [`attach`](Self::attach) need not: the verifier
    /// takes some milliseconds for each. Tells nothing yet; the policy may be applied before or after.
    ///
    /// # Errors
    /// When the kernel refuses a program.
    pub fn prepare(&mut self, kinds: &[Framing]) -> Result<(), EbpfError> {
        let programs: Vec<&'static str> = kinds.iter().flat_map(|kind| kind.programs()).collect();
        object::load_all(&mut self.ebpf, &programs)
    }

    /// Polices a link of the **caller's** network namespace, both ways. Do it before the link is up. Doing it again
    /// replaces the programs without a gap; a link that was deleted and made again under the same name needs it. Pins of
    /// links that are gone are removed on the way. On loopback it denies everything: no packet comes in from an own address.
    ///
    /// `own` are the sandbox's addresses on this link, besides those of [`Options::own`]. An address is tied to one link at
    /// most, the last that named it. On another link nothing comes in for it, and what leaves with it as its source is
    /// refused as [`Spoofed`](lattice_policy::Reason::Spoofed), with an answer: its sender is not a liar, but mistaken.
    ///
    /// # Errors
    /// When there is no such link, it is neither Ethernet nor plain IP, the kernel lacks the attach mode, or there are too
    /// many addresses.
    pub fn attach(&mut self, link_name: &str, own: &[IpAddr]) -> Result<Attached, EbpfError> {
        let link = Link::find(link_name)?;
        self.own.set(link.index, own)?;
        link.attach(&mut self.ebpf, self.mode, &self.pins)
    }

    /// Lets packets from and to the `overlay` pass no link of the caller's network namespace but that one, whatever the policy
    /// says: where other links lead out of the namespace as well. Outgoing ones are refused by default,
    /// incoming ones are [`Spoofed`](lattice_policy::Reason::Spoofed).
    ///
    /// # Errors
    /// When there is no such link.
    pub fn confine(&mut self, overlay: &Overlay, link_name: &str) -> Result<(), EbpfError> {
        let link = Link::find(link_name)?;
        let word = |address: Ipv4Addr| u64::from(u32::from_ne_bytes(address.octets()));
        let half = |address: Ipv6Addr| (address.to_bits() >> 64) as u64;
        let (pool, prefix) = (overlay.pool(), overlay.prefix());
        let confined = word(pool.network()) << 32 | word(pool.netmask());
        let (confined6, mask) = (half(prefix.network()).to_be(), half(prefix.netmask()).to_be());
        // No link, while the networks are no longer the old ones and not yet the new ones.
        for (at, word) in [
            (abi::CONFINED_TO, 0),
            (abi::CONFINED, confined),
            (abi::CONFINED6, confined6),
            (abi::CONFINED6_MASK, mask),
            (abi::CONFINED_TO, link.index.into()),
        ] {
            self.config.set(at, word, 0).map_err(EbpfError::map("write", "CONFIG"))?;
        }
        Ok(())
    }

    /// Polices the calls of a cgroup (its directory in a version 2 hierarchy) and of all below it: a `connect` or `sendto`
    /// that the policy denies fails at once with `EPERM`. A second fence, and no substitute for [`attach`](Self::attach):
    /// it knows nothing of raw sockets, of ingress, or of packets. What an agent sends to itself passes.
    ///
    /// # Errors
    /// When it is no such directory or the kernel lacks the hooks; [`probe`](crate::probe) says so beforehand.
    pub fn attach_cgroup(&mut self, dir: &Path) -> Result<(), EbpfError> {
        cgroup::attach(&mut self.ebpf, dir, &self.pins)
    }

    /// Takes the reading end of the event ring. Events from before it was taken are kept, as far as the ring holds them.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn events(&mut self) -> Result<Events, EbpfError> {
        if self.events_taken {
            return Err(EbpfError::EventsTaken);
        }
        let fail = EbpfError::map("open the ring", "EVENTS");
        let pin = MapData::from_pin(self.pins.join("EVENTS"));
        let ring = pin.and_then(|map| RingBuf::try_from(Map::RingBuf(map))).map_err(fail)?;
        self.events_taken = true;
        Ok(Events(ring))
    }
}

impl std::fmt::Debug for Enforcer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enforcer").field("pins", &self.pins).field("mode", &self.mode).finish_non_exhaustive()
    }
}

fn open_pins(pin_dir: &Path, pins: &Path) -> Result<Flock<File>, EbpfError> {
    let fail = |source| EbpfError::PinDir { path: pin_dir.into(), source };
    if !bpffs::is_bpffs(pin_dir).map_err(fail)? {
        return Err(fail(io::Error::new(io::ErrorKind::NotFound, "no bpf file system is mounted there")));
    }
    match DirBuilder::new().mode(0o700).create(pins) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(fail(e)),
        _ => {}
    }
    let dir = File::open(pins).map_err(fail)?;
    Flock::lock(dir, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| match e {
        Errno::EWOULDBLOCK => EbpfError::InUse(pin_dir.into()),
        e => fail(e.into()),
    })
}

fn read(config: &Array<MapData, u64>) -> Result<u64, EbpfError> {
    config.get(&0, 0).map_err(EbpfError::map("read", "CONFIG"))
}

const fn epoch_of(config: u64) -> u32 {
    (config >> 32) as u32
}

/// 0 stays "no policy", also after 2³² policies.
const fn next_epoch(epoch: u32) -> u32 {
    match epoch.wrapping_add(1) {
        0 => abi::SLOTS,
        epoch => epoch,
    }
}
