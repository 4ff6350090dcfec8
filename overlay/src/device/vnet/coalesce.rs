//! Packets of one flow, put together for the TUN device or the stack while a batch of datagrams is decrypted.
//!
//! What is put together is what the kernel's GRO would (`tcp_gro_receive`, `udp_gro_receive`), and a little less: packets
//! that differ in nothing but what [`Segments`](super::segments::Segments) makes anew when it cuts. Their checksums are looked at
//! first: the kernel takes ours for the whole on trust, and a packet that a peer's side broke must stay broken.

mod candidate;

use super::{
    Header, NEEDS_CHECKSUM, PSH, TCP, TCP_CHECKSUM, UDP, UDP_CHECKSUM, checksum, put_u16, set_ip_length,
};
use candidate::Candidate;

/// Flows that are put together at the same time; of more, the oldest is written first. A batch is of some 64 to 200
/// packets, so with more flows there is little to put together in each.
const FLOWS: usize = 8;

/// The longest packet that is made, in bytes: what a header of IPv4 can say.
const MAX_LEN: usize = 65_535;

/// The most datagrams the kernel takes as one (`UDP_MAX_SEGMENTS` before Linux 6.9).
const MAX_DATAGRAMS: usize = 64;

/// Takes decrypted packets, and gives them, or longer ones in their place, to a sink that takes what a TUN device does, and may
/// overwrite it. The order within each flow is kept. What was taken is held back until [`Self::flush`] at the latest.
#[derive(Debug)]
pub(crate) struct Coalescer {
    flows: [Flow; FLOWS],
    /// Whose turn it is to make room.
    oldest: usize,
    /// Whether the kernel takes several datagrams as one.
    datagrams: bool,
}

/// A packet that is being made; none while its buffer is empty.
#[derive(Debug, Default)]
struct Flow {
    packet: Vec<u8>,
    first: Candidate,
    count: usize,
}

impl Coalescer {
    /// `datagrams`: whether the kernel takes UDP as well as TCP.
    pub(crate) fn new(datagrams: bool) -> Self {
        Self { flows: Default::default(), oldest: 0, datagrams }
    }

    /// Takes a packet: an IP header and as many bytes as that says.
    pub(crate) fn push(&mut self, packet: &mut [u8], mut sink: impl FnMut(Header, &mut [u8])) {
        let Some(candidate) = Candidate::read(packet) else {
            // Of which flow it is cannot be said: a fragment, an ICMP error.
            self.flush(&mut sink);
            return sink(Header::default(), packet);
        };
        let found = self.flows.iter().position(|flow| flow.is_of(&candidate, packet));
        let mergeable = candidate.mergeable && (self.datagrams || candidate.protocol != UDP);
        if let Some(at) = found {
            let flow = &mut self.flows[at];
            if mergeable && flow.continues_with(&candidate, packet) && candidate.is_intact(packet) {
                return flow.append(&candidate, packet, sink);
            }
            flow.finish(&mut sink);
        }
        if !mergeable || candidate.is_pushed || !candidate.is_intact(packet) {
            return sink(Header::default(), packet);
        }
        let at = found.or_else(|| self.flows.iter().position(|flow| flow.count == 0)).unwrap_or_else(|| {
            let oldest = self.oldest;
            self.oldest = (oldest + 1) % FLOWS;
            oldest
        });
        self.flows[at].finish(&mut sink);
        self.flows[at].begin(candidate, packet);
    }

    /// Gives out all that is held back.
    pub(crate) fn flush(&mut self, mut sink: impl FnMut(Header, &mut [u8])) {
        for flow in &mut self.flows {
            flow.finish(&mut sink);
        }
    }
}

impl Flow {
    fn is_of(&self, candidate: &Candidate, packet: &[u8]) -> bool {
        self.count > 0 && self.first.is_same_flow(&self.packet, candidate, packet)
    }

    fn begin(&mut self, first: Candidate, packet: &[u8]) {
        self.packet.extend_from_slice(packet);
        self.first = first;
        self.count = 1;
    }

    fn continues_with(&self, next: &Candidate, packet: &[u8]) -> bool {
        let most = if next.protocol == UDP { MAX_DATAGRAMS } else { usize::MAX };
        next.payload <= self.first.payload
            && self.count < most
            && self.packet.len() + next.payload <= MAX_LEN
            && self.first.is_continued(&self.packet, self.count, next, packet)
    }

    fn append(&mut self, next: &Candidate, packet: &[u8], sink: impl FnMut(Header, &mut [u8])) {
        self.packet.extend_from_slice(&packet[next.headers..]);
        self.count += 1;
        if next.is_pushed {
            self.packet[self.first.transport + 13] |= PSH;
        }
        // A shorter one is the last.
        if next.is_pushed || next.payload < self.first.payload {
            self.finish(sink);
        }
    }

    fn finish(&mut self, mut sink: impl FnMut(Header, &mut [u8])) {
        match self.count {
            0 => return,
            1 => sink(Header::default(), &mut self.packet),
            _ => {
                let header = self.complete();
                sink(header, &mut self.packet);
            }
        }
        self.packet.clear();
        self.count = 0;
    }

    /// Makes one packet of what was put together: lengths, checksums, and what it is to be cut into.
    fn complete(&mut self) -> Header {
        let Candidate { transport, headers, payload, protocol, .. } = self.first;
        let (packet, is_v4) = (&mut self.packet, self.first.is_v4);
        let len = packet.len();
        set_ip_length(packet, transport, len);
        let (kind, place) = match protocol {
            TCP if is_v4 => (Header::TCP_V4, TCP_CHECKSUM),
            TCP => (Header::TCP_V6, TCP_CHECKSUM),
            _ => (Header::UDP_DATAGRAMS, UDP_CHECKSUM),
        };
        if protocol == UDP {
            put_u16(packet, transport + 4, (len - transport) as u16);
        }
        let partial = checksum::fold(checksum::pseudo_header(packet, transport, protocol));
        packet[transport + place..transport + place + 2].copy_from_slice(&partial.to_ne_bytes());
        Header {
            flags: NEEDS_CHECKSUM,
            kind,
            headers: headers as u16,
            segment: payload as u16,
            checksum_start: transport as u16,
            checksum_offset: place as u16,
        }
    }
}
