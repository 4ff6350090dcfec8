//! What is given to `nft`: the sets of a policy, and the chains that look a packet up in them.
//!
//! A policy comes in two transactions. The first makes its sets, under names of their own, where nothing looks yet; the
//! second rewrites the chains, all at once. Kernels before 6.17 show the elements of a transaction a moment after its
//! rules: in one transaction, a flow that both policies allow could be refused.

use std::{
    fmt::{self, Write as _},
    net::IpAddr,
    time::Duration,
};

use lattice_policy::{Action, Overlay, Pin, Reason, RuleId};

use crate::sets::{Elements, Lines, Ports, Span};

mod chains;

pub(crate) use chains::live;

/// In the mark of what is told under [`ODD`], above the number of the reason.
pub(crate) const REASON: u32 = 0xFFFE_0000;

/// Begin the prefix of every record; the generation follows.
pub(crate) const ALLOWED: &str = "lattice+";
pub(crate) const DENIED: &str = "lattice-";
/// Denied for what it is; the mark says why.
pub(crate) const ODD: &str = "lattice!";

/// The key under which the map of deny rules counts what no rule decided. No serial comes to it.
const NO_RULE: u32 = u32::MAX;

/// Most denied flows that are remembered for a second, in each of four sets.
const TOLD: usize = 4096;

/// Where everything is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The table.
    pub(crate) table: String,
    /// The NFLOG group.
    pub(crate) group: u16,
    /// Whether addresses are tied to links.
    pub(crate) is_tied: bool,
    /// The overlay, whose packets pass one link alone.
    pub(crate) confined: Option<(Overlay, String)>,
}

/// A pin as the kernel is told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pinned {
    pub(crate) address: IpAddr,
    pub(crate) class: u32,
    /// At least a millisecond.
    pub(crate) left: Duration,
}

/// Replaces whatever the table was by one that denies everything.
pub(crate) fn closed(place: &Place, own: &[IpAddr], tied: &[(String, IpAddr)]) -> String {
    let table = &place.table;
    let addresses = own.iter().chain(tied.iter().map(|(_, address)| address));
    let list = |v4| Joined(addresses.clone().filter(move |ip| ip.is_ipv4() == v4));
    let mut text = format!("add table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n");
    set(&mut text, "own4", "ipv4_addr", "", &list(true).to_string());
    set(&mut text, "own6", "ipv6_addr", "", &list(false).to_string());
    for (family, kind, v4) in
        [(4, "ipv4_addr", true), (6, "ipv6_addr", false)].iter().filter(|_| place.is_tied)
    {
        let tied = tied.iter().filter(|(_, address)| address.is_ipv4() == *v4);
        let alone = Joined(tied.clone().map(|(_, address)| address)).to_string();
        set(&mut text, &format!("tied{family}"), kind, "", &alone);
        let pairs = Joined(tied.map(|(link, address)| OnLink(link, address))).to_string();
        set(&mut text, &format!("links{family}"), &format!("iface_index . {kind}"), "", &pairs);
    }
    let flags = format!("flags dynamic,timeout; timeout 1s; size {TOLD};");
    for (family, address) in [(4, "ipv4_addr"), (6, "ipv6_addr")] {
        let ends = format!("{address} . {address} . inet_proto");
        set(
            &mut text,
            &format!("told{family}"),
            &format!("{ends} . inet_service . inet_service"),
            &flags,
            "",
        );
        set(&mut text, &format!("odd{family}"), &format!("{ends} . mark"), &flags, "");
    }
    text.push_str("}\n");
    text + &chains::closed(place)
}

/// Adds the sets of an epoch.
pub(crate) fn sets(place: &Place, epoch: u64, elements: &Elements, pins: &[Pinned]) -> String {
    let mut text = format!("table inet {} {{\n", place.table);
    for (name, spans) in [("egress", &elements.egress), ("ingress", &elements.ingress)] {
        for (family, kind, v4) in [(4, "ipv4_addr", true), (6, "ipv6_addr", false)] {
            let spans = Joined(spans.iter().filter(move |span| span.first.is_ipv4() == v4)).to_string();
            map(&mut text, &format!("{name}{family}_{epoch}"), kind, "flags interval;", &spans);
        }
    }
    for (family, kind, v4) in [(4, "ipv4_addr", true), (6, "ipv6_addr", false)] {
        let pins = Joined(pins.iter().filter(move |pin| pin.address.is_ipv4() == v4)).to_string();
        // Elements that are over count until the kernel has collected them.
        let flags = format!("flags timeout; size {};", 2 * Pin::MAX);
        map(&mut text, &format!("pins{family}_{epoch}"), kind, &flags, &pins);
    }
    for (name, mut elements) in lines(&elements.lines) {
        let (kind, flags) = kind_of(name);
        if name == "deny" {
            let comma = if elements.is_empty() { "" } else { "," };
            let _ = write!(elements, "{comma}{}", Pair(NO_RULE, RuleId::NONE.0));
        }
        map(&mut text, &format!("{name}_{epoch}"), kind, flags, &elements);
    }
    text.push_str("}\n");
    text
}

