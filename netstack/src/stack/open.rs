//! How connections begin.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use super::{Stack, context};
use crate::{
    Error, FlowId, IncomingId, Output, Run,
    flow::Flow,
    icmp::{self, Unreachable},
    ip,
    tcp::{Answer, Segment},
    tuple::Tuple,
};

impl Stack {
    /// Begins a connection to `remote` from our first address of its IP version. [`Event::Established`](crate::Event) or
    /// [`Event::Broken`](crate::Event) follows.
    ///
    /// # Errors
    /// When `remote` cannot be reached from here, and when there are as many flows as may be.
    pub fn connect(&mut self, now: Instant, remote: SocketAddr) -> Result<FlowId, Error> {
        let local = self.address_for(remote.ip()).ok_or(Error::Unreachable(remote))?;
        if remote.port() == 0 || !ip::is_host(remote.ip()) || self.addresses.contains(&remote.ip()) {
            return Err(Error::Unreachable(remote));
        }
        let tuple = |port| Tuple { local: SocketAddr::new(local, port), remote };
        let port = self.ephemeral_port(|stack, port| {
            let tuple = tuple(port);
            stack.flows.find(&tuple).is_none() && !stack.time_wait.has(&tuple) && !stack.incoming.has(&tuple)
        });
        let tuple = tuple(port.ok_or(Error::Limit("the number of ports to one address"))?);
        let id = self.new_flow(now, tuple)?;
        if let Some(flow) = self.flows.at(id.slot) {
            flow.connect();
        }
        self.make_ready(id.slot);
        Ok(id)
    }

    /// Asks the owner about connections to a TCP port from now on, by [`Event::Incoming`](crate::Event). Those to other ports
    /// are answered with a reset.
    pub fn listen(&mut self, port: u16) {
        self.listening.insert(port);
    }

    /// Asks the owner about every connection from now on, whatever its port and address, and answers in the name of that address: as one
    /// must who stands for all that a network's default route leads to. A half-open connection is then not a stranger's but one of the
    /// network's own hosts', of whom each has a quarter of [`Limits::half_open`](crate::Limits).
    pub fn stand_for_others(&mut self) {
        self.stands_for_others = true;
    }

    /// Answers connections to a TCP port with a reset again. Those that were made stay.
    pub fn stop_listening(&mut self, port: u16) {
        self.listening.remove(&port);
    }

    /// Answers a peer that asks for a connection. [`Event::Established`](crate::Event) follows when it completes it.
    ///
    /// # Errors
    /// When the peer has asked for too long ago, and when there are as many flows as may be; then it has been refused.
    pub fn accept(&mut self, now: Instant, id: IncomingId, out: &mut impl Output) -> Result<FlowId, Error> {
        let mut request = self.incoming.remove(id).ok_or(Error::Ended)?;
        let tuple = request.tuple;
        let (packet, header) = request.packet();
        let syn = Segment::read(&packet[header.transport..]).expect("it was read before");
        let id = match self.new_flow(now, tuple) {
            Ok(id) => id,
            Err(error) => {
                self.half_open.remove(tuple.remote.ip());
                Answer::reset(&syn).send(&tuple, out);
                return Err(error);
            }
        };
        if let Some(flow) = self.flows.at(id.slot) {
            flow.listen();
            flow.receive(packet, &header, &syn, &mut context!(self, now), &mut self.drops, out);
        }
        self.make_ready(id.slot);
        Ok(id)
    }

    /// Answers a peer that asks for a connection with a reset.
    pub fn refuse(&mut self, id: IncomingId, out: &mut impl Output) {
        if let Some(mut request) = self.incoming.remove(id) {
            self.half_open.remove(request.tuple.remote.ip());
            let tuple = request.tuple;
            let (packet, header) = request.packet();
            if let Some(syn) = Segment::read(&packet[header.transport..]) {
                Answer::reset(&syn).send(&tuple, out);
            }
        }
    }

    /// Answers a peer that asks for a connection that nothing leads to the host (ICMP, RFC 1122, 3.2.2.1).
    pub fn refuse_as_unreachable(&mut self, id: IncomingId, out: &mut impl Output) {
        if let Some(mut request) = self.incoming.remove(id) {
            self.half_open.remove(request.tuple.remote.ip());
            let (packet, header) = request.whole_packet();
            let mut room = icmp::ERROR_ROOM;
            let len = icmp::unreachable(packet, &header, Unreachable::HOST, &mut room);
            out.transmit(&mut Run::single(&room[..len]));
        }
    }

    /// Answers a peer that asks for a connection nothing.
    pub fn ignore(&mut self, id: IncomingId) {
        if let Some(request) = self.incoming.remove(id) {
            self.half_open.remove(request.tuple.remote.ip());
        }
    }

    fn new_flow(&mut self, now: Instant, tuple: Tuple) -> Result<FlowId, Error> {
        let buffers = self.memory.reserve().ok_or(Error::Limit("the number of flows"))?;
        let seed = self.random_u64();
        let mtu = self.paths.to(tuple.remote.ip(), now);
        let id = self.flows.next_id();
        let mut context = context!(self, now);
        self.flows.insert(Flow::new(id, tuple, buffers, mtu, seed, &self.limits, &mut context));
        Ok(id)
    }

    /// Both ends of a flow: ours, and the peer's.
    pub fn ends(&mut self, id: FlowId) -> Option<(SocketAddr, SocketAddr)> {
        self.flows.get(id).map(|flow| (flow.tuple.local, flow.tuple.remote))
    }

    /// Our addresses.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }
}
