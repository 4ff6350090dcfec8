//! What the device's thread has: WireGuard, the stack, and the sockets' books. The engine and the sockets take turns with it.

use std::{
    cell::{Cell, RefCell, RefMut},
    net::{IpAddr, SocketAddr},
    task::Waker,
    time::Instant,
};

use lattice_netstack::{Event, Limits, Stack};
use lattice_policy::{Action, Direction};

use super::{
    ConnectError, Denied, Transport,
    admission::Admissions,
    first::First,
    packets::{Kept, Receiver, Sealer},
    sockets::{End, Flows, Sockets},
    stream::Owner,
};
use crate::device::{
    core::{Core, Done, More},
    vnet::Coalescer,
};

/// Rounds in which packets go back and forth between stack and gate before others have their turn.
const ROUNDS: usize = 4;

/// The state, and the way to wake the engine.
pub(super) struct Shared {
    state: RefCell<State>,
    /// Somebody has used a socket: the stack is to be polled.
    pub(super) is_used: Cell<bool>,
    /// The engine, while it waits.
    pub(super) engine: RefCell<Option<Waker>>,
    /// How often the engine has had something to do.
    pub(super) turns: Cell<u64>,
}

pub(super) struct State {
    pub(super) core: Core,
    pub(super) stack: Stack,
    pub(super) kept: Kept,
    /// Puts together what comes in; holds nothing back but while it does.
    coalescer: Coalescer,
    pub(super) sockets: Sockets,
    pub(super) admissions: Admissions,
    pub(super) has_stopped: bool,
    /// Who waits for the underlay to have room.
    pub(super) waiting: Vec<Waker>,
    limits: Limits,
    /// The next port of a first packet that is judged and not sent.
    port: u16,
}

impl Shared {
    pub(super) fn new(core: Core, stack: Stack, limits: Limits) -> Self {
        let state = State {
            core,
            stack,
            kept: Kept::default(),
            // Of streams only: datagrams are delivered one by one.
            coalescer: Coalescer::new(false),
            sockets: Sockets::default(),
            admissions: Admissions::default(),
            has_stopped: false,
            waiting: Vec::new(),
            limits,
            port: 0,
        };
        let (is_used, engine) = (Cell::new(false), RefCell::new(None));
        Self { state: RefCell::new(state), is_used, engine, turns: Cell::new(0) }
    }

    /// The state, for as long as nobody waits for anything.
    pub(super) fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// The state, for what the engine has to do something about.
    pub(super) fn use_state(&self) -> RefMut<'_, State> {
        self.used();
        self.state.borrow_mut()
    }

    /// Has the engine look at what was done.
    pub(super) fn used(&self) {
        if !self.is_used.replace(true)
            && let Some(engine) = self.engine.borrow_mut().take()
        {
            engine.wake();
        }
    }
}

impl Owner for Shared {
    fn books(&self) -> (RefMut<'_, Stack>, RefMut<'_, Flows>) {
        RefMut::map_split(self.state(), |state| (&mut state.stack, &mut state.sockets.flows))
    }

    fn now(&self) -> Instant {
        self.state().now()
    }

    fn used(&self) {
        Self::used(self);
    }
}

impl State {
    /// The device's time, also for what the gate is asked next.
    pub(super) fn now(&mut self) -> Instant {
        self.core.now()
    }

    /// Lets the stack send, with the time at hand.
    pub(super) fn with_output<R>(
        &mut self,
        work: impl FnOnce(&mut Stack, Instant, &mut Sealer<'_>) -> R,
    ) -> R {
        let now = self.now();
        let mut sealer = Sealer::new(&mut self.core, &mut self.kept.returns, now);
        work(&mut self.stack, now, &mut sealer)
    }

    /// Takes what has come in.
    pub(super) fn receive(&mut self, now: Instant, datagrams: bool, relays: bool) -> (More, More) {
        let Self { core, stack, coalescer, kept, .. } = self;
        let mut inside = Receiver { stack, coalescer, answers: &mut kept.answers, now };
        let datagrams = if datagrams { core.handle_datagrams(&mut inside, now) } else { More::Maybe };
        let relays = if relays { core.handle_relays(&mut inside, now) } else { More::Maybe };
        inside.flush();
        (datagrams, relays)
    }

    /// Does what the owner asks for.
    pub(super) fn handle_commands(&mut self, now: Instant) -> Done {
        let dropped = dropped(&self.stack) + self.kept.answers.lost() + self.kept.returns.lost();
        let done = self.core.handle_commands(&mut self.kept.returns, dropped, now);
        if done.policy {
            self.judge_anew();
        }
        if done.peers {
            self.end_strays();
        }
        done
    }

    /// Does what time asks for.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.core.handle_timeout(&mut self.kept.returns, now);
    }

