//! The map `PINS`: names' addresses, in the slot of the policy that they belong to.
//!
//! A packet must never be judged by half-written lines, nor by lines of another address. So the lines of a pin are
//! replaced in place under its lock, which a program takes to copy them, and the memory of a removed pin is used
//! again only after a grace period, when no program can still look at it. A policy keeps its pins as long as its lines
//! ([`crate::lines`]).

use std::{collections::BTreeMap, mem, net::IpAddr};

use aya::maps::{HashMap, MapData};
use lattice_policy::Pin;
use nix::time::{ClockId, clock_gettime};

use crate::{
    EbpfError,
    abi::{self, PinKey, PinValue, SLOTS, slot},
    lpm,
};

/// `BPF_F_LOCK`: replace in place, under the lock in the value.
const IN_PLACE: u64 = 4;

/// Addresses and the ends of their pins, in nanoseconds of `CLOCK_BOOTTIME`.
type Ends = BTreeMap<IpAddr, u64>;

pub(crate) struct Pins {
    map: HashMap<MapData, PinKey, PinValue>,
    held: [Ends; SLOTS as usize],
    /// Whether something was removed since the last grace period.
    freed: bool,
}

impl Pins {
    /// Takes over what is pinned. `freed`: the loader before may have removed something just now.
    pub(crate) fn new(map: HashMap<MapData, PinKey, PinValue>, freed: bool) -> Result<Self, EbpfError> {
        let mut held = [const { Ends::new() }; SLOTS as usize];
        for entry in map.iter() {
            let (key, value) = entry.map_err(EbpfError::map("list", "PINS"))?;
            if let Some(held) = held.get_mut(usize::from(key.slot)) {
                held.insert(key.address.ip(key.family), value.until_ns);
            }
        }
        Ok(Self { map, held, freed })
    }

    /// Removes what the slot of `epoch` holds. A grace period must follow.
    pub(crate) fn clear(&mut self, epoch: u32) -> Result<(), EbpfError> {
        let mut left = mem::take(self.held(epoch));
        while let Some((&ip, _)) = left.last_key_value() {
            if let Err(error) = self.remove(&key(epoch, ip)) {
                *self.held(epoch) = left;
                return Err(error);
            }
            left.pop_last();
        }
        Ok(())
    }

    /// Writes the pins of a policy that is not in force yet, into its slot, which is clear. Those that are over need no room.
    pub(crate) fn fill(&mut self, epoch: u32, pins: &[Pin]) -> Result<(), EbpfError> {
        let now = now_ns();
        // Of several for one address the last counts, also where it is over.
        let last: BTreeMap<IpAddr, &Pin> = pins.iter().map(|pin| (pin.address, pin)).collect();
        last.into_values().filter(|pin| pin.until_ns > now).try_for_each(|pin| self.write(epoch, pin))
    }

    /// Adds or replaces pins of the policy in force.
    pub(crate) fn add(&mut self, epoch: u32, pins: &[Pin]) -> Result<(), EbpfError> {
        pins.iter().try_for_each(|pin| self.write(epoch, pin))
    }

    /// Makes room for `pins` in the policy in force, if need be by removing those that are over.
    pub(crate) fn make_room(&mut self, epoch: u32, pins: &[Pin]) -> Result<(), EbpfError> {
        let held = self.held(epoch);
        let more = distinct(pins.iter().filter(|pin| !held.contains_key(&pin.address)));
        if held.len() + more <= Pin::MAX {
            return Ok(());
        }
        let now = now_ns();
        let over: Vec<IpAddr> = held.iter().filter(|&(_, &end)| end <= now).map(|(&ip, _)| ip).collect();
        for ip in over {
            // One that is about to be replaced may stay.
            if !pins.iter().any(|pin| pin.address == ip) {
                self.remove(&key(epoch, ip))?;
                self.held(epoch).remove(&ip);
            }
        }
        match self.held(epoch).len() + more {
            all if all > Pin::MAX => Err(EbpfError::TooManyPins(all)),
            _ => Ok(()),
        }
    }

    /// Whether a grace period must pass before anything is added.
    pub(crate) fn needs_grace(&self) -> bool {
        self.freed
    }

    pub(crate) fn grace_passed(&mut self) {
        self.freed = false;
    }

    fn remove(&mut self, key: &PinKey) -> Result<(), EbpfError> {
        self.freed = true;
        self.map.remove(key).map_err(EbpfError::map("remove a pin", "PINS"))
    }

    /// The pins in the slot of `epoch`.
    fn held(&mut self, epoch: u32) -> &mut Ends {
        &mut self.held[usize::from(slot(epoch))]
    }

    fn write(&mut self, epoch: u32, pin: &Pin) -> Result<(), EbpfError> {
        let lines = pin.matches.len();
        let (count, ranges) =
            lpm::ranges(&pin.matches).ok_or(EbpfError::PinTooLong { address: pin.address, lines })?;
        let value = PinValue { lock: 0, pad: 0, until_ns: pin.until_ns, epoch, count, ranges };
        self.map
            .insert(key(epoch, pin.address), value, IN_PLACE)
            .map_err(EbpfError::map("add a pin", "PINS"))?;
        self.held(epoch).insert(pin.address, pin.until_ns);
        Ok(())
    }
}

/// Whether a policy can have these pins, before anything is changed for them.
pub(crate) fn check(pins: &[Pin]) -> Result<(), EbpfError> {
    if let Some(pin) = pins.iter().find(|pin| pin.matches.len() > Pin::MAX_LINES) {
        return Err(EbpfError::PinTooLong { address: pin.address, lines: pin.matches.len() });
    }
    match distinct(pins.iter()) {
        all if all > Pin::MAX => Err(EbpfError::TooManyPins(all)),
        _ => Ok(()),
    }
}

fn distinct<'a>(pins: impl Iterator<Item = &'a Pin>) -> usize {
    pins.map(|pin| pin.address).collect::<std::collections::BTreeSet<_>>().len()
}

fn key(epoch: u32, ip: IpAddr) -> PinKey {
    PinKey { slot: slot(epoch), family: abi::family(ip), pad: 0, address: ip.into() }
}

/// The clock of pins and verdicts. If it cannot be read, which Linux rules out, nothing is over.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(std::time::Duration::from);
    now.ok().and_then(|now| u64::try_from(now.as_nanos()).ok()).unwrap_or(0)
}
