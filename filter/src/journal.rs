//! What is told of verdicts: every newly allowed flow, and every denied one at most once a second.

use std::{collections::VecDeque, net::SocketAddr};

use lattice_policy::{Action, Direction, Flow, Reason};

use crate::{
    filter::Decision,
    flows::{SECOND, since},
    lru::Lru,
    packet::{FlowKey, Packet, TCP, UDP},
};

const DENIED: u16 = 4096;

/// Verdicts that wait to be taken. An agent that scans fills it in some milliseconds whatever its size.
const QUEUE: usize = 4096;

pub(crate) struct Journal {
    denied: Lru<DeniedKey, u64>,
    queue: VecDeque<Flow>,
    lost: u64,
}

#[derive(PartialEq, Eq, Hash)]
struct DeniedKey {
    flow: FlowKey,
    direction: Direction,
    reason: Reason,
}

impl Journal {
    pub(crate) fn new() -> Self {
        Self { denied: Lru::new(DENIED), queue: VecDeque::with_capacity(QUEUE), lost: 0 }
    }

    pub(crate) fn tell(
        &mut self,
        packet: &Packet<'_>,
        decision: Decision,
        generation: u32,
        bytes: usize,
        now_ns: u64,
    ) {
        if decision.reason == Reason::Established {
            return;
        }
        if decision.action == Action::Deny && !self.is_due(packet, decision.reason, now_ns) {
            return;
        }
        if self.queue.len() == QUEUE {
            self.lost += 1;
            return;
        }
        self.queue.push_back(flow(packet, decision, generation, bytes, now_ns));
    }

    fn is_due(&mut self, packet: &Packet<'_>, reason: Reason, now_ns: u64) -> bool {
        let key = DeniedKey { flow: packet.key, direction: packet.direction, reason };
        if self.denied.find(&key).is_some_and(|slot| since(now_ns, self.denied[slot]) <= SECOND) {
            return false;
        }
        self.denied.insert(key, now_ns);
        true
    }

    pub(crate) fn take(&mut self) -> impl Iterator<Item = Flow> {
        self.queue.drain(..)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }
}

fn flow(packet: &Packet<'_>, decision: Decision, generation: u32, bytes: usize, now_ns: u64) -> Flow {
    let key = &packet.key;
    // The key of an ICMP flow has an identifier where others have a port.
    let has_ports = matches!(key.proto, TCP | UDP);
    let end = |ip, port| SocketAddr::new(ip, if has_ports { port } else { 0 });
    let (local, remote) = (end(key.local(), key.local_port), end(key.remote(), key.remote_port));
    let (src, dst) = match packet.direction {
        Direction::Egress => (local, remote),
        Direction::Ingress => (remote, local),
    };
    Flow {
        at_ns: now_ns,
        direction: packet.direction,
        action: decision.action,
        reason: decision.reason,
        rule: decision.rule,
        generation,
        proto: key.proto,
        src,
        dst,
        bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        link: 0,
    }
}
