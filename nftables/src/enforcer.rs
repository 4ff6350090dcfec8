//! The loader: the table, the switch of policies, and pins.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lattice_policy::{Counter, Overlay, Pin, RuleId, Table};

use crate::{
    Enter, Events, NftError, counters,
    events::now_ns,
    nflog::Socket,
    nft::Nft,
    ruleset::{self, Pinned, Place},
    sets::{Classes, Exhausted, Lines, Serials},
};

/// How to load the enforcer.
#[derive(Clone)]
pub struct Options {
    /// Runs a closure in the agent's network namespace.
    pub enter: Enter,
    /// The sandbox's own addresses: the only sources it may use, the only destinations let in.
    pub own: Vec<IpAddr>,
    /// Likewise, each on one link, by its name. The links must be there; one that comes later under that name is another.
    pub tied: Vec<(String, IpAddr)>,
    /// The overlay, whose packets pass the link of that name alone, in and out. Nothing passes when that link is gone.
    pub confined: Option<(Overlay, String)>,
    /// Name of the table, [`Options::TABLE`] where nothing speaks against it. A table that has the name is replaced.
    pub table: String,
    /// NFLOG group of the records, [`Options::LOG_GROUP`] where nothing speaks against it. Groups belong to the network
    /// namespace; each has one reader.
    pub log_group: u16,
}

/// A loaded enforcer. Dropping it ends nothing: the table stays until it is [removed](Self::remove) or its network
/// namespace ends.
pub struct Nftables {
    nft: Nft,
    place: Place,
    events: Option<Events>,
    lost: Arc<AtomicU64>,
    /// Of the policy in force; before the first, only where serials start.
    classes: Classes,
    /// Names the sets of the policy in force; 0 is none.
    epoch: u64,
    /// Of the policy in force.
    generation: u32,
    last_epoch: u64,
    /// Epochs whose sets are there and not asked any more.
    stale: Vec<u64>,
    pinned: HashMap<IpAddr, Held>,
}

/// A pin in force, as it was given to the kernel.
#[derive(Debug, Clone, Copy)]
struct Held {
    class: u32,
    until_ns: u64,
}

// === impl Options ===

impl Options {
    /// The usual name of the table.
    pub const TABLE: &str = "lattice";

    /// The usual NFLOG group.
    pub const LOG_GROUP: u16 = 1;
}

// === impl Nftables ===

impl Nftables {
    /// Makes a table that denies everything, and opens its log. Do it before the links of the agent's network namespace
    /// are up. A table that has the same name is replaced, without a moment between.
    ///
    /// # Errors
    /// When `nft` is missing or refuses, or when another process reads the log group.
    pub fn load(options: &Options) -> Result<Self, NftError> {
        let Options { enter, own, tied, confined, table, log_group } = options;
        if !is_name(table) {
            return Err(NftError::TableName(table.clone()));
        }
        let links = tied.iter().map(|(link, _)| link).chain(confined.iter().map(|(_, link)| link));
        if let Some(link) = links.into_iter().find(|link| !is_link(link)) {
            return Err(NftError::LinkName(link.clone()));
        }
        let place = Place {
            table: table.clone(),
            group: *log_group,
            is_tied: !tied.is_empty(),
            confined: confined.clone(),
        };
        let nft = Nft::find(enter.clone())?;
        nft.apply("make the table", &ruleset::closed(&place, own, tied))?;
        let socket = nft.inside(|| Socket::bind(place.group)).and_then(|socket| socket);
        let socket = socket.map_err(|source| NftError::Log { doing: "read", group: place.group, source })?;
        let lost = Arc::new(AtomicU64::new(0));
        Ok(Self {
            nft,
            place,
            events: Some(Events::new(socket, lost.clone())),
            lost,
            classes: Classes::new(Serials::new(first_serial()?)),
            epoch: 0,
            generation: 0,
            last_epoch: 0,
            stale: Vec::new(),
            pinned: HashMap::new(),
        })
    }

