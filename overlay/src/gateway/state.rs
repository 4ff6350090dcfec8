//! What the gateway's thread has.

use std::{
    cell::{RefCell, RefMut},
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    task::Waker,
    time::Instant,
};

use lattice_netstack::{Event, FlowId, IncomingId, Output, Run, Stack};
use tokio::sync::Notify;

use super::{datagrams::Books, permits::Permits, pipe::Pipes};
use crate::{
    device::UserFilter,
    stack::{
        Transport,
        packets::Packets,
        sockets::{End, Flows, tell},
        state::dropped,
        stream::Owner,
    },
};

/// Bytes on their way to the link beyond which the stack waits. A run of its packets may go beyond by 64 KiB, for which there is room.
const FULL: usize = 256 << 10;

/// Rounds of the stack before others have their turn.
const ROUNDS: usize = 4;

/// The state, and the way to wake the engine.
pub(super) struct Shared {
    state: RefCell<State>,
    pub(super) used: Notify,
    pub(super) pipes: Arc<Pipes>,
    filter: UserFilter,
}

pub(super) struct State {
    pub(super) stack: Stack,
    pub(super) flows: Flows,
    pub(super) requests: VecDeque<Asked>,
    /// Waits for a request.
    pub(super) accepting: Option<Waker>,
    pub(super) datagrams: Books,
    pub(super) permits: Permits,
    pub(super) out: Out,
    spare: Packets,
}

/// A connection that the agent asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) id: IncomingId,
    pub(super) agent: SocketAddr,
    pub(super) target: SocketAddr,
    pub(super) permit: u64,
}

/// What is to go to the link at the end of the turn.
#[derive(Debug, Default)]
pub(super) struct Out {
    pub(super) packets: Packets,
    /// Bytes that the device has not taken yet.
    backlog: usize,
}

impl Output for Out {
    fn transmit(&mut self, run: &mut Run<'_>) {
        self.packets.transmit(run);
    }

    fn is_full(&self) -> bool {
        self.packets.bytes() + self.backlog >= FULL
    }
}

impl Shared {
    pub(super) fn new(stack: Stack, pipes: Arc<Pipes>, filter: UserFilter) -> Self {
        let state = State {
            stack,
            flows: Flows::new(),
            requests: VecDeque::new(),
            accepting: None,
            datagrams: Books::default(),
            permits: Permits::default(),
            out: Out::default(),
            spare: Packets::default(),
        };
        Self { state: RefCell::new(state), used: Notify::new(), pipes, filter }
    }

    /// The state, for as long as nobody waits for anything.
    pub(super) fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// The state, for what the engine has to do something about.
    pub(super) fn use_state(&self) -> RefMut<'_, State> {
        self.used.notify_one();
        self.state.borrow_mut()
    }

    /// Takes what has come from the link, has the stack work, and sends what there is.
    pub(super) fn turn(&self) {
        let state = &mut *self.state();
        let now = Instant::now();
        let pipes = &self.pipes;
        pipes.out.silence();
        // Before the packets are taken: what the policy of before has let out is among them, and is asked about.
        let has_changed = pipes.has_changed.swap(false, Ordering::AcqRel);
        let mut packets = std::mem::take(&mut state.spare);
        pipes.out.take(&mut packets);
        state.out.backlog = pipes.back.packets().bytes();
        packets.drain(|packet| state.take(packet, now));
        state.spare = packets;
        state.poll(now);
        if has_changed {
            for id in state.permits.judge_anew(&self.filter) {
                state.revoke(id);
            }
            state.poll(now);
        }
        pipes.lost.store(dropped(&state.stack) + state.datagrams.lost(), Ordering::Relaxed);
        self.send(state);
    }

    fn send(&self, state: &mut State) {
        let pipes = &self.pipes;
        if !state.out.packets.is_empty() {
            let mut waiting = pipes.back.packets();
            if waiting.is_empty() {
                std::mem::swap(&mut *waiting, &mut state.out.packets);
            } else {
                state.out.packets.drain(|packet| {
                    waiting.push(packet.len(), |room| room.copy_from_slice(packet));
                });
            }
            drop(waiting);
            pipes.back.ring();
        }
        if state.stack.is_ready() {
            pipes.waits.store(true, Ordering::Release);
            // Otherwise the device takes what there is, and then says so.
            if pipes.back.packets().is_empty() {
                self.used.notify_one();
            }
        }
    }
}

impl Owner for Shared {
    fn books(&self) -> (RefMut<'_, Stack>, RefMut<'_, Flows>) {
        RefMut::map_split(self.state(), |state| (&mut state.stack, &mut state.flows))
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn used(&self) {
        self.used.notify_one();
    }
}

impl State {
    fn take(&mut self, packet: &mut [u8], now: Instant) {
        if !self.datagrams.take(packet, &mut self.permits, now) {
            self.stack.receive(now, packet, &mut self.out);
        }
    }

    fn poll(&mut self, now: Instant) {
        for _ in 0..ROUNDS {
            self.stack.poll(now, &mut self.out);
            while let Some(event) = self.stack.poll_event() {
                match event {
                    Event::Incoming { id, remote: agent, local: target } => {
                        let permit = self.permits.add(Transport::Tcp, agent, target);
                        self.requests.push_back(Asked { id, agent, target, permit });
                        self.accepting.take().into_iter().for_each(Waker::wake);
                    }
                    event => tell(&mut self.flows, event),
                }
            }
            if !self.stack.is_ready() || self.out.is_full() {
                break;
            }
        }
    }

    fn revoke(&mut self, id: FlowId) {
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.end(End::Revoked);
            self.stack.abort(id);
        }
    }
}
