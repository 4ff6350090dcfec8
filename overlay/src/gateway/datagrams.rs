//! Datagrams that the agent sends, by flow: of UDP, and pings.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::poll_fn,
    net::SocketAddr,
    rc::Rc,
    task::{Poll, Waker},
    time::Instant,
};

use lattice_netstack::{
    datagram::{self, QUOTED, Unreachable},
    echo,
};

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

/// One flow of datagrams between a port of the agent's and one elsewhere, or of pings to one address. Dropping it forgets the flow: what the agent sends
/// next is another one.
pub struct Datagrams {
    shared: Rc<Shared>,
    permit: Permit,
    key: Key,
}

/// A flow, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    transport: Transport,
    agent: SocketAddr,
    remote: SocketAddr,
}

/// What is known of each flow.
#[derive(Debug, Default)]
pub(super) struct Books {
    flows: HashMap<Key, Waiting>,
    /// New ones that the owner has not taken on.
    begun: VecDeque<Key>,
    accepting: Option<Waker>,
    /// Datagrams that found no room.
    lost: u64,
}

#[derive(Debug)]
struct Waiting {
    permit: u64,
    datagrams: VecDeque<Vec<u8>>,
    reader: Option<Waker>,
    used: Instant,
    /// How the agent's last packet began.
    last: ([u8; QUOTED], usize),
}

impl Books {
    /// Takes a packet that the policy has let out, if it is a whole datagram or ping and there is room for it. False when it is neither.
    pub(super) fn take(&mut self, packet: &[u8], permits: &mut Permits, now: Instant) -> bool {
        let (key, payload) = if let Some((agent, remote, payload)) = datagram::read(packet) {
            (Key { transport: Transport::Udp, agent, remote }, payload)
        } else if let Some(echo) = echo::read(packet) {
            let agent = SocketAddr::new(echo.from, echo.identifier);
            (Key { transport: Transport::Icmp, agent, remote: SocketAddr::new(echo.to, 0) }, echo.message)
        } else {
            return false;
        };
        if !self.flows.contains_key(&key) {
            self.make_room(permits);
            let permit = permits.add(key.transport, key.agent, key.remote);
            let last = ([0; QUOTED], 0);
            let waiting = Waiting { permit, datagrams: VecDeque::new(), reader: None, used: now, last };
            self.flows.insert(key, waiting);
            self.begun.push_back(key);
            self.accepting.take().into_iter().for_each(Waker::wake);
        }
        let Some(flow) = self.flows.get_mut(&key) else { return true };
        flow.used = now;
        let quoted = packet.len().min(QUOTED);
        flow.last.0[..quoted].copy_from_slice(&packet[..quoted]);
        flow.last.1 = quoted;
        if flow.datagrams.len() < WAITING {
            flow.datagrams.push_back(payload.to_vec());
            flow.reader.take().into_iter().for_each(Waker::wake);
        } else {
            self.lost += 1;
        }
        true
    }

    /// How many datagrams found no room so far.
    pub(super) fn lost(&self) -> u64 {
        self.lost
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
                return Poll::Ready(Datagrams { shared: Rc::clone(&self.0), permit, key });
            }
            state.datagrams.accepting = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Datagrams {
    /// Where the agent sends them. Of pings, the port is 0.
    pub fn remote(&self) -> SocketAddr {
        self.key.remote
    }

    /// What they are: UDP, or pings, of which each datagram is an ICMP message from its type on.
    pub fn transport(&self) -> Transport {
        self.key.transport
    }

    /// Waits until the policy permits the flow no more, or another one takes its place.
    pub async fn revoked(&self) {
        self.permit.revoked().await;
    }

    /// The next datagram. One task at a time waits here, and none once the flow is [`revoked`](Self::revoked).
    pub async fn receive(&self) -> Vec<u8> {
        poll_fn(|context| {
            let mut state = self.shared.state();
            let Some(flow) = state.datagrams.flows.get_mut(&self.key) else {
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
    /// link's MTU: the kernel takes packets of any length from a TUN device. What no packet can hold is dropped. A ping's answer goes to who asked, by
    /// whatever identifier it came.
    pub fn send(&self, payload: &[u8]) {
        let Key { transport, agent, remote } = self.key;
        let state = &mut *self.shared.use_state();
        if transport == Transport::Icmp {
            if (echo::HEADER..=echo::MAX_MESSAGE).contains(&payload.len()) {
                let (len, identifier) = (echo::packet_len(agent.ip(), payload.len()), agent.port());
                let write =
                    |room: &mut [u8]| echo::write_reply(room, remote.ip(), agent.ip(), identifier, payload);
                state.out.packets.push(len, write);
            }
        } else if payload.len() <= datagram::MAX_PAYLOAD {
            let len = datagram::packet_len(agent, payload.len());
            state.out.packets.push(len, |room| datagram::write(room, remote, agent, payload));
        }
    }

    /// Tells the agent, of the last that it has sent, that it does not get there.
    pub fn refuse(&self, why: Unreachable) {
        let state = &mut *self.shared.use_state();
        let Some(flow) = state.datagrams.flows.get(&self.key) else { return };
        let mut error = [0; datagram::ERROR_ROOM];
        if let Some(len) = datagram::write_unreachable(&mut error, &flow.last.0[..flow.last.1], why) {
            state.out.packets.push(len, |room| room.copy_from_slice(&error[..len]));
        }
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        let flows = &mut self.shared.state().datagrams.flows;
        // It may be another one's by now.
        if flows.get(&self.key).is_some_and(|flow| flow.permit == self.permit.id) {
            flows.remove(&self.key);
        }
    }
}

impl fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagrams").field("key", &self.key).finish_non_exhaustive()
    }
}
