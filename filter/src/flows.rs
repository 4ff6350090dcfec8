//! Allowed flows, and the fragments of their datagrams.

use lattice_policy::{Action, Direction};

use crate::{
    lru::{Lru, Slot},
    packet::{FlowKey, Packet, TCP, UDP},
    program::{Line, Program},
};

/// Most flows at a time. Only allowed ones: an agent that scans cannot push its allowed flows out with denied ones.
const FLOWS: u16 = 16_384;
const FRAGMENTS: u16 = 1024;

pub(crate) const SECOND: u64 = 1_000_000_000;
const TCP_IDLE: u64 = 7440 * SECOND; // RFC 5382, REQ-5
const UDP_IDLE: u64 = 300 * SECOND; // RFC 4787, REQ-5
const ICMP_IDLE: u64 = 60 * SECOND; // RFC 5508, REQ-2
const FRAGMENT_IDLE: u64 = 60 * SECOND; // RFC 8200, 4.5: how long a receiver waits for the rest

/// The live flows. Every judgement takes the program in force and its epoch, which tells it from those before.
pub(crate) struct Flows {
    flows: Lru<FlowKey, Flow>,
    fragments: Lru<FragmentKey, Seen>,
}

struct Flow {
    seen_ns: u64,
    epoch: u32,
    line: Line,
    /// Who opened it.
    direction: Direction,
}

#[derive(PartialEq, Eq, Hash)]
struct FragmentKey {
    source: u128,
    destination: u128,
    id: u32,
    family: u8,
    /// 0 for IPv6, whose later fragments do not say.
    proto: u8,
    direction: Direction,
}

/// The first fragment of a datagram, and what let it in.
struct Seen {
    at_ns: u64,
    epoch: u32,
    line: Line,
}

/// The policy in force.
#[derive(Clone, Copy)]
pub(crate) struct Force<'a> {
    pub(crate) program: &'a Program,
    pub(crate) epoch: u32,
    pub(crate) now_ns: u64,
}

/// What became of a packet that belongs to a flow or would open one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It belongs to a flow that this line let in.
    Established(Line),
    /// The line decides about it.
    Decided(Line),
    /// No line names it.
    Unnamed,
}

impl Outcome {
    /// The line that lets the packet pass, if one does.
    pub(crate) fn allowed(&self) -> Option<Line> {
        match self {
            Self::Established(line) => Some(*line),
            Self::Decided(line) if line.action == Action::Allow => Some(*line),
            Self::Decided(_) | Self::Unnamed => None,
        }
    }
}

impl Flows {
    pub(crate) fn new() -> Self {
        Self { flows: Lru::new(FLOWS), fragments: Lru::new(FRAGMENTS) }
    }

    pub(crate) fn judge(&mut self, force: Force<'_>, packet: &Packet<'_>) -> Outcome {
        if let Some(slot) = self.live(force, &packet.key) {
            let flow = &mut self.flows[slot];
            if flow.direction == packet.direction || !packet.opener {
                let line = flow.line;
                // Age is told to the second only, which keeps most packets from moving their flow in the list.
                if since(force.now_ns, flow.seen_ns) > SECOND {
                    flow.seen_ns = force.now_ns;
                    self.flows.refresh(slot);
                }
                return Outcome::Established(line);
            }
        }
        let Some(line) = force.program.decide(&packet.key, packet.direction, force.now_ns) else {
            return Outcome::Unnamed;
        };
        if line.action == Action::Allow {
            let flow = Flow { seen_ns: force.now_ns, epoch: force.epoch, line, direction: packet.direction };
            self.flows.insert(packet.key, flow);
        }
        Outcome::Decided(line)
    }

    /// The flow, if this epoch's policy allows it. A flow of an older epoch is judged anew as it was opened, so a narrowed
    /// policy cuts it at its next packet in either direction.
    fn live(&mut self, force: Force<'_>, key: &FlowKey) -> Option<Slot> {
        let slot = self.flows.find(key)?;
        let Some(line) = self.flows[slot].standing(force, key) else {
            self.flows.remove(slot);
            return None;
        };
        let flow = &mut self.flows[slot];
        (flow.line, flow.epoch) = (line, force.epoch);
        Some(slot)
    }

