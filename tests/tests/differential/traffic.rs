//! Random and adversarial packets, most of them of few flows that are opened, answered, quoted, cut into fragments and damaged.

use std::net::IpAddr;

use lattice_policy::{Direction, Packet};

use crate::{
    random::Random,
    rules::{PORTS, REMOTES},
};

/// The sandbox's own addresses, and one that is not.
pub(crate) const OWN: [&str; 2] = ["10.42.0.2", "fd00::2"];
const FOREIGN: [&str; 2] = ["10.42.0.3", "fd00::3"];

const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 2;
const ACK: u8 = 16;

/// A packet from its IP header on.
pub(crate) struct Sent {
    pub(crate) direction: Direction,
    pub(crate) bytes: Vec<u8>,
    /// Of one that opens a flow that nobody has seen: what the rules look at.
    pub(crate) opens: Option<Packet>,
}

/// A flow as its opener sees it.
#[derive(Clone, Copy)]
struct Flow {
    direction: Direction,
    remote: IpAddr,
    proto: u8,
    /// The opener's port, or the identifier of an echo.
    from: u16,
    to: u16,
}

pub(crate) struct Traffic {
    random: Random,
    flows: Vec<Flow>,
    fresh: u16,
}

impl Traffic {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), flows: Vec::new(), fresh: 1024 }
    }

    /// Forgets all flows; the next are new ones.
    pub(crate) fn forget(&mut self) {
        self.flows.clear();
    }

    pub(crate) fn next(&mut self) -> Sent {
        let known = self.flows.len();
        if known == 0 || self.random.one_in(3) {
            return self.open();
        }
        // The younger half more often than the older.
        let at = self.random.below(known).max(self.random.below(known));
        let flow = self.flows[at];
        let (direction, mut bytes) = match self.random.below(10) {
            0..=3 => (flow.direction, flow.packet(ACK, 0)),
            4..=6 => (flow.direction.back(), flow.reply()),
            7 => self.quote(flow),
            8 => (flow.direction, self.fragment(flow)),
            _ => (flow.direction, self.extended(flow)),
        };
        if self.random.one_in(4) {
            self.damage(&mut bytes);
        }
        Sent { direction, bytes, opens: None }
    }

    /// The first packet of a flow that nobody has seen.
    pub(crate) fn open(&mut self) -> Sent {
        let random = &mut self.random;
        let remote: IpAddr = random.pick(&REMOTES).parse().expect("an address");
        let echo = if remote.is_ipv4() { 1 } else { 58 };
        let proto = random.pick(&[TCP, TCP, UDP, UDP, echo]);
        let direction = if random.one_in(3) { Direction::Ingress } else { Direction::Egress };
        // Nobody else's: not above the ports of the called, so that no reply looks like an opener.
        self.fresh = if self.fresh >= 60_000 { 1024 } else { self.fresh + 1 };
        let to = random.pick(&PORTS);
        let flow = Flow { direction, remote, proto, from: self.fresh, to };
        self.flows.push(flow);
        let port = (proto == TCP || proto == UDP).then_some(to);
        let opens = Some(Packet { direction, proto, remote, port });
        Sent { direction, bytes: flow.packet(SYN, 0), opens }
    }

    /// What the called says first to the last flow that was opened.
    pub(crate) fn answer(&self) -> Option<Vec<u8>> {
        let flow = self.flows.last()?;
        let mut bytes = flow.reply();
        if flow.proto == TCP {
            // To the SYN of `open`, without its data.
            let ack = if flow.remote.is_ipv4() { 20 } else { 40 } + 8;
            bytes[ack..ack + 4].copy_from_slice(&1001u32.to_be_bytes());
        }
        Some(bytes)
    }

    /// An ICMP error about a packet of the flow, sometimes from a router, sometimes quoting somebody else's.
    fn quote(&mut self, flow: Flow) -> (Direction, Vec<u8>) {
        let quoted = if self.random.one_in(2) { flow.packet(ACK, 0) } else { flow.reply() };
        let v4 = flow.remote.is_ipv4();
        let types: &[u8] = if v4 { &[3, 11, 12, 5, 4] } else { &[1, 2, 3, 4, 137] };
        let mut payload = vec![self.random.pick(types), 0, 0, 0, 0, 0, 0, 0];
        payload.extend(quoted.iter().take(if v4 { 28 } else { 48 }));
        let direction = if self.random.one_in(2) { Direction::Egress } else { Direction::Ingress };
        let router: IpAddr = self.random.pick(&REMOTES).parse().expect("an address");
        let other = if router.is_ipv4() == v4 && self.random.one_in(2) { router } else { flow.remote };
        let own = own(v4);
        let (src, dst) = match direction {
            Direction::Egress => (own, other),
            Direction::Ingress => (other, own),
        };
        (direction, ip(if v4 { 1 } else { 58 }, src, dst, &payload, 0))
    }

    fn fragment(&mut self, flow: Flow) -> Vec<u8> {
        let id = self.random.below(8) as u16;
        let first = self.random.one_in(2);
        match flow.remote {
            IpAddr::V4(_) => {
                let mut packet = flow.packet(SYN, 0);
                packet[4..6].copy_from_slice(&id.to_be_bytes());
                let offset: u16 = if first { 0x2000 } else { 0x2000 | 8 };
                packet[6..8].copy_from_slice(&offset.to_be_bytes());
                packet
            }
            IpAddr::V6(_) => {
                let packet = flow.packet(SYN, 0);
                let offset: u16 = if first { 1 } else { 64 | 1 };
                let [a, b] = offset.to_be_bytes();
                insert(packet, 44, &[0, a, b, 0, 0, 0, id as u8])
            }
        }
    }

    /// With options or extension headers.
    fn extended(&mut self, flow: Flow) -> Vec<u8> {
        let packet = flow.packet(ACK, 0);
        match flow.remote {
            IpAddr::V4(_) => packet,
            IpAddr::V6(_) => {
                let left = self.random.below(2) as u8;
                let kind = self.random.pick(&[0, 43, 60, 60, 51, 135]);
                let mut packet = insert(packet, kind, &[0, 4, left, 0, 0, 0, 0]);
                for _ in 0..self.random.below(8) {
                    packet = insert(packet, 60, &[0; 7]);
                }
                packet
            }
        }
    }

    fn damage(&mut self, packet: &mut Vec<u8>) {
        match self.random.below(3) {
            0 => {
                let keep = self.random.below(packet.len());
                packet.truncate(keep);
            }
            _ => {
                for _ in 0..=self.random.below(3) {
                    let at = self.random.below(packet.len().min(64));
                    packet[at] = match self.random.below(3) {
                        0 => 0,
                        1 => packet[at] ^ 1 << self.random.below(8),
                        _ => self.random.next() as u8,
                    };
                }
            }
        }
    }
}

