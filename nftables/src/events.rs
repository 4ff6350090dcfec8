//! What the kernel tells of the verdicts.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use lattice_policy::{Action, Direction, Flow, Reason, RuleId, builtin};
use nix::time::{ClockId, clock_gettime};

use crate::{
    nflog::{self, Logged, Socket},
    ruleset::{ALLOWED, DENIED, ODD, REASON},
};

/// `NF_INET_PRE_ROUTING` and `NF_INET_LOCAL_OUT`.
const PRE_ROUTING: u8 = 0;
const LOCAL_OUT: u8 = 3;

/// The reading end of the log.
///
/// Its descriptor becomes readable when a verdict arrives, at most some 10 ms after the packet. When the socket's buffer is
/// full, verdicts are not told but counted ([`Nftables::lost`](crate::Nftables::lost)); they are enforced all the same.
/// Once it is dropped, nothing is told any more.
pub struct Events {
    socket: Socket,
    pending: VecDeque<Flow>,
    /// The number that the next record has if none was lost.
    next: Option<u32>,
    lost: Arc<AtomicU64>,
}

impl Events {
    /// How many verdicts one [`drain`](Self::drain) takes at most.
    pub const BATCH: usize = 1024;

    pub(crate) fn new(socket: Socket, lost: Arc<AtomicU64>) -> Self {
        Self { socket, pending: VecDeque::new(), next: None, lost }
    }

    /// Hands at most [`BATCH`](Self::BATCH) waiting verdicts to `f`, oldest first, and says how many records it took.
    /// A full batch means that more may wait: drain again before waiting on the descriptor.
    pub fn drain(&mut self, f: &mut dyn FnMut(Flow)) -> usize {
        for taken in 0..Self::BATCH {
            let Some(flow) = self.pending.pop_front().or_else(|| self.receive()) else { return taken };
            f(flow);
        }
        Self::BATCH
    }

    fn receive(&mut self) -> Option<Flow> {
        while self.pending.is_empty() {
            // An error other than that nothing waits is of a socket that will tell nothing any more.
            let datagram = self.socket.receive().ok()?;
            let at_ns = now_ns();
            let (pending, next, lost) = (&mut self.pending, &mut self.next, &self.lost);
            nflog::each(datagram, &mut |logged| {
                if let Some(seq) = logged.seq {
                    let missing = next.map_or(seq, |next| seq.wrapping_sub(next));
                    lost.fetch_add(missing.into(), Ordering::Relaxed);
                    *next = Some(seq.wrapping_add(1));
                }
                pending.extend(flow(&logged, at_ns));
            });
        }
        self.pending.pop_front()
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

/// The clock of [`Flow::at_ns`] and [`Pin::until_ns`](lattice_policy::Pin::until_ns).
pub(crate) fn now_ns() -> u64 {
    // Linux has had this clock since 2.6.39. Without it every pin is over.
    let Ok(now) = clock_gettime(ClockId::CLOCK_BOOTTIME) else { return u64::MAX };
    let seconds = u64::try_from(now.tv_sec()).unwrap_or_default();
    let nanoseconds = u64::try_from(now.tv_nsec()).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

/// None when the record is not one of ours.
fn flow(logged: &Logged<'_>, at_ns: u64) -> Option<Flow> {
    let (what, generation) = std::str::from_utf8(logged.prefix).ok()?.split_once(' ')?;
    let rule = RuleId(logged.mark);
    let (action, reason, rule) = match what {
        ALLOWED => (Action::Allow, Reason::RuleAllow, rule),
        DENIED => (Action::Deny, builtin::reason(Action::Deny, rule), rule),
        ODD => (Action::Deny, reason(logged.mark)?, RuleId::NONE),
        _ => return None,
    };
    let ends = nflog::ends(logged.payload)?;
    Some(Flow {
        at_ns,
        direction: match logged.hook {
            PRE_ROUTING => Direction::Ingress,
            LOCAL_OUT => Direction::Egress,
            _ => return None,
        },
        action,
        reason,
        rule,
        generation: generation.parse().ok()?,
        proto: ends.proto,
        src: ends.src,
        dst: ends.dst,
        bytes: ends.bytes,
        link: logged.link,
    })
}

/// Every reason that a packet has by itself.
fn reason(mark: u32) -> Option<Reason> {
    let known = [
        Reason::DefaultDeny,
        Reason::Malformed,
        Reason::Protocol,
        Reason::Spoofed,
        Reason::Multicast,
        Reason::NoPolicy,
    ];
    known.into_iter().find(|&reason| REASON | reason as u32 == mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_the_chains_write_them() {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1];
        packet.extend([0x1F, 0x90, 1, 0xBB]);
        let told = |prefix: &str, mark, hook| {
            let logged =
                Logged { hook, mark, link: 3, payload: &packet, prefix: prefix.as_bytes(), seq: None };
            flow(&logged, 5).map(|f| (f.direction, f.action, f.reason, f.rule.0, f.generation))
        };
        use {Action::*, Direction::*};
        assert_eq!(told("lattice+ 7", 4, 3), Some((Egress, Allow, Reason::RuleAllow, 4, 7)));
        assert_eq!(told("lattice- 8", 0, 0), Some((Ingress, Deny, Reason::DefaultDeny, 0, 8)));
        assert_eq!(told("lattice- 8", 4, 3), Some((Egress, Deny, Reason::RuleDeny, 4, 8)));
        assert_eq!(told("lattice! 8", REASON | 8, 3), Some((Egress, Deny, Reason::Spoofed, 0, 8)));
        for (prefix, mark, hook) in [
            ("lattice! 8", REASON | 1, 3),
            ("lattice! 8", 8, 3),
            ("lattice+ x", 4, 3),
            ("lattice+", 4, 3),
            ("other 7", 4, 3),
            ("lattice+ 7", 4, 2),
        ] {
            assert_eq!(told(prefix, mark, hook), None, "{prefix} {mark} {hook}");
        }
    }
}
