//! What the program tells of its verdicts.

use std::{
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use lattice_policy::{Action, Direction, Flow, Reason, RuleId};

use crate::abi::{self, Event};

/// The reading end of the ring.
///
/// Its descriptor becomes readable when a verdict arrives. When the ring is full, verdicts are not told but counted
/// ([`Enforcer::lost`](crate::Enforcer::lost)); they are enforced all the same.
pub struct Events(pub(crate) RingBuf<MapData>);

impl Events {
    /// How long a reader best waits after its descriptor became readable before it drains. To wake it costs the agent more
    /// than its verdict: a ring that is drained at once wakes it for each, one that still holds verdicts for none. The ring
    /// has room for what 600,000 flows a second make in that time.
    pub const LINGER: Duration = Duration::from_millis(5);

    /// How many verdicts one [`drain`](Self::drain) takes at most.
    pub const BATCH: usize = 1024;

    /// Hands at most [`BATCH`](Self::BATCH) waiting verdicts to `f`, oldest first, and says how many records it took.
    /// A full batch means that more may wait: drain again before waiting on the descriptor.
    pub fn drain(&mut self, f: &mut dyn FnMut(Flow)) -> usize {
        for taken in 0..Self::BATCH {
            let Some(item) = self.0.next() else { return taken };
            if let Some(flow) = Event::read(&item).and_then(flow) {
                f(flow);
            }
        }
        Self::BATCH
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

/// None when the event is none that this loader knows.
fn flow(event: Event) -> Option<Flow> {
    let key = event.flow;
    let direction = match event.direction {
        0 => Direction::Egress,
        1 => Direction::Ingress,
        _ => return None,
    };
    let reason = reason(event.reason)?;
    // The key of an ICMP flow has an identifier where others have a port.
    let has_ports = matches!(key.proto, abi::TCP | abi::UDP);
    let end = |address: abi::Address, port_be| {
        let port = if has_ports { u16::from_be_bytes(port_be) } else { 0 };
        SocketAddr::new(address.ip(key.family), port)
    };
    let (local, remote) = (end(key.local, key.local_port_be), end(key.remote, key.remote_port_be));
    let (src, dst) = match direction {
        Direction::Egress => (local, remote),
        Direction::Ingress => (remote, local),
    };
    Some(Flow {
        at_ns: event.at_ns,
        direction,
        action: action(reason),
        reason,
        rule: RuleId(event.rule),
        generation: event.generation,
        proto: key.proto,
        src,
        dst,
        bytes: event.bytes,
        link: event.link,
    })
}

/// Every reason, in the order of its number in the ABI.
pub(crate) const REASONS: [Reason; 11] = [
    Reason::RuleAllow,
    Reason::RuleDeny,
    Reason::DefaultDeny,
    Reason::Established,
    Reason::Malformed,
    Reason::Protocol,
    Reason::Fragment,
    Reason::Spoofed,
    Reason::Multicast,
    Reason::NoPolicy,
    Reason::LinkControl,
];

fn reason(number: u8) -> Option<Reason> {
    REASONS.into_iter().find(|&r| r as u8 == number)
}

pub(crate) const fn action(reason: Reason) -> Action {
    match reason {
        Reason::RuleAllow | Reason::Established | Reason::LinkControl => Action::Allow,
        _ => Action::Deny,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_as_in_the_c_header() {
        let header = include_str!("../bpf/abi.h");
        for reason in REASONS {
            let name = format!("{reason:?}").chars().fold(String::new(), |mut name, c| {
                if c.is_uppercase() && !name.is_empty() {
                    name.push('_');
                }
                name.push(c.to_ascii_uppercase());
                name
            });
            assert!(header.contains(&format!("\t{name} = {},\n", reason as u8)), "{name}");
        }
    }

    #[test]
    fn garbage_is_no_flow() {
        assert!(Event::read(&[0; 71]).is_none());
        let zeros = Event::read(&[0; 72]).unwrap();
        assert_eq!(flow(zeros), None, "reason 0");
        assert_eq!(flow(Event { reason: 1, direction: 2, ..zeros }), None);
        let flow = flow(Event { reason: 6, direction: 1, ..zeros }).unwrap();
        assert_eq!((flow.action, flow.reason), (Action::Deny, Reason::Protocol));
    }
}