    /// What [`Self::judge`] would say.
    pub(crate) fn peek(&self, force: Force<'_>, packet: &Packet<'_>) -> Outcome {
        let flow = self.flows.find(&packet.key).map(|slot| &self.flows[slot]);
        let flow = flow.filter(|flow| flow.direction == packet.direction || !packet.opener);
        if let Some(line) = flow.and_then(|flow| flow.standing(force, &packet.key)) {
            return Outcome::Established(line);
        }
        let line = force.program.decide(&packet.key, packet.direction, force.now_ns);
        line.map_or(Outcome::Unnamed, Outcome::Decided)
    }

    /// What let in the live flow that an ICMP error is about. Errors come in from any router, about what the agent itself
    /// sent. They go out only to the flow's other end: else an agent could write to the whole world in quotes of an
    /// allowed flow.
    pub(crate) fn related(&mut self, force: Force<'_>, packet: &Packet<'_>) -> Option<Line> {
        let key = flow_of_error(packet)?;
        self.live(force, &key).map(|slot| self.flows[slot].line)
    }

    /// What [`Self::related`] would say.
    pub(crate) fn peek_related(&self, force: Force<'_>, packet: &Packet<'_>) -> Option<Line> {
        let key = flow_of_error(packet)?;
        self.flows.find(&key).and_then(|slot| self.flows[slot].standing(force, &key))
    }

    /// Lets in the rest of the datagram of which `packet` is the first fragment.
    pub(crate) fn remember_fragment(&mut self, force: Force<'_>, packet: &Packet<'_>, line: Line) {
        let seen = Seen { at_ns: force.now_ns, epoch: force.epoch, line };
        self.fragments.insert(FragmentKey::of(packet), seen);
    }

    /// What let in the first fragment of the datagram of which `packet` is a later one.
    pub(crate) fn first_fragment(&self, force: Force<'_>, packet: &Packet<'_>) -> Option<Line> {
        let seen = &self.fragments[self.fragments.find(&FragmentKey::of(packet))?];
        let counts = seen.epoch == force.epoch && since(force.now_ns, seen.at_ns) <= FRAGMENT_IDLE;
        counts.then_some(seen.line)
    }
}

impl Flow {
    /// The line that lets it in, if the policy in force does.
    fn standing(&self, force: Force<'_>, key: &FlowKey) -> Option<Line> {
        if since(force.now_ns, self.seen_ns) > idle_limit(key.proto) {
            return None;
        }
        if self.epoch == force.epoch {
            return Some(self.line);
        }
        let line = force.program.decide(key, self.direction, force.now_ns);
        line.filter(|line| line.action == Action::Allow)
    }
}

impl FragmentKey {
    fn of(packet: &Packet<'_>) -> Self {
        let key = &packet.key;
        let (source, destination) = match packet.direction {
            Direction::Egress => (key.local, key.remote),
            Direction::Ingress => (key.remote, key.local),
        };
        let proto = if key.family == 4 { key.proto } else { 0 };
        let (id, direction) = (packet.fragment_id, packet.direction);
        Self { source, destination, id, family: key.family, proto, direction }
    }
}

/// The flow that an ICMP error may be about.
fn flow_of_error(packet: &Packet<'_>) -> Option<FlowKey> {
    let key = packet.quoted()?;
    let goes_back = packet.direction == Direction::Ingress || key.remote == packet.key.remote;
    (key.local == packet.key.local && goes_back).then_some(key)
}

const fn idle_limit(proto: u8) -> u64 {
    match proto {
        TCP => TCP_IDLE,
        UDP => UDP_IDLE,
        _ => ICMP_IDLE,
    }
}

/// Nanoseconds from then to now; none where a caller's clock went back.
pub(crate) const fn since(now_ns: u64, then_ns: u64) -> u64 {
    now_ns.saturating_sub(then_ns)
}
