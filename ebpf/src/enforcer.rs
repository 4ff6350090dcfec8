//! The loader: programs and maps, their pins, and the switch of policies.

use std::{
    fs::{DirBuilder, File},
    io,
    net::IpAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    maps::{Array, ArrayOfMaps, LpmTrie, Map, MapData, PerCpuArray, RingBuf, lpm_trie::Key},
};
use lattice_policy::{Pin, Table};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use crate::{
    AttachMode, Attached, EbpfError, Events,
    abi::{self, PortKey, PortValue, PrefixKey, PrefixValue, Stats},
    bpffs, cgroup,
    counters::Counters,
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

pub(crate) use object::{load_all, loaded, program, refused};
use own::Own;
pub use tally::Overflow;

/// `BPF_F_NO_PREALLOC`, which tries require.
pub(crate) const NO_PREALLOC: u32 = 1;

/// How many lines a first policy may have to be filled into the trie that waits for it. The trie takes memory line by line.
const FIRST_ROOM: u32 = 1 << 16;

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
    /// What the first policy's slot holds before there is one: an empty trie, which is filled where it is. To put another
    /// there would take a grace period of the kernel, which may be 30 ms.
    first: Option<PrefixTrie>,
    events_taken: bool,
    config: Array<MapData, u64>,
    policy: ArrayOfMaps<MapData, PrefixTrie>,
    ports: ArrayOfMaps<MapData, PortTrie>,
    pinned: Pins,
    stats: PerCpuArray<MapData, Stats>,
    counters: Counters,
    pins: PathBuf,
    mode: AttachMode,
    /// Two writers would overwrite each other's slots.
    _lock: Flock<File>,
}

type PrefixTrie = LpmTrie<MapData, PrefixKey, PrefixValue>;
type PortTrie = LpmTrie<MapData, PortKey, PortValue>;

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
        let epoch = epoch_of(read(&config)?);
        let mut this = Self {
            own,
            first: None,
            events_taken: false,
            config,
            policy: object::take(&mut ebpf, "POLICY")?,
            ports: object::take(&mut ebpf, "PORTS")?,
            pinned: Pins::new(object::take(&mut ebpf, "PINS")?, epoch)?,
            stats: object::take(&mut ebpf, "STATS")?,
            counters: Counters {
                low: object::take(&mut ebpf, "COUNTERS")?,
                high: object::take(&mut ebpf, "HIGH_COUNTERS")?,
            },
            ebpf,
            pins,
            mode: options.attach,
            _lock: lock,
        };
        if epoch == 0 {
            let first = with_room("POLICY", FIRST_ROOM)?;
            this.put(next_epoch(epoch), &first)?;
            this.first = Some(first);
        }
        Ok(this)
    }

    /// Puts `table` and `pins` in force at once and as a whole: every packet sees the old policy with its pins, or this one
    /// with these. Live flows are judged anew at their next packet. `generation` is what events will say; the caller
    /// chooses it.
    ///
    /// # Errors
    /// When there are too many pins, or the kernel has no memory for it; the old policy is then still in force.
    pub fn apply(&mut self, table: &Table, pins: &[Pin], generation: u32) -> Result<(), EbpfError> {
        pins::check(pins)?;
        let tries = Tries::from(table);
        let old = epoch_of(read(&self.config)?);
        let epoch = next_epoch(old);
        self.pinned.clear_other_slots(old)?;
        match self.first.take() {
            // Should it fail, the next policy gets a trie of its own.
            Some(mut first) if tries.prefixes.len() <= FIRST_ROOM as usize => {
                fill("POLICY", &mut first, &tries.prefixes)?;
            }
            _ => self.put(epoch, &filled("POLICY", &tries.prefixes)?)?,
        }
        // Without ranges that spill over, nothing points into PORTS.
        if !tries.ports.is_empty() {
            let ports: PortTrie = filled("PORTS", &tries.ports)?;
            self.ports.set(epoch % abi::SLOTS, &ports, 0).map_err(EbpfError::map("set a slot", "PORTS"))?;
        }
        let ends = self.pinned.fill(epoch, pins)?;
        self.counters.reset(old, epoch)?;
        let word = u64::from(epoch) << 32 | u64::from(generation);
        self.config.set(0, word, 0).map_err(EbpfError::map("write", "CONFIG"))?;
        self.pinned.adopt(ends);
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
        if self.pinned.needs_grace() {
            // Any slot does that nothing reads.
            self.put(next_epoch(epoch), &filled("POLICY", &[])?)?;
        }
        self.pinned.add(epoch, pins)
    }

    /// Writes a slot that is not in force, and waits until no packet is being judged any more that was when it began.
    fn put(&mut self, epoch: u32, policy: &PrefixTrie) -> Result<(), EbpfError> {
        self.first = None;
        self.policy.set(epoch % abi::SLOTS, policy, 0).map_err(EbpfError::map("set a slot", "POLICY"))?;
        self.pinned.grace_passed();
        Ok(())
    }

    /// Loads the programs for links of these kinds now, so that their first [`attach`](Self::attach) need not: the verifier
    /// takes some 15 ms for each. Tells nothing yet; the policy may be applied before or after.
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

fn filled<K: aya::Pod, V: aya::Pod>(
    name: &'static str,
    entries: &[(Key<K>, V)],
) -> Result<LpmTrie<MapData, K, V>, EbpfError> {
    let mut trie = with_room(name, u32::try_from(entries.len()).unwrap_or(u32::MAX).max(1))?;
    fill(name, &mut trie, entries)?;
    Ok(trie)
}

fn with_room<K: aya::Pod, V: aya::Pod>(
    name: &'static str,
    room: u32,
) -> Result<LpmTrie<MapData, K, V>, EbpfError> {
    LpmTrie::create(room, NO_PREALLOC).map_err(EbpfError::map("make room for a policy", name))
}

fn fill<K: aya::Pod, V: aya::Pod>(
    name: &'static str,
    trie: &mut LpmTrie<MapData, K, V>,
    entries: &[(Key<K>, V)],
) -> Result<(), EbpfError> {
    entries.iter().try_for_each(|(key, value)| {
        trie.insert(key, value, 0).map_err(EbpfError::map("add a line of a policy", name))
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
