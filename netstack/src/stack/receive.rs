//! Packets that come in.

use std::time::Instant;

use super::{Stack, context};
use crate::{
    Event, Output, Run,
    icmp::{self, Unreachable},
    ip,
    tcp::{Answer, RST, Segment},
    time_wait::Late,
    tuple::Tuple,
    udp,
};

/// What is known of the checksum of a packet's transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sum {
    Unknown,
    Right,
}

impl Stack {
    /// Takes one IP packet from the overlay, which is overwritten. What must be answered at once is; for the rest, call
    /// [`Stack::poll`] once there are no more packets.
    ///
    /// That the source address is its sender's is the overlay's to see to.
    pub fn receive(&mut self, now: Instant, packet: &mut [u8], out: &mut impl Output) {
        self.receive_with(now, packet, Sum::Unknown, out);
    }

    /// As [`Stack::receive`], of a packet that was put together from segments of one stream, as a network card would (GRO). Who did so has
    /// looked at their checksums, and made none for the whole.
    pub fn receive_merged(&mut self, now: Instant, packet: &mut [u8], out: &mut impl Output) {
        self.receive_with(now, packet, Sum::Right, out);
    }

    fn receive_with(&mut self, now: Instant, packet: &mut [u8], sum: Sum, out: &mut impl Output) {
        let Some(header) = ip::Header::read(packet, &mut self.drops) else { return };
        let is_ours = self.addresses.contains(&header.destination);
        if !(is_ours || self.stands_for_others && header.protocol == ip::TCP) {
            self.drops.not_ours += 1;
            return;
        }
        match header.protocol {
            ip::TCP => self.receive_segment(now, packet, &header, sum, out),
            ip::UDP => self.receive_datagram(now, packet, &header, out),
            ip::ICMP if header.source.is_ipv4() => self.receive_icmp(now, packet, &header, out),
            ip::ICMP_V6 if header.source.is_ipv6() => self.receive_icmp(now, packet, &header, out),
            _ => self.drops.protocol += 1,
        }
    }

    fn receive_segment(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        header: &ip::Header,
        sum: Sum,
        out: &mut impl Output,
    ) {
        let Some(segment) = Segment::read(&packet[header.transport..header.len]) else {
            self.drops.malformed += 1;
            return;
        };
        if sum == Sum::Unknown && !header.checksum_is_right(packet) {
            self.drops.checksum += 1;
            return;
        }
        let tuple = Tuple::of(header, &segment);
        if let Some(slot) = self.flows.find(&tuple) {
            let flow = self.flows.at(slot).expect("a flow that has a name");
            flow.receive(packet, header, &segment, &mut context!(self, now), &mut self.drops, out);
            return self.make_ready(slot);
        }
        match self.time_wait.receive(&tuple, &segment, now) {
            Late::Ended(answer) => {
                if let Some(answer) = answer {
                    answer.send(&tuple, out);
                }
            }
            Late::Unknown if segment.opens() && self.listens(&tuple) => {
                // Its data is sent again once the connection is made.
                let head = &packet[header.transport..][..segment.header];
                self.ask_owner(now, tuple, head);
            }
            Late::Unknown if !segment.has(RST) && !self.incoming.has(&tuple) => {
                Answer::reset(&segment).send(&tuple, out);
            }
            Late::Unknown => {}
        }
    }

    fn listens(&self, tuple: &Tuple) -> bool {
        self.stands_for_others || self.listening.contains(&tuple.local.port())
    }

    fn ask_owner(&mut self, now: Instant, tuple: Tuple, head: &[u8]) {
        while let Some(old) = self.incoming.remove_old(self.limits.handshake, now) {
            self.half_open.remove(old.tuple.remote.ip());
        }
        if self.incoming.has(&tuple) {
            return;
        }
        if !self.half_open.add(tuple.remote.ip()) {
            self.drops.half_open += 1;
            return;
        }
        let id = self.incoming.insert(tuple, head, now);
        self.events.push(Event::Incoming { id, remote: tuple.remote, local: tuple.local });
    }

    fn receive_datagram(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        header: &ip::Header,
        out: &mut impl Output,
    ) {
        let Some((source, port, payload)) = udp::read(packet, header) else {
            self.drops.malformed += 1;
            return;
        };
        if !udp::checksum_is_right(packet, header) {
            self.drops.checksum += 1;
            return;
        }
        let Some(socket) = self.sockets.get(port) else {
            if self.errors.take(now) {
                let mut room = icmp::ERROR_ROOM;
                let len = icmp::unreachable(packet, header, Unreachable::PORT, &mut room);
                out.transmit(&mut Run::single(&room[..len]));
            }
            return;
        };
        let remote = std::net::SocketAddr::new(header.source, source);
        match socket.push(remote, header.destination, payload, self.limits.datagrams) {
            Some(true) => self.events.push(Event::Datagrams { port }),
            Some(false) => {}
            None => self.drops.datagrams += 1,
        }
    }
}