trait Back {
    fn back(self) -> Self;
}

impl Back for Direction {
    fn back(self) -> Self {
        match self {
            Self::Egress => Self::Ingress,
            Self::Ingress => Self::Egress,
        }
    }
}

impl Flow {
    /// From the opener to the called.
    fn packet(&self, flags: u8, own_at: usize) -> Vec<u8> {
        let v4 = self.remote.is_ipv4();
        let local = if own_at == 0 { own(v4) } else { foreign(v4) };
        let (src, dst) = match self.direction {
            Direction::Egress => (local, self.remote),
            Direction::Ingress => (self.remote, local),
        };
        ip(self.proto, src, dst, &self.payload(self.from, self.to, flags, true), 0)
    }

    fn reply(&self) -> Vec<u8> {
        let local = own(self.remote.is_ipv4());
        let (src, dst) = match self.direction {
            Direction::Egress => (self.remote, local),
            Direction::Ingress => (local, self.remote),
        };
        ip(self.proto, src, dst, &self.payload(self.to, self.from, SYN | ACK, false), 0)
    }

    fn payload(&self, from: u16, to: u16, flags: u8, opens: bool) -> Vec<u8> {
        let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
        match self.proto {
            TCP => {
                let rest =
                    [&1000u32.to_be_bytes()[..], &5000u32.to_be_bytes(), &[0x50, flags, 1, 0, 0, 0, 0, 0]];
                [&ports[..], &rest.concat(), b"some data"].concat()
            }
            UDP => [&ports[..], &[0, 16, 0, 0], b"payload."].concat(),
            icmp => {
                let kind = match (icmp, opens) {
                    (1, true) => 8,
                    (1, false) => 0,
                    (_, true) => 128,
                    (_, false) => 129,
                };
                [&[kind, 0, 0, 0][..], &self.from.to_be_bytes(), &[0, 1], b"echo"].concat()
            }
        }
    }
}

fn own(v4: bool) -> IpAddr {
    OWN[usize::from(!v4)].parse().expect("an address")
}

fn foreign(v4: bool) -> IpAddr {
    FOREIGN[usize::from(!v4)].parse().expect("an address")
}

fn ip(proto: u8, src: IpAddr, dst: IpAddr, payload: &[u8], id: u16) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let [a, b] = ((20 + payload.len()) as u16).to_be_bytes();
            let [c, d] = id.to_be_bytes();
            [&[0x45, 0, a, b, c, d, 0, 0, 64, proto, 0, 0][..], &src.octets(), &dst.octets(), payload]
                .concat()
        }
        (src, dst) => {
            let octets = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                IpAddr::V6(ip) => ip.octets(),
            };
            let [a, b] = (payload.len() as u16).to_be_bytes();
            [&[0x60, 0, 0, 0, a, b, proto, 64][..], &octets(src), &octets(dst), payload].concat()
        }
    }
}

/// Puts an extension header of 8 bytes between the IPv6 header and what follows it; `rest` is all but its first byte.
fn insert(mut packet: Vec<u8>, kind: u8, rest: &[u8; 7]) -> Vec<u8> {
    let next = std::mem::replace(&mut packet[6], kind);
    let length = u16::from_be_bytes([packet[4], packet[5]]) + 8;
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    packet.splice(40..40, [next].into_iter().chain(*rest));
    packet
}