/// Removes the sets of an epoch.
pub(crate) fn without_sets(place: &Place, epoch: u64) -> String {
    let names = ["egress4", "egress6", "ingress4", "ingress6", "pins4", "pins6"];
    names.iter().chain(&LINES).fold(String::new(), |mut text, name| {
        let _ = writeln!(text, "delete map inet {} {name}_{epoch}", place.table);
        text
    })
}

/// Puts pins in place of `old` ones of the same addresses.
pub(crate) fn pins(place: &Place, epoch: u64, new: &Lines, old: &[Pinned], pins: &[Pinned]) -> String {
    let mut text = String::new();
    for (name, elements) in lines(new) {
        change(&mut text, "add", place, &format!("{name}_{epoch}"), &elements);
    }
    for (family, v4) in [(4, true), (6, false)] {
        let name = format!("pins{family}_{epoch}");
        let of = |list: &[Pinned]| {
            list.iter().copied().filter(|pin| pin.address.is_ipv4() == v4).collect::<Vec<_>>()
        };
        // An old one may be over by now, and what is not there cannot be deleted: so add it first.
        let old = of(old);
        change(&mut text, "add", place, &name, &Joined(old.iter()).to_string());
        change(&mut text, "delete", place, &name, &Joined(old.iter().map(|pin| pin.address)).to_string());
        change(&mut text, "add", place, &name, &Joined(of(pins).iter()).to_string());
    }
    text
}

const LINES: [&str; 5] = ["tcp", "udp", "icmp", "allow", "deny"];

fn kind_of(name: &str) -> (&'static str, &'static str) {
    match name {
        "tcp" | "udp" => ("mark . inet_service", "flags interval;"),
        "icmp" => ("mark", ""),
        _ => ("mark", "counter;"),
    }
}

fn lines(lines: &Lines) -> [(&'static str, String); 5] {
    let rules = |action: Action| {
        let rules = lines.rules.iter().filter(move |rule| rule.action == action);
        Joined(rules.map(|rule| Pair(rule.serial, rule.rule.0))).to_string()
    };
    let [tcp, udp, icmp, allow, deny] = LINES;
    [
        (tcp, Joined(lines.tcp.iter()).to_string()),
        (udp, Joined(lines.udp.iter()).to_string()),
        (icmp, Joined(lines.icmp.iter().map(|&(class, serial)| Pair(class, serial))).to_string()),
        (allow, rules(Action::Allow)),
        (deny, rules(Action::Deny)),
    ]
}

fn set(text: &mut String, name: &str, kind: &str, flags: &str, elements: &str) {
    let _ = writeln!(text, "set {name} {{ type {kind}; {flags} {} }}", Braced(elements));
}

fn map(text: &mut String, name: &str, kind: &str, flags: &str, elements: &str) {
    let _ = writeln!(text, "map {name} {{ type {kind} : mark; {flags} {} }}", Braced(elements));
}

fn change(text: &mut String, verb: &str, place: &Place, name: &str, elements: &str) {
    if !elements.is_empty() {
        let _ = writeln!(text, "{verb} element inet {} {name} {{ {elements} }}", place.table);
    }
}

/// The mark of a packet that is denied for `reason`.
pub(crate) const fn mark(reason: Reason) -> u32 {
    REASON | reason as u32
}

// === elements as text ===

/// With commas between. `nft` takes no empty list.
struct Joined<I>(I);

impl<I: Iterator<Item: fmt::Display> + Clone> fmt::Display for Joined<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, item) in self.0.clone().enumerate() {
            write!(f, "{}{item}", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

struct OnLink<'a>(&'a str, &'a IpAddr);

impl fmt::Display for OnLink<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" . {}", self.0, self.1)
    }
}

struct Braced<'a>(&'a str);

impl fmt::Display for Braced<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "elements = {{ {} }};", self.0) }
    }
}

struct Pair(u32, u32);

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} : {}", self.0, self.1)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{} : {}", self.first, self.class)
        } else {
            write!(f, "{}-{} : {}", self.first, self.last, self.class)
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} . {}-{} : {}", self.class, self.ports.start(), self.ports.end(), self.serial)
    }
}

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} timeout {}ms : {}", self.address, self.left.as_millis(), self.class)
    }
}