    /// Has the stack send and tell what there is. Says whether somebody was told something.
    pub(super) fn poll(&mut self, now: Instant) -> bool {
        for _ in 0..ROUNDS {
            let Self { core, stack, kept, .. } = self;
            kept.hand_on(core, stack, now);
            stack.poll(now, &mut Sealer::new(core, &mut kept.returns, now));
            if self.kept.returns.is_empty() && self.kept.answers.is_empty() {
                break;
            }
        }
        let mut told = false;
        while let Some(event) = self.stack.poll_event() {
            told = true;
            self.tell(event, now);
        }
        told
    }

    fn tell(&mut self, event: Event, now: Instant) {
        if let Some(nobodys) = self.sockets.tell(event, self.limits.half_open) {
            let Self { core, stack, kept, .. } = self;
            stack.refuse(nobodys, &mut Sealer::new(core, &mut kept.returns, now));
        }
    }

    /// Whether [`Self::poll`] has something to do at once.
    pub(super) fn has_more(&self) -> bool {
        let is_full = self.core.outside.udp.is_full();
        !self.kept.returns.is_empty() || !self.kept.answers.is_empty() || (self.stack.is_ready() && !is_full)
    }

    /// When something is to be done though nothing happens.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.core.poll_timeout().into_iter().chain(self.stack.poll_at()).min()
    }

    /// Our address of the IP version of `remote`.
    pub(super) fn address_for(&self, remote: IpAddr) -> Option<IpAddr> {
        self.stack.addresses().iter().copied().find(|own| own.is_ipv4() == remote.is_ipv4())
    }

    /// A port of its own for a first packet: above those that need a privilege, each after all others.
    pub(super) fn next_port(&mut self) -> u16 {
        self.port = self.port.wrapping_add(1);
        0x8000 | self.port
    }

    /// Whether the policy lets a flow begin, and somebody has the address. What it denies is counted and on record.
    ///
    /// # Errors
    /// Why not. That nobody has the address is said only of what the policy permits.
    pub(super) fn may_begin(&mut self, transport: Transport, remote: SocketAddr) -> Result<(), ConnectError> {
        if self.has_stopped {
            return Err(ConnectError::Stopped);
        }
        let local = self.address_for(remote.ip()).ok_or(ConnectError::Unreachable)?;
        let first = First::new(transport, SocketAddr::new(local, self.next_port()), remote);
        self.now();
        if let Some(gate) = &mut self.core.outside.gate
            && let Some(decision) = gate.denial(first.bytes())
        {
            return Err(ConnectError::Denied(Denied { decision, generation: gate.generation() }));
        }
        if self.core.interface.leads_to(remote.ip()) {
            return Ok(());
        }
        // No packet of it will come by, and permitted it is: that is on record, as of a packet that goes nowhere.
        if let Some(gate) = &mut self.core.outside.gate {
            let _permitted = gate.egress(first.bytes(), 1, first.bytes().len());
        }
        Err(ConnectError::NoPeer)
    }

    /// Ends at once what the policy permits no more. What is sent of it is the reset, which is denied, counted and on record.
    fn judge_anew(&mut self) {
        let Some(gate) = &mut self.core.outside.gate else { return };
        self.admissions.judge_anew(gate);
        let generation = gate.generation();
        for (id, flow) in &mut self.sockets.flows {
            let (from, to) = match flow.direction {
                Direction::Egress => (flow.local, flow.remote),
                Direction::Ingress => (flow.remote, flow.local),
            };
            let decision = gate.peek(flow.direction, First::new(Transport::Tcp, from, to).bytes());
            if flow.end.is_none() && decision.action == Action::Deny {
                flow.end(End::Denied(Denied { decision, generation }));
                self.stack.abort(*id);
            }
        }
    }

    /// Ends at once what no peer is at the other end of any more: nobody would ever answer.
    fn end_strays(&mut self) {
        let Self { core, stack, sockets, .. } = self;
        for (id, flow) in &mut sockets.flows {
            if flow.end.is_none() && !core.interface.leads_to(flow.remote.ip()) {
                flow.end(End::Gone);
                stack.abort(*id);
            }
        }
    }

    /// Ends everything: whoever waits is told, and the peers by resets, as far as they can be.
    pub(super) fn stop(&mut self, now: Instant) {
        self.has_stopped = true;
        self.stack.abort_all();
        self.sockets.stop();
        self.waiting.drain(..).for_each(Waker::wake);
        self.admissions.stop();
        self.poll(now);
    }

    /// Sends what waits to be sent, and tells the recorder what there is to tell.
    pub(super) fn finish(&mut self) {
        self.core.outside.udp.flush();
        if !self.core.outside.udp.is_full() {
            self.waiting.drain(..).for_each(Waker::wake);
        }
        if let Some(gate) = &mut self.core.outside.gate {
            gate.tell();
        }
    }
}

/// Packets that the stack had no use for.
pub(crate) fn dropped(stack: &Stack) -> u64 {
    let drops = stack.drops();
    let unread = drops.malformed + drops.checksum + drops.fragments + drops.not_ours + drops.protocol;
    unread + drops.forged + drops.half_open + drops.datagrams
}
