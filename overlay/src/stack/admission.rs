//! Flows that the policy permits and that go by other sockets than ours.

use std::{
    collections::HashMap,
    fmt,
    future::poll_fn,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    task::{Poll, Waker},
};

use super::{
    Denied, Network, Transport,
    first::First,
    state::{Shared, State},
};
use crate::device::gate::{Denial, Gate};

/// A flow that the policy permits, though it does not go by the device.
pub struct Admission {
    shared: Rc<Shared>,
    id: u64,
}

/// All that live.
#[derive(Debug, Default)]
pub(super) struct Admissions {
    last: u64,
    live: HashMap<u64, Admitted>,
}

#[derive(Debug)]
struct Admitted {
    first: First,
    is_revoked: bool,
    waiting: Vec<Waker>,
}

impl Network {
    /// Judges a flow that is *not* to go by this device but by a socket of the host, as if it began here: counted and on record as any other.
    /// As long as the returned admission lives, the flow is judged anew whenever the policy changes.
    ///
    /// # Errors
    /// The verdict.
    pub fn admit(&self, transport: Transport, remote: SocketAddr) -> Result<Admission, Denied> {
        let id = self.0.use_state().admit(transport, remote)?;
        Ok(Admission { shared: Rc::clone(&self.0), id })
    }
}

impl State {
    fn admit(&mut self, transport: Transport, remote: SocketAddr) -> Result<u64, Denied> {
        // Without an address of that IP version, none that could pass.
        let local = self.address_for(remote.ip()).unwrap_or(match remote {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        });
        let first = First::new(transport, SocketAddr::new(local, self.next_port()), remote);
        self.now();
        if let Some(gate) = &mut self.core.outside.gate {
            let generation = gate.generation();
            let denied = |denial: Denial| Denied { decision: denial.decision, generation };
            gate.egress(first.bytes(), 1, first.bytes().len()).map_err(denied)?;
        }
        let admissions = &mut self.admissions;
        admissions.last += 1;
        let admitted = Admitted { first, is_revoked: self.has_stopped, waiting: Vec::new() };
        admissions.live.insert(admissions.last, admitted);
        Ok(admissions.last)
    }
}

impl Admissions {
    /// Revokes what the policy permits no more; that is counted and on record.
    pub(super) fn judge_anew(&mut self, gate: &mut Gate) {
        for admitted in self.live.values_mut().filter(|admitted| !admitted.is_revoked) {
            if gate.denial(admitted.first.bytes()).is_some() {
                admitted.revoke();
            }
        }
    }

    pub(super) fn stop(&mut self) {
        self.live.values_mut().for_each(Admitted::revoke);
    }
}

impl Admitted {
    fn revoke(&mut self) {
        self.is_revoked = true;
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

impl Admission {
    /// Waits until the policy permits it no more, or the device ends.
    pub async fn revoked(&self) {
        poll_fn(|context| match self.shared.state().admissions.live.get_mut(&self.id) {
            Some(admitted) if !admitted.is_revoked => {
                if !admitted.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                    admitted.waiting.push(context.waker().clone());
                }
                Poll::Pending
            }
            _ => Poll::Ready(()),
        })
        .await;
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.shared.state().admissions.live.remove(&self.id);
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("id", &self.id).finish_non_exhaustive()
    }
}
