//! Datagrams that the agent sends, by flow.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::poll_fn,
    net::SocketAddr,
    rc::Rc,
    task::{Poll, Waker},
    time::Instant,
};

use lattice_netstack::datagram;

use super::{
    Gateway,
    permits::{Permit, Permits},
    state::Shared,
};
use crate::stack::Transport;

/// Flows at a time; one more takes the place of the one that the agent has used least recently.
const FLOWS: usize = 256;

/// Datagrams of a flow that wait for the owner, each of the link's MTU at most.
const WAITING: usize = 64;

/// One flow of datagrams between a port of the agent's and one elsewhere. Dropping it forgets the flow: what the agent sends next is another one.
pub struct Datagrams {
    shared: Rc<Shared>,
    permit: Permit,
    agent: SocketAddr,
    remote: SocketAddr,
}

/// What is known of each flow.
#[derive(Debug, Default)]
pub(super) struct Books {
    flows: HashMap<(SocketAddr, SocketAddr), Waiting>,
    /// New ones that the owner has not taken on.
    begun: VecDeque<(SocketAddr, SocketAddr)>,
    accepting: Option<Waker>,
}

#[derive(Debug)]
struct Waiting {
    permit: u64,
    datagrams: VecDeque<Vec<u8>>,
    reader: Option<Waker>,
    used: Instant,
}

impl Books {
    /// Takes a datagram that the policy has let out, if there is room for it.
    pub(super) fn take(
        &mut self,
        agent: SocketAddr,
        remote: SocketAddr,
        payload: &[u8],
        permits: &mut Permits,
        now: Instant,
    ) {
        let key = (agent, remote);
        if !self.flows.contains_key(&key) {
            self.make_room(permits);
            let permit = permits.add(Transport::Udp, agent, remote);
            let waiting = Waiting { permit, datagrams: VecDeque::new(), reader: None, used: now };
            self.flows.insert(key, waiting);
            self.begun.push_back(key);
            self.accepting.take().into_iter().for_each(Waker::wake);
        }
        let Some(flow) = self.flows.get_mut(&key) else { return };
        flow.used = now;
        if flow.datagrams.len() < WAITING {
            flow.datagrams.push_back(payload.to_vec());
            flow.reader.take().into_iter().for_each(Waker::wake);
        }
    }

    fn make_room(&mut self, permits: &mut Permits) {
        if self.flows.len() < FLOWS {
            return;
        }
        let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.used).map(|(key, _)| *key);
        let Some(key) = oldest else { return };
        if let Some(flow) = self.flows.remove(&key) {
            permits.revoke(flow.permit);
            flow.reader.into_iter().for_each(Waker::wake);
            // One that nobody has taken on has no permit that would be dropped.
            if let Some(at) = self.begun.iter().position(|begun| *begun == key) {
                self.begun.remove(at);
                permits.remove(flow.permit);
            }
        }
    }
}

impl Gateway {
    /// The next flow of datagrams that the agent begins. One task at a time waits here.
    pub async fn datagrams(&self) -> Datagrams {
        poll_fn(|context| {
            let mut state = self.0.state();
            while let Some(key) = state.datagrams.begun.pop_front() {
                let Some(permit) = state.datagrams.flows.get(&key).map(|flow| flow.permit) else { continue };
                let permit = Permit::new(Rc::clone(&self.0), permit);
                let (agent, remote) = key;
                return Poll::Ready(Datagrams { shared: Rc::clone(&self.0), permit, agent, remote });
            }
            state.datagrams.accepting = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Datagrams {
    /// Where the agent sends them.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Waits until the policy permits the flow no more, or another one takes its place.
    pub async fn revoked(&self) {
        self.permit.revoked().await;
    }

    /// The next datagram. One task at a time waits here, and none once the flow is [`revoked`](Self::revoked).
    pub async fn receive(&self) -> Vec<u8> {
        poll_fn(|context| {
            let mut state = self.shared.state();
            let Some(flow) = state.datagrams.flows.get_mut(&(self.agent, self.remote)) else {
                return Poll::Pending;
            };
            if flow.permit != self.permit.id {
                return Poll::Pending;
            }
            match flow.datagrams.pop_front() {
                Some(datagram) => Poll::Ready(datagram),
                None => {
                    flow.reader = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Sends the agent a datagram from [`Self::remote`], as far as the policy lets it in and there is room. It reaches the agent whole, whatever the
    /// link's MTU: the kernel takes packets of any length from a TUN device. What no packet can hold is dropped.
    pub fn send(&self, payload: &[u8]) {
        if payload.len() > datagram::MAX_PAYLOAD {
            return;
        }
        let state = &mut *self.shared.use_state();
        let len = datagram::packet_len(self.agent, payload.len());
        state.out.packets.push(len, |room| datagram::write(room, self.remote, self.agent, payload));
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        let flows = &mut self.shared.state().datagrams.flows;
        // It may be another one's by now.
        if flows.get(&(self.agent, self.remote)).is_some_and(|flow| flow.permit == self.permit.id) {
            flows.remove(&(self.agent, self.remote));
        }
    }
}

impl fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { agent, remote, .. } = self;
        f.debug_struct("Datagrams").field("agent", agent).field("remote", remote).finish_non_exhaustive()
    }
}