    /// Puts `table` with `pins` in force at once and as a whole: every packet sees the old policy or this one. Live flows
    /// are judged anew at their next packet. Earlier pins end. `generation` is what events will say; the caller chooses it.
    ///
    /// # Errors
    /// When `nft` refuses; the old policy is then still in force.
    pub fn apply(&mut self, table: &Table, pins: &[Pin], generation: u32) -> Result<(), NftError> {
        let mut classes = Classes::new(self.classes.next());
        let mut elements = classes.table(table)?;
        let held = hold(&mut classes, &mut elements.lines, pins, now_ns())?;
        let pinned: Vec<Pinned> = listed(&held).collect();
        // Serials of a policy that the kernel does not take may have reached it all the same.
        self.classes.skip_to(classes.next());

        let epoch = self.last_epoch + 1;
        self.last_epoch = epoch;
        let old: String = self.stale.iter().map(|&epoch| ruleset::without_sets(&self.place, epoch)).collect();
        let sets = ruleset::sets(&self.place, epoch, &elements, &pinned);
        let make = |script: &str| self.nft.apply("make the sets of a policy", script);
        // Old sets that somebody else has removed must not be in the way of every policy from now on.
        make(&(old + &sets)).or_else(|_| make(&sets))?;
        self.stale.clear();

        let live = ruleset::live(&self.place, epoch, generation, self.epoch == 0);
        let switched = self.nft.apply("put a policy in force", &live);
        if let Err(e) = switched {
            self.stale.push(epoch);
            if self.epoch > 0 && e.is_late() {
                // Killed, it may have done its work all the same. An error must mean that the old policy is in force.
                let back = ruleset::live(&self.place, self.epoch, self.generation, false);
                self.nft.apply("put the old policy back", &back)?;
            }
            return Err(e);
        }
        // A packet may be on its way through the old sets still. The next policy removes them.
        self.stale.extend((self.epoch > 0).then_some(self.epoch));
        classes.forget();
        (self.epoch, self.classes, self.pinned) = (epoch, classes, held);
        self.generation = generation;
        Ok(())
    }

    /// Adds pins to the policy in force; a pin of an address takes the place of an earlier one. They end by themselves.
    /// The kernel's clock of their ends stands still while the machine sleeps; each call removes those that are over.
    ///
    /// # Errors
    /// When there is no policy, when more than [`Pin::MAX`] addresses would be pinned, or when `nft` refuses. Earlier pins
    /// are then as they were.
    pub fn pin(&mut self, pins: &[Pin]) -> Result<(), NftError> {
        if self.epoch == 0 {
            return Err(NftError::NoPolicy);
        }
        let now = now_ns();
        let named: HashSet<IpAddr> = pins.iter().map(|pin| pin.address).collect();
        // Those that are over are deleted too: the kernel's clock may be behind.
        let is_gone = |address: &IpAddr, held: &Held| held.until_ns <= now || named.contains(address);
        let gone = self.pinned.iter().filter(|(address, held)| is_gone(address, held));
        let old: Vec<Pinned> =
            gone.map(|(&address, held)| Pinned { address, class: held.class, left: LEAST }).collect();
        let (mut classes, mut lines) = (self.classes.clone(), Lines::default());
        let new = hold(&mut classes, &mut lines, pins, now)?;
        let total = self.pinned.len() - old.len() + new.len();
        if total > Pin::MAX {
            return Err(NftError::TooManyPins(total));
        }
        let added: Vec<Pinned> = listed(&new).collect();
        let script = ruleset::pins(&self.place, self.epoch, &lines, &old, &added);
        if !script.is_empty() {
            self.nft.apply("pin addresses", &script)?;
        }
        self.classes = classes;
        self.pinned.retain(|address, held| !is_gone(address, held));
        self.pinned.extend(new);
        Ok(())
    }

