//! ICMP messages that come in. Anybody can send an error about a packet; it is believed when it names a sequence number that
//! is on its way now (RFC 5927, 4.1), which only who saw the packet knows.

use std::time::Instant;

use super::{Stack, context};
use crate::{
    Cause, Output, Run,
    icmp::{self, Kind, Message, Problem},
    ip,
};
use smoltcp::socket::tcp::State;

impl Stack {
    pub(super) fn receive_icmp(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        header: &ip::Header,
        out: &mut impl Output,
    ) {
        if header.len < header.transport + 8 {
            self.drops.malformed += 1;
            return;
        }
        if !icmp::checksum_is_right(packet, header) {
            self.drops.checksum += 1;
            return;
        }
        match Message::read(packet, header) {
            Some(Message::EchoRequest) => {
                let at = icmp::answer_echo(packet, header);
                out.transmit(&mut Run::single(&packet[at..header.len]));
            }
            Some(Message::Error(problem)) => self.handle_problem(now, header, &problem),
            Some(Message::Other) => {}
            None => self.drops.malformed += 1,
        }
    }

    fn handle_problem(&mut self, now: Instant, header: &ip::Header, problem: &Problem) {
        if problem.protocol == ip::UDP {
            return self.handle_datagram_problem(now, header, problem);
        }
        let slot = (problem.protocol == ip::TCP).then(|| self.flows.find(&problem.tuple)).flatten();
        let Some(slot) = slot else { return };
        let flow = self.flows.at(slot).expect("a flow that has a name");
        if !flow.is_on_its_way(problem.sequence) {
            self.drops.forged += 1;
            return;
        }
        match problem.kind {
            Kind::TooBig(mtu) => {
                let mtu = self.paths.learn(problem.tuple.remote.ip(), mtu, now);
                flow.set_mtu(mtu, &mut context!(self, now));
            }
            // Of a connection that is made, this may pass (RFC 1122, 4.2.3.9; RFC 5927, 5.2).
            Kind::Unreachable(code) if flow.state() == State::SynSent => {
                flow.break_off(Cause::Unreachable { by: header.source, code });
            }
            Kind::Unreachable(_) => {}
        }
        self.make_ready(slot);
    }

    /// Nothing in a datagram is secret. So only the destination itself is believed, whose address the overlay vouches for.
    fn handle_datagram_problem(&mut self, now: Instant, header: &ip::Header, problem: &Problem) {
        let remote = problem.tuple.remote.ip();
        let is_ours = self.sockets.get(problem.tuple.local.port()).is_some();
        match problem.kind {
            Kind::TooBig(mtu) if is_ours && header.source == remote => {
                self.paths.learn(remote, mtu, now);
            }
            _ => self.drops.forged += u64::from(header.source != remote),
        }
    }
}
