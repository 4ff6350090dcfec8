//! The chains. Every path that does not say why a packet passes ends in a refusal or a drop.

use lattice_policy::{Direction, Reason};

use super::{ALLOWED, DENIED, NO_RULE, ODD, Place, mark};

/// An answer for what can have one; the rest is dropped.
const REFUSE: &str = "meta l4proto tcp reject with tcp reset
meta l4proto udp reject with icmpx type admin-prohibited
icmp type echo-request reject with icmpx type admin-prohibited
icmpv6 type echo-request reject with icmpx type admin-prohibited";

/// What the chains do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Live {
    /// They deny everything.
    No,
    /// They ask the sets of this epoch.
    Yes { epoch: u64, generation: u32 },
}

/// How many bytes of a packet a record carries, for its addresses and ports.
const SNAP: u32 = 128;

/// The chains of a table that denies everything.
pub(crate) fn closed(place: &Place) -> String {
    written(place, [lasting(place, Live::No), changing(place, Live::No)].concat())
}

/// Puts a policy in force. `first` when the chains were [`closed`] until now.
pub(crate) fn live(place: &Place, epoch: u64, generation: u32, first: bool) -> String {
    let live = Live::Yes { epoch, generation };
    let lasting = if first { lasting(place, live) } else { Vec::new() };
    written(place, [lasting, changing(place, live)].concat())
}

/// Name, hook, rules.
type Chain = (&'static str, &'static str, String);

/// What every policy has in common.
fn lasting(place: &Place, live: Live) -> Vec<Chain> {
    vec![
        ("odd", "", "jump tell\ndrop".into()),
        ("sound", "", sound()),
        ("refuse", "", REFUSE.into()),
        ("astray", "", "jump tell\nmeta mark set 0\ngoto refuse".into()),
        ("output", "hook output priority filter", output(place, live)),
        ("prerouting", "hook prerouting priority mangle", prerouting(place, live)),
        ("forward", "hook forward priority filter", String::new()),
    ]
}

/// What each policy writes anew. No rule here has a set or map without a name: it would be gone for a packet that is still
/// on its way through the old rules, and that packet would be refused.
fn changing(place: &Place, live: Live) -> Vec<Chain> {
    vec![
        ("tell", "", tell(place, live)),
        ("echo", "", echo(place, live)),
        ("denied", "", denied(place, live)),
        ("allowed", "", allowed(place, live)),
        ("egress", "", judge(live, Direction::Egress)),
        ("ingress", "", judge(live, Direction::Ingress)),
    ]
}

fn written(place: &Place, chains: Vec<Chain>) -> String {
    let table = &place.table;
    let mut text = String::new();
    for (name, hook, _) in &chains {
        let hook =
            if hook.is_empty() { String::new() } else { format!(" {{ type filter {hook}; policy drop; }}") };
        text += &format!("add chain inet {table} {name}{hook}\nflush chain inet {table} {name}\n");
    }
    text += &format!("table inet {table} {{\n");
    for (name, _, rules) in &chains {
        text += &format!("chain {name} {{\n{rules}\n}}\n");
    }
    text + "}\n"
}

/// What the agent sends. Conntrack has seen it by now, and put fragments together. Judged packets that come back are denied.
fn output(place: &Place, live: Live) -> String {
    let spoofed = mark(Reason::Spoofed);
    let discovery = if_live(
        live,
        "meta oiftype ether icmpv6 type { 133, 135, 136 } ip6 hoplimit 255 ip6 saddr @own6 accept
meta oiftype ether icmpv6 type { 133, 135, 136 } ip6 hoplimit 255 ip6 saddr { fe80::/10, :: } accept",
    );
    let flows = flows(live, [Direction::Egress, Direction::Ingress]);
    let astray = astray(place, Direction::Egress);
    format!(
        "oif lo accept
{discovery}
jump sound
ip saddr != @own4 meta mark set {spoofed} goto odd
ip6 saddr != @own6 meta mark set {spoofed} goto odd
{astray}
{flows}
goto refuse"
    )
}

