//! The map `PINS`: names' addresses, in the slot of the policy that they belong to.
//!
//! A packet must never be judged by half-written lines, nor by lines of another address. So the lines of a pin are
//! replaced in place under its lock, which a program takes to copy them, and the memory of a removed pin is used
//! again only after a grace period, when no program can still look at it.

use std::{collections::BTreeMap, net::IpAddr};

use aya::maps::{HashMap, MapData, MapError};
use lattice_policy::Pin;
use nix::time::{ClockId, clock_gettime};

use crate::{
    EbpfError,
    abi::{self, PinKey, PinValue},
    lpm,
};

/// `BPF_F_LOCK`: replace in place, under the lock in the value.
const IN_PLACE: u64 = 4;

/// Addresses and the ends of their pins, in nanoseconds of `CLOCK_BOOTTIME`.
pub(crate) type Ends = BTreeMap<IpAddr, u64>;

pub(crate) struct Pins {
    map: HashMap<MapData, PinKey, PinValue>,
    /// What the slot in force holds.
    held: Ends,
    /// Whether something was removed since the last grace period.
    freed: bool,
}

impl Pins {
    /// Takes over what is pinned for `epoch`.
    pub(crate) fn new(map: HashMap<MapData, PinKey, PinValue>, epoch: u32) -> Result<Self, EbpfError> {
        let mut held = Ends::new();
        for entry in map.iter() {
            let (key, value) = entry.map_err(EbpfError::map("list", "PINS"))?;
            if key.slot == slot(epoch) && value.epoch == epoch {
                held.insert(key.address.ip(key.family), value.until_ns);
            }
        }
        // The one before may have removed something just now.
        Ok(Self { map, held, freed: true })
    }

    /// Removes whatever does not belong to the policy in force. A grace period must follow.
    pub(crate) fn clear_other_slots(&mut self, epoch: u32) -> Result<(), EbpfError> {
        let keys: Result<Vec<PinKey>, MapError> = self.map.keys().collect();
        for key in keys.map_err(EbpfError::map("list", "PINS"))? {
            if key.slot != slot(epoch) {
                self.remove(&key)?;
            }
        }
        Ok(())
    }

    /// Writes the pins of a policy that is not in force yet, and says what [`adopt`](Self::adopt) is to be told when it
    /// is.
    pub(crate) fn fill(&mut self, epoch: u32, pins: &[Pin]) -> Result<Ends, EbpfError> {
        let now = now_ns();
        let mut ends = Ends::new();
        for pin in pins.iter().filter(|pin| pin.until_ns > now) {
            self.write(epoch, pin)?;
            ends.insert(pin.address, pin.until_ns);
        }
        Ok(ends)
    }

    pub(crate) fn adopt(&mut self, ends: Ends) {
        self.held = ends;
    }

    /// Adds or replaces pins of the policy in force.
    pub(crate) fn add(&mut self, epoch: u32, pins: &[Pin]) -> Result<(), EbpfError> {
        for pin in pins {
            self.write(epoch, pin)?;
            self.held.insert(pin.address, pin.until_ns);
        }
        Ok(())
    }

    /// Makes room for `pins` in the policy in force, if need be by removing those that are over.
    pub(crate) fn make_room(&mut self, epoch: u32, pins: &[Pin]) -> Result<(), EbpfError> {
        let more = distinct(pins.iter().filter(|pin| !self.held.contains_key(&pin.address)));
        if self.held.len() + more <= Pin::MAX {
            return Ok(());
        }
        let now = now_ns();
        let over: Vec<IpAddr> = self.held.iter().filter(|&(_, &end)| end <= now).map(|(&ip, _)| ip).collect();
        for ip in over {
            // One that is about to be replaced may stay.
            if !pins.iter().any(|pin| pin.address == ip) {
                self.remove(&key(epoch, ip))?;
                self.held.remove(&ip);
            }
        }
        match self.held.len() + more {
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

    fn write(&mut self, epoch: u32, pin: &Pin) -> Result<(), EbpfError> {
        let lines = pin.matches.len();
        let (count, ranges) =
            lpm::ranges(&pin.matches).ok_or(EbpfError::PinTooLong { address: pin.address, lines })?;
        let value = PinValue { lock: 0, pad: 0, until_ns: pin.until_ns, epoch, count, ranges };
        self.map.insert(key(epoch, pin.address), value, IN_PLACE).map_err(EbpfError::map("add a pin", "PINS"))
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

fn slot(epoch: u32) -> u8 {
    (epoch % abi::SLOTS) as u8
}

fn key(epoch: u32, ip: IpAddr) -> PinKey {
    PinKey { slot: slot(epoch), family: abi::family(ip), pad: 0, address: ip.into() }
}

/// The clock of pins and verdicts. If it cannot be read, which Linux rules out, nothing is over.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(std::time::Duration::from);
    now.ok().and_then(|now| u64::try_from(now.as_nanos()).ok()).unwrap_or(0)
}
