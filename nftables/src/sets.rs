//! A table as the elements of sets in which nothing overlaps, so that a packet costs the same few look-ups whatever the
//! number of rules.
//!
//! ```text
//! address ─ intervals ─► class ─ (class, port) intervals ─► serial ─► rule
//! ```
//!
//! A *class* is one distinct list of lines, whichever addresses have it. A *serial* names a rule of one policy, and no
//! serial is used twice: it is what a flow is marked with, so the mark of an older policy means nothing to a newer one.

mod addresses;

use std::{collections::HashMap, net::IpAddr, ops::RangeInclusive};

use lattice_policy::{
    Action, Entry, Match, Proto, RuleId, Table,
    table::{icmp_line, port_intervals},
};

/// The serials are used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exhausted;

/// Gives serials out, each once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Serials(u32);

/// Elements of the sets that a policy consists of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Elements {
    /// Both families.
    pub(crate) egress: Vec<Span>,
    pub(crate) ingress: Vec<Span>,
    pub(crate) lines: Lines,
}

/// The addresses from `first` to `last` have this class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: IpAddr,
    pub(crate) last: IpAddr,
    pub(crate) class: u32,
}

/// What classes mean.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    pub(crate) tcp: Vec<Ports>,
    pub(crate) udp: Vec<Ports>,
    /// Class and serial.
    pub(crate) icmp: Vec<(u32, u32)>,
    pub(crate) rules: Vec<Serial>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) class: u32,
    pub(crate) ports: RangeInclusive<u16>,
    pub(crate) serial: u32,
}

/// A rule of one policy under the name that its flows are marked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Serial {
    pub(crate) serial: u32,
    pub(crate) rule: RuleId,
    pub(crate) action: Action,
}

/// The classes and serials of the policy in force; later pins add to them.
#[derive(Debug, Clone)]
pub(crate) struct Classes {
    classes: HashMap<Vec<Match>, u32>,
    last_class: u32,
    serials: HashMap<(RuleId, Action), u32>,
    next: Serials,
}

// === impl Serials ===

impl Serials {
    /// From `start` on; 0 is no serial.
    pub(crate) fn new(start: u32) -> Self {
        Self(start.max(1))
    }

    fn take(&mut self) -> Result<u32, Exhausted> {
        let serial = self.0;
        self.0 = serial.checked_add(1).ok_or(Exhausted)?;
        Ok(serial)
    }
}

// === impl Classes ===

impl Classes {
    /// For a new policy, whose serials start at `next`.
    pub(crate) fn new(next: Serials) -> Self {
        Self { classes: HashMap::new(), last_class: 0, serials: HashMap::new(), next }
    }

    /// Where the serials of the next policy start.
    pub(crate) fn next(&self) -> Serials {
        self.next
    }

    /// Forgets which lists there are, but not how many: pins have few lists, a table has many.
    pub(crate) fn forget(&mut self) {
        self.classes = HashMap::new();
    }

    /// Gives no serial before `next` any more.
    pub(crate) fn skip_to(&mut self, next: Serials) {
        self.next = next;
    }

    pub(crate) fn table(&mut self, table: &Table) -> Result<Elements, Exhausted> {
        let mut lines = Lines::default();
        let egress = self.spans(&table.egress, &mut lines)?;
        let ingress = self.spans(&table.ingress, &mut lines)?;
        Ok(Elements { egress, ingress, lines })
    }

    fn spans(&mut self, entries: &[Entry], lines: &mut Lines) -> Result<Vec<Span>, Exhausted> {
        let mut spans: Vec<Span> = Vec::new();
        for (first, last, entry) in addresses::cut(entries) {
            let class = self.class(&entry.matches, lines)?;
            match spans.last_mut() {
                Some(left) if left.class == class && addresses::adjacent(left.last, first) => {
                    left.last = last;
                }
                _ => spans.push(Span { first, last, class }),
            }
        }
        Ok(spans)
    }

    /// The class of a list of lines. What the list is, when it is new, is added to `lines`.
    pub(crate) fn class(&mut self, matches: &[Match], lines: &mut Lines) -> Result<u32, Exhausted> {
        if let Some(&class) = self.classes.get(matches) {
            return Ok(class);
        }
        let class = self.last_class.checked_add(1).ok_or(Exhausted)?;
        for (proto, into) in [(Proto::Tcp, &mut lines.tcp), (Proto::Udp, &mut lines.udp)] {
            for (ports, line) in port_intervals(proto, matches) {
                let serial = serial(&mut self.serials, &mut self.next, &mut lines.rules, line)?;
                into.push(Ports { class, ports, serial });
            }
        }
        if let Some(line) = icmp_line(matches) {
            let serial = serial(&mut self.serials, &mut self.next, &mut lines.rules, line)?;
            lines.icmp.push((class, serial));
        }
        self.last_class = class;
        self.classes.insert(matches.to_vec(), class);
        Ok(class)
    }
}

fn serial(
    known: &mut HashMap<(RuleId, Action), u32>,
    next: &mut Serials,
    rules: &mut Vec<Serial>,
    line: &Match,
) -> Result<u32, Exhausted> {
    let key = (line.rule, line.action);
    if let Some(&serial) = known.get(&key) {
        return Ok(serial);
    }
    let serial = next.take()?;
    known.insert(key, serial);
    rules.push(Serial { serial, rule: line.rule, action: line.action });
    Ok(serial)
}

#[cfg(test)]
mod tests;