/// What comes in, before it is routed: an address that is not ours is denied, not only not delivered.
fn prerouting(place: &Place, live: Live) -> String {
    let [denied, spoofed, multicast] = [Reason::DefaultDeny, Reason::Spoofed, Reason::Multicast].map(mark);
    let discovery =
        if_live(live, "meta iiftype ether icmpv6 type { 133, 134, 135, 136 } ip6 hoplimit 255 accept");
    let flows = flows(live, [Direction::Ingress, Direction::Egress]);
    let astray = astray(place, Direction::Ingress);
    format!(
        "iif lo accept
{discovery}
jump sound
meta pkttype {{ broadcast, multicast }} meta mark set {multicast} goto odd
ip daddr != @own4 meta mark set {denied} goto odd
ip6 daddr != @own6 meta mark set {denied} goto odd
ip saddr @own4 meta mark set {spoofed} goto odd
ip6 saddr @own6 meta mark set {spoofed} goto odd
{astray}
{flows}"
    )
}

/// What passes a link to which the sandbox's address is not tied, or to which the other end is not confined. A socket that is bound to a link
/// (`SO_BINDTODEVICE`) sends by no route, and a neighbour may claim any source.
fn astray(place: &Place, direction: Direction) -> String {
    let [spoofed, denied] = [Reason::Spoofed, Reason::DefaultDeny].map(mark);
    let (by, own, other, untied, unconfined, chain) = match direction {
        Direction::Egress => ("oif", "saddr", "daddr", spoofed, denied, "astray"),
        Direction::Ingress => ("iif", "daddr", "saddr", denied, spoofed, "odd"),
    };
    let mut rules = String::new();
    if place.is_tied {
        rules += &format!(
            "ip {own} @tied4 meta {by} . ip {own} != @links4 meta mark set {untied} goto {chain}
ip6 {own} @tied6 meta {by} . ip6 {own} != @links6 meta mark set {untied} goto {chain}\n"
        );
    }
    if let Some((overlay, link)) = &place.confined {
        let (pool, prefix) = (overlay.pool(), overlay.prefix());
        rules += &format!(
            "meta {by} != \"{link}\" ip {other} {pool} meta mark set {unconfined} goto {chain}
meta {by} != \"{link}\" ip6 {other} {prefix} meta mark set {unconfined} goto {chain}\n"
        );
    }
    rules
}

/// Returns only what has a header that says where it goes, in a protocol that rules can name.
fn sound() -> String {
    let [malformed, protocol, multicast] = [Reason::Malformed, Reason::Protocol, Reason::Multicast].map(mark);
    format!(
        "ip6 saddr ::ffff:0:0/96 meta mark set {malformed} goto odd
ip6 daddr ::ffff:0:0/96 meta mark set {malformed} goto odd
ip hdrlength != 5 meta mark set {protocol} goto odd
exthdr rt exists meta mark set {protocol} goto odd
ip protocol != {{ tcp, udp, icmp }} meta mark set {protocol} goto odd
meta nfproto ipv6 meta l4proto != {{ tcp, udp, ipv6-icmp }} meta mark set {protocol} goto odd
icmp type {{ redirect, source-quench }} meta mark set {protocol} goto odd
ip daddr 224.0.0.0/3 meta mark set {multicast} goto odd
ip saddr 224.0.0.0/3 meta mark set {multicast} goto odd
ip6 daddr ff00::/8 meta mark set {multicast} goto odd
ip6 saddr ff00::/8 meta mark set {multicast} goto odd"
    )
}

/// Whose policy decides: that of the direction in which the flow was opened.
fn flows(live: Live, [original, reply]: [Direction; 2]) -> String {
    let [malformed, denied, no_policy] = [Reason::Malformed, Reason::DefaultDeny, Reason::NoPolicy].map(mark);
    match live {
        Live::No => format!("meta mark set {no_policy} jump tell"),
        // Only ICMP errors are related to a flow here: nobody in this namespace asks for a helper.
        Live::Yes { .. } => format!(
            "ct state invalid,untracked meta mark set {malformed} goto odd
ct state related meta l4proto != {{ icmp, ipv6-icmp }} meta mark set {denied} goto odd
ct direction reply tcp flags & (syn | ack) == syn meta mark set {denied} goto odd
ct direction original jump {}
ct direction reply jump {}",
            chain(original),
            chain(reply)
        ),
    }
}

