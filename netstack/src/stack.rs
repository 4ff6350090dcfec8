//! The stack's state: its flows, its sockets, and what of peers is not yet or no longer either.

use std::{
    collections::{HashSet, VecDeque},
    net::IpAddr,
    time::Instant,
};

use crate::{
    Config, Drops, Error, Event, Limits, Random,
    clock::Clock,
    deadlines::Deadlines,
    event::Events,
    flow::link::Scratch,
    incoming::{HalfOpen, Incoming},
    ip,
    memory::Memory,
    path_mtu::{self, PathMtus},
    rate::Rate,
    table::Table,
    time_wait::TimeWait,
    udp,
};

mod datagrams;
mod icmp;
mod open;
mod poll;
mod receive;
mod streams;

/// A TCP/IP stack.
pub struct Stack {
    addresses: Vec<IpAddr>,
    limits: Limits,
    random: Random,
    clock: Clock,
    scratch: Scratch,
    flows: Table,
    memory: Memory,
    /// Whose turn it is to send, in order.
    ready: VecDeque<u32>,
    deadlines: Deadlines,
    events: Events,
    listening: HashSet<u16>,
    /// It takes connections to any address.
    stands_for_others: bool,
    incoming: Incoming,
    half_open: HalfOpen,
    time_wait: TimeWait,
    sockets: udp::Sockets,
    paths: PathMtus,
    errors: Rate,
    drops: Drops,
}

impl Stack {
    /// A stack without flows.
    ///
    /// # Errors
    /// When an address is no host's, the MTU too small for one, or the memory for all flows.
    pub fn new(config: Config, now: Instant) -> Result<Self, Error> {
        let Config { addresses, mtu, limits, random } = config;
        if let Some(address) = addresses.iter().find(|address| !ip::is_host(**address)) {
            return Err(Error::Address(*address));
        }
        if let Some(address) = addresses.iter().find(|address| mtu < path_mtu::least(**address)) {
            return Err(Error::Mtu { mtu, address: *address });
        }
        let memory =
            Memory::new(limits).ok_or(Error::Memory { memory: limits.memory, flows: limits.flows })?;
        Ok(Self {
            addresses,
            limits,
            random,
            clock: Clock::new(now),
            scratch: Scratch::new(),
            flows: Table::default(),
            memory,
            ready: VecDeque::new(),
            deadlines: Deadlines::default(),
            events: Events::default(),
            listening: HashSet::new(),
            stands_for_others: false,
            incoming: Incoming::default(),
            half_open: HalfOpen::new(limits.half_open),
            time_wait: TimeWait::new(limits.time_wait),
            sockets: udp::Sockets::default(),
            paths: PathMtus::new(mtu),
            errors: Rate::new(now),
            drops: Drops::default(),
        })
    }

    /// What happened next, if anything did.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// What was dropped so far.
    pub fn drops(&self) -> Drops {
        self.drops
    }

    /// How many connections there are, those included that the owner has closed and that have not ended yet.
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// Our address for what goes to `remote`.
    fn address_for(&self, remote: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv4() == remote.is_ipv4())
    }

    fn random_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        (self.random)(&mut bytes);
        u64::from_ne_bytes(bytes)
    }

    /// A port above those that need a privilege elsewhere, by chance (RFC 6056, 3.3.1); one that `is_free`, if any is.
    fn ephemeral_port(&mut self, mut is_free: impl FnMut(&mut Self, u16) -> bool) -> Option<u16> {
        const FIRST: u16 = 32_768;
        let start = self.random_u64() as u16;
        (0..FIRST).map(|step| FIRST | start.wrapping_add(step)).find(|port| is_free(self, *port))
    }

    /// Puts a flow in the row of those that may have something to send.
    fn make_ready(&mut self, slot: u32) {
        if let Some(flow) = self.flows.at(slot)
            && !flow.is_ready
        {
            flow.is_ready = true;
            self.ready.push_back(slot);
        }
    }
}

/// What a flow needs of the stack, while it is borrowed itself.
macro_rules! context {
    ($stack:ident, $now:expr) => {
        crate::flow::Context { clock: $stack.clock, now: $now, scratch: &mut $stack.scratch }
    };
}
use context;
