//! The loader: programs and maps, their pins, and the switch of policies.

use std::{
    fs::{DirBuilder, File},
    io,
    net::IpAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel, include_bytes_aligned,
    maps::{
        Array, ArrayOfMaps, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, RingBuf, lpm_trie::Key,
    },
    programs::{ProgramError, SchedClassifier},
};
use lattice_policy::{Reason, Table};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use crate::{
    AttachMode, Attached, EbpfError, Events,
    abi::{self, OwnKey, PortKey, PortValue, PrefixKey, PrefixValue},
    bpffs, event, link,
    lpm::Tries,
    probe::probe,
};

#[cfg(test)]
mod verdicts;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/policy.bpf.o"));

const MAPS: [&str; 9] =
    ["CONFIG", "POLICY", "PORTS", "OWN", "FLOWS", "DENIED", "FRAGMENTS", "STATS", "EVENTS"];

/// `BPF_F_NO_PREALLOC`, which tries require.
pub(crate) const NO_PREALLOC: u32 = 1;

/// How to load the policy program.
#[derive(Debug, Clone)]
pub struct Options {
    /// An existing directory on a mounted BPF file system, one for each sandbox; see [`bpffs::mount`]. Pins go below it.
    pub pin_dir: PathBuf,
    /// The sandbox's own addresses: the only sources it may use, the only destinations let in.
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
    _own: HashMap<MapData, OwnKey, u8>,
    events_taken: bool,
    config: Array<MapData, u64>,
    policy: ArrayOfMaps<MapData, PrefixTrie>,
    ports: ArrayOfMaps<MapData, PortTrie>,
    stats: PerCpuArray<MapData, u64>,
    pins: PathBuf,
    mode: AttachMode,
    /// Two writers would overwrite each other's slots.
    _lock: Flock<File>,
}

type PrefixTrie = LpmTrie<MapData, PrefixKey, PrefixValue>;
type PortTrie = LpmTrie<MapData, PortKey, PortValue>;

impl Enforcer {
    /// Makes and pins the maps of the programs, which are loaded when a link needs them. Everything is denied until a policy is applied; a policy that is already
    /// pinned below `pin_dir` stays in force, and is taken over.
    ///
    /// # Errors
    /// When a capability or kernel feature is missing, when `pin_dir` is not on a BPF file system, or when another
    /// process has loaded from it.
    pub fn load(options: &Options) -> Result<Self, EbpfError> {
        probe()?;
        if options.own.len() > abi::MAX_OWN {
            return Err(EbpfError::TooManyAddresses(options.own.len()));
        }
        let pins = options.pin_dir.join(format!("abi{}", abi::VERSION));
        let lock = open_pins(&options.pin_dir, &pins)?;
        let mut ebpf = load_object(&pins)?;
        let mut own = take(&mut ebpf, "OWN")?;
        set_own(&mut own, &options.own)?;
        Ok(Self {
            _own: own,
            events_taken: false,
            config: take(&mut ebpf, "CONFIG")?,
            policy: take(&mut ebpf, "POLICY")?,
            ports: take(&mut ebpf, "PORTS")?,
            stats: take(&mut ebpf, "STATS")?,
            ebpf,
            pins,
            mode: options.attach,
            _lock: lock,
        })
    }

    /// Puts `table` in force at once and as a whole: every packet sees the old policy or this one. Live flows are judged
    /// anew at their next packet. `generation` is what events will say; the caller chooses it.
    ///
    /// # Errors
    /// When the kernel has no memory for it; the old policy is then still in force.
    pub fn apply(&mut self, table: &Table, generation: u32) -> Result<(), EbpfError> {
        let tries = Tries::from(table);
        let policy: PrefixTrie = filled("POLICY", &tries.prefixes)?;
        let old = self.config.get(&0, 0).map_err(EbpfError::map("read", "CONFIG"))?;
        let epoch = next_epoch(old);
        let slot = epoch % abi::SLOTS;
        self.policy.set(slot, &policy, 0).map_err(EbpfError::map("set a slot", "POLICY"))?;
        // Each write of a slot waits until no packet is being judged any more. Without ranges that spill over, nothing
        // points into PORTS.
        if !tries.ports.is_empty() {
            let ports: PortTrie = filled("PORTS", &tries.ports)?;
            self.ports.set(slot, &ports, 0).map_err(EbpfError::map("set a slot", "PORTS"))?;
        }
        let word = u64::from(epoch) << 32 | u64::from(generation);
        self.config.set(0, word, 0).map_err(EbpfError::map("write", "CONFIG"))
    }