    /// Takes the reading end of the log. Events from before it was taken are kept, as far as its buffer holds them.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn events(&mut self) -> Result<Events, NftError> {
        self.events.take().ok_or(NftError::EventsTaken)
    }

    /// How many verdicts were enforced but not told, because the buffer of the log was full. Known when the next verdict is
    /// read.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// What each rule of the policy in force decided about, in the order of their ids. [`RuleId::NONE`] is what no rule
    /// named.
    ///
    /// # Errors
    /// When `nft` refuses, or says what cannot be read.
    pub fn counters(&self) -> Result<Vec<(RuleId, Counter)>, NftError> {
        let mut sums = BTreeMap::new();
        for name in ["allow", "deny"] {
            if self.epoch == 0 {
                continue;
            }
            let map = format!("{name}_{}", self.epoch);
            let json = self.nft.ask("list counters", &["list", "map", "inet", &self.place.table, &map])?;
            counters::add(&mut sums, &json).ok_or_else(|| {
                NftError::Counters(String::from_utf8_lossy(&json).chars().take(80).collect())
            })?;
        }
        Ok(sums.into_iter().collect())
    }

    /// [`remove`] of its table.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub fn remove(self) -> Result<(), NftError> {
        without_table(&self.nft, &self.place.table)
    }
}

/// Removes a table, if it is there: **nothing is policed any more**. Not needed where the network namespace ends.
///
/// # Errors
/// When `nft` is missing or refuses.
pub fn remove(enter: Enter, table: &str) -> Result<(), NftError> {
    if !is_name(table) {
        return Err(NftError::TableName(table.to_owned()));
    }
    without_table(&Nft::find(enter)?, table)
}

fn without_table(nft: &Nft, table: &str) -> Result<(), NftError> {
    // Adding it first makes it no error that it is not there.
    nft.apply("remove the table", &format!("add table inet {table}\ndelete table inet {table}\n"))
}

impl std::fmt::Debug for Nftables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nftables")
            .field("place", &self.place)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl From<Exhausted> for NftError {
    fn from(_: Exhausted) -> Self {
        Self::Exhausted
    }
}

/// What `nft` takes as the least time.
const LEAST: Duration = Duration::from_millis(1);

/// The pins that are not over, each address once: the last pin of it counts.
fn hold(
    classes: &mut Classes,
    lines: &mut Lines,
    pins: &[Pin],
    now_ns: u64,
) -> Result<HashMap<IpAddr, Held>, NftError> {
    let mut held = HashMap::new();
    for pin in pins {
        held.remove(&pin.address);
        if pin.until_ns > now_ns {
            let class = classes.class(&pin.matches, lines)?;
            held.insert(pin.address, Held { class, until_ns: pin.until_ns });
        }
    }
    if held.len() > Pin::MAX {
        return Err(NftError::TooManyPins(held.len()));
    }
    Ok(held)
}

fn listed(held: &HashMap<IpAddr, Held>) -> impl Iterator<Item = Pinned> {
    let now = now_ns();
    held.iter().map(move |(&address, held)| {
        let left = Duration::from_nanos(held.until_ns.saturating_sub(now)).clamp(LEAST, MOST);
        Pinned { address, class: held.class, left }
    })
}

/// Longer than any answer of DNS holds, and within what `nft` takes.
const MOST: Duration = Duration::from_secs(86_400);

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.len() <= 64
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Links' names may have almost any character (`dev_valid_name`), quotes and line ends among them.
fn is_link(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@+".contains(&byte);
    (1..16).contains(&name.len()) && name.bytes().all(is_plain)
}

/// Flows of this network namespace may bear marks of an enforcer that was here before, killed or not. A start that nobody
/// can guess makes it unlikely that any of them means something now.
fn first_serial() -> Result<u32, NftError> {
    Ok(getrandom::u32().map_err(|e| NftError::Random(e.to_string()))? >> 1)
}
