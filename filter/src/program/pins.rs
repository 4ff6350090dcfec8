//! What names stood for: asked on egress, where the table says nothing.

use std::collections::HashMap;

use lattice_policy::{Match, Pin, Proto};

use super::{Line, counters::Counters};
use crate::packet::{FlowKey, address};

/// By family and address. The map's hash is keyed with a random seed: addresses come from whoever answers a name.
#[derive(Debug, Default)]
pub(super) struct Pins(HashMap<(u8, u128), Pinned>);

#[derive(Debug)]
struct Pinned {
    until_ns: u64,
    lines: Vec<(Match, Line)>,
}

impl Pins {
    /// Adds a pin, or replaces the one of that address. Where there are [`Pin::MAX`], the one that ends first gives way:
    /// what is over goes before what holds, and this needs no clock.
    pub(super) fn insert(&mut self, pin: &Pin, counters: &mut Counters) {
        let key = address(pin.address);
        if self.0.len() >= Pin::MAX && !self.0.contains_key(&key) {
            let first = self.0.iter().min_by_key(|(_, pinned)| pinned.until_ns);
            let Some((first, until_ns)) = first.map(|(key, pinned)| (*key, pinned.until_ns)) else { return };
            if until_ns >= pin.until_ns {
                return;
            }
            self.0.remove(&first);
        }
        let lines = pin.matches.iter().take(Pin::MAX_LINES);
        let lines = lines.map(|line| (*line, counters.line(line))).collect();
        self.0.insert(key, Pinned { until_ns: pin.until_ns, lines });
    }

    pub(super) fn find(&self, key: &FlowKey, proto: Proto, port: u16, now_ns: u64) -> Option<Line> {
        if self.0.is_empty() {
            return None;
        }
        let pinned = self.0.get(&(key.family, key.remote)).filter(|pinned| pinned.until_ns > now_ns)?;
        pinned.lines.iter().find(|(line, _)| line.fits(proto, Some(port))).map(|(_, line)| *line)
    }
}