    /// Polices a link of the **caller's** network namespace, both ways. Do it before the link is up. Doing it again
    /// replaces the programs without a gap. On loopback it denies everything: no packet comes in from an own address.
    ///
    /// # Errors
    /// When there is no such link, it is neither Ethernet nor plain IP, or the kernel lacks the attach mode.
    pub fn attach(&mut self, link_name: &str) -> Result<Attached, EbpfError> {
        link::attach(&mut self.ebpf, link_name, self.mode, &self.pins)
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

    /// How many verdicts were enforced but not told, because the ring was full.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn lost(&self) -> Result<u64, EbpfError> {
        self.counter(abi::LOST)
    }

    /// How many packets each reason decided, in the order of the reasons' numbers.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn stats(&self) -> Result<Vec<(Reason, u64)>, EbpfError> {
        event::REASONS.into_iter().map(|reason| Ok((reason, self.counter(reason as u32)?))).collect()
    }

    fn counter(&self, index: u32) -> Result<u64, EbpfError> {
        let per_cpu = self.stats.get(&index, 0).map_err(EbpfError::map("read", "STATS"))?;
        Ok(per_cpu.iter().sum())
    }
}

impl std::fmt::Debug for Enforcer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enforcer").field("pins", &self.pins).field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// The program called `name`, loaded at its first use: the verifier takes some 15 ms for each, and a sandbox whose links
/// are all of one kind needs half of them.
pub(crate) fn program<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, EbpfError> {
    let program = ebpf.program_mut(name).ok_or(EbpfError::Object(name))?;
    let program: &mut SchedClassifier = program.try_into().map_err(|e| refused(name, e))?;
    if program.fd().is_err() {
        program.load().map_err(|e| refused(name, e))?;
    }
    Ok(program)
}

pub(crate) fn refused(name: &'static str, e: ProgramError) -> EbpfError {
    EbpfError::Program { name, source: Box::new(e) }
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

fn load_object(pins: &Path) -> Result<Ebpf, EbpfError> {
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(VerifierLogLevel::STATS);
    for name in MAPS {
        loader.map_pin_path(name, pins.join(name));
    }
    loader.load(OBJECT).map_err(|e| EbpfError::Load(Box::new(e)))
}

fn take<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, EbpfError> {
    let map = ebpf.take_map(name).ok_or(EbpfError::Object(name))?;
    T::try_from(map).map_err(EbpfError::map("find what the loader expects", name))
}

/// The addresses that stay are never touched; the map is full-size, so the others go first.
fn set_own(map: &mut HashMap<MapData, OwnKey, u8>, own: &[IpAddr]) -> Result<(), EbpfError> {
    let wanted: Vec<OwnKey> = own.iter().map(|&ip| ip.into()).collect();
    let listed: Result<Vec<OwnKey>, _> = map.keys().collect();
    for old in listed.map_err(EbpfError::map("list", "OWN"))? {
        if !wanted.contains(&old) {
            map.remove(&old).map_err(EbpfError::map("remove an address", "OWN"))?;
        }
    }
    for key in wanted {
        map.insert(key, 1, 0).map_err(EbpfError::map("add an address", "OWN"))?;
    }
    Ok(())
}

fn filled<K: aya::Pod, V: aya::Pod>(
    name: &'static str,
    entries: &[(Key<K>, V)],
) -> Result<LpmTrie<MapData, K, V>, EbpfError> {
    let room = u32::try_from(entries.len()).unwrap_or(u32::MAX).max(1);
    let mut trie =
        LpmTrie::create(room, NO_PREALLOC).map_err(EbpfError::map("make room for a policy", name))?;
    for (key, value) in entries {
        trie.insert(key, value, 0).map_err(EbpfError::map("add a line of a policy", name))?;
    }
    Ok(trie)
}

/// 0 stays "no policy", also after 2³² policies.
const fn next_epoch(config: u64) -> u32 {
    match ((config >> 32) as u32).wrapping_add(1) {
        0 => abi::SLOTS,
        epoch => epoch,
    }
}
