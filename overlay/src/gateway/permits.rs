//! Flows that the policy has let out, for as long as it does.

use std::{
    collections::HashMap,
    future::poll_fn,
    net::SocketAddr,
    rc::Rc,
    task::{Poll, Waker},
};

use lattice_netstack::FlowId;

use super::state::Shared;
use crate::{
    device::UserFilter,
    stack::{Transport, first::First},
};

/// That a flow may go on. Dropping it forgets the flow.
pub(super) struct Permit {
    shared: Rc<Shared>,
    pub(super) id: u64,
}

/// All that live.
#[derive(Debug, Default)]
pub(super) struct Permits {
    last: u64,
    live: HashMap<u64, Permitted>,
}

#[derive(Debug)]
struct Permitted {
    first: First,
    /// The connection that ends with it.
    flow: Option<FlowId>,
    is_revoked: bool,
    waiting: Option<Waker>,
}

impl Permits {
    /// A flow from `agent` to `remote` that the device has let out.
    pub(super) fn add(&mut self, transport: Transport, agent: SocketAddr, remote: SocketAddr) -> u64 {
        self.last += 1;
        let first = First::new(transport, agent, remote);
        let permitted = Permitted { first, flow: None, is_revoked: false, waiting: None };
        self.live.insert(self.last, permitted);
        self.last
    }

    pub(super) fn is_revoked(&self, id: u64) -> bool {
        self.live.get(&id).is_none_or(|permitted| permitted.is_revoked)
    }

    pub(super) fn is_for(&mut self, id: u64, flow: FlowId) {
        self.live.entry(id).and_modify(|permitted| permitted.flow = Some(flow));
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.live.remove(&id);
    }

    pub(super) fn revoke(&mut self, id: u64) {
        let _connection = self.live.get_mut(&id).and_then(Permitted::revoke);
    }

    /// Asks the device about each of them, which counts and records what it denies, and revokes that. Says which connections are to end.
    pub(super) fn judge_anew(&mut self, filter: &UserFilter) -> Vec<FlowId> {
        let live: Vec<_> = self.live.values_mut().filter(|permitted| !permitted.is_revoked).collect();
        let firsts = live.iter().map(|permitted| permitted.first).collect();
        // Without its device no flow goes on.
        let denied = filter.deny(firsts).unwrap_or_else(|_| vec![true; live.len()]);
        let revoked = live.into_iter().zip(denied).filter(|(_, is_denied)| *is_denied);
        revoked.filter_map(|(permitted, _)| permitted.revoke()).collect()
    }
}

impl Permitted {
    fn revoke(&mut self) -> Option<FlowId> {
        self.is_revoked = true;
        self.waiting.take().into_iter().for_each(Waker::wake);
        self.flow
    }
}

impl Permit {
    /// For a flow of [`Permits::add`].
    pub(super) fn new(shared: Rc<Shared>, id: u64) -> Self {
        Self { shared, id }
    }

    /// Waits until the policy permits the flow no more, or the device has ended. One task at a time.
    pub(super) async fn revoked(&self) {
        poll_fn(|context| match self.shared.state().permits.live.get_mut(&self.id) {
            Some(permitted) if !permitted.is_revoked => {
                permitted.waiting = Some(context.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        })
        .await;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.state().permits.remove(self.id);
    }
}