/// Accepts what a rule allows, and returns what none does. A flow that this policy has let in is known by its mark; every
/// other is judged by the tuple that opened it, also when the packet is a reply or an error about it.
fn judge(live: Live, direction: Direction) -> String {
    let Live::Yes { epoch, .. } = live else { return String::new() };
    let (chain, end) = match direction {
        Direction::Egress => ("egress", "daddr"),
        Direction::Ingress => ("ingress", "saddr"),
    };
    let class = |sets: &str| {
        format!(
            "meta mark set ct original ip {end} map @{sets}4_{epoch}
meta mark set ct original ip6 {end} map @{sets}6_{epoch}\n"
        )
    };
    // The port of a tuple has a type only where its protocol is known, and that only where the family is.
    let line: String = [("ipv4", "tcp"), ("ipv6", "tcp"), ("ipv4", "udp"), ("ipv6", "udp")]
        .map(|(family, proto)| {
            format!(
                "meta nfproto {family} ct protocol {proto} ct mark set meta mark . ct original proto-dst map @{proto}_{epoch}\n"
            )
        })
        .concat();
    let line = format!(
        "{line}ct protocol icmp ct mark set meta mark map @icmp_{epoch}
ct protocol ipv6-icmp ct mark set meta mark map @icmp_{epoch}\n"
    );
    let allow = format!("meta mark set ct mark map @allow_{epoch}");
    let mut text = format!("{allow} meta mark set 0 accept\n");
    if direction == Direction::Egress {
        let multicast = mark(Reason::Multicast);
        text +=
            &format!("ct direction original fib daddr type broadcast meta mark set {multicast} goto odd\n");
    }
    text += &format!("meta mark set 0\n{}{line}{allow} goto allowed\n", class(chain));
    text += &format!("meta mark set ct mark map @deny_{epoch} goto denied\n");
    if direction == Direction::Egress {
        text += &format!("{}{line}{allow} goto allowed\n", class("pins"));
    }
    // Counted as an element of the map, as rules are.
    text += &format!("meta mark set {NO_RULE} meta mark set meta mark map @deny_{epoch} goto denied\n");
    text + "meta mark set 0\ngoto denied"
}

/// Tells of the first packet of a flow. A flow that an older policy had let in is none that is new.
fn allowed(place: &Place, live: Live) -> String {
    format!("ct state new {}\nmeta mark set 0\naccept", log(ALLOWED, place, live))
}

/// Tells of a flow that was denied, at most once a second.
fn denied(place: &Place, live: Live) -> String {
    let key = |ip: &str| format!("{ip} saddr . {ip} daddr . meta l4proto . th sport . th dport");
    let (v4, v6) = (key("ip"), key("ip6"));
    format!(
        "meta l4proto icmp goto echo
meta l4proto ipv6-icmp goto echo
{v4} @told4 return
{v6} @told6 return
add @told4 {{ {v4} }}
add @told6 {{ {v6} }}
{}",
        log(DENIED, place, live)
    )
}

/// Tells of a packet that was denied for what it is, at most once a second for its ends, protocol and reason.
fn tell(place: &Place, live: Live) -> String {
    once(&log(ODD, place, live))
}

/// Like `denied`, for packets without ports.
fn echo(place: &Place, live: Live) -> String {
    once(&log(DENIED, place, live))
}

/// A full set limits nothing: the record is told, and what the reader cannot take is counted there.
fn once(log: &str) -> String {
    let key = |ip: &str| format!("{ip} saddr . {ip} daddr . meta l4proto . meta mark");
    let (v4, v6) = (key("ip"), key("ip6"));
    format!("{v4} @odd4 return\n{v6} @odd6 return\nadd @odd4 {{ {v4} }}\nadd @odd6 {{ {v6} }}\n{log}")
}

fn if_live(live: Live, rules: &'static str) -> &'static str {
    if live == Live::No { "" } else { rules }
}

fn log(what: &str, place: &Place, live: Live) -> String {
    let generation = match live {
        Live::No => 0,
        Live::Yes { generation, .. } => generation,
    };
    format!("log prefix \"{what} {generation}\" group {} snaplen {SNAP}", place.group)
}

const fn chain(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    }
}
