//! From bytes to a flow key. Every load is bounded by the length that the IP header claims, not by the buffer's: what a
//! receiver cuts off as padding must not decide.

mod extensions;
mod key;

use lattice_policy::{Direction, Reason};

pub(crate) use key::{FlowKey, address};

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

pub(crate) const V4_HEADER: usize = 20;
pub(crate) const V6_HEADER: usize = 40;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

/// What a packet is of its datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fragment {
    Whole,
    First,
    Later,
}

/// A packet as far as it could be read.
#[derive(Debug)]
pub(crate) struct Packet<'a> {
    bytes: &'a [u8],
    pub(crate) direction: Direction,
    pub(crate) key: FlowKey,
    /// Where the transport header begins.
    pub(crate) transport: usize,
    /// Where the packet ends by its own header.
    pub(crate) end: usize,
    /// Where the packet that an ICMP error quotes begins.
    pub(crate) quote: Option<usize>,
    pub(crate) fragment: Fragment,
    pub(crate) fragment_id: u32,
    /// A bare SYN or an echo request: never a reply.
    pub(crate) opener: bool,
    pub(crate) tcp_flags: u8,
}

impl<'a> Packet<'a> {
    /// Reads `bytes`, an IP packet, or says why it cannot be judged. What was read until then is there in either case.
    pub(crate) fn parse(direction: Direction, bytes: &'a [u8]) -> (Self, Result<(), Reason>) {
        let mut packet = Self {
            bytes,
            direction,
            key: FlowKey::default(),
            transport: 0,
            end: bytes.len(),
            quote: None,
            fragment: Fragment::Whole,
            fragment_id: 0,
            opener: false,
            tcp_flags: 0,
        };
        let read = packet.read();
        (packet, read)
    }

    /// `N` bytes from `at` on, if they lie in the packet.
    pub(crate) fn load<const N: usize>(&self, at: usize) -> Result<&'a [u8; N], Reason> {
        let rest = self.bytes.get(at..self.end).ok_or(Reason::Malformed)?;
        rest.first_chunk().ok_or(Reason::Malformed)
    }

    fn read(&mut self) -> Result<(), Reason> {
        match self.bytes.first().ok_or(Reason::Malformed)? >> 4 {
            4 => self.read_v4()?,
            6 => self.read_v6()?,
            _ => return Err(Reason::Protocol),
        }
        self.read_transport()
    }

    fn read_v4(&mut self) -> Result<(), Reason> {
        let header: &[u8; V4_HEADER] = self.load(0)?;
        let total = usize::from(u16_at(header, 2));
        if total < V4_HEADER || total > self.bytes.len() || header[0] & 15 < 5 {
            return Err(Reason::Malformed);
        }
        self.end = total;
        self.transport = V4_HEADER;
        self.key.family = 4;
        self.key.proto = header[9];
        self.orient(u32_at(header, 12).into(), u32_at(header, 16).into());
        // Options are for routers; source routes among them would make the destination field a lie.
        if header[0] != 0x45 {
            return Err(Reason::Protocol);
        }
        let fragment = u16_at(header, 6);
        self.fragment_id = u16_at(header, 4).into();
        if fragment & 0x1fff != 0 {
            self.fragment = Fragment::Later;
        } else if fragment & 0x2000 != 0 {
            self.fragment = Fragment::First;
        }
        Ok(())
    }

    fn read_v6(&mut self) -> Result<(), Reason> {
        let header: &[u8; V6_HEADER] = self.load(0)?;
        let end = V6_HEADER + usize::from(u16_at(header, 4));
        if end > self.bytes.len() {
            return Err(Reason::Malformed);
        }
        self.end = end;
        self.transport = V6_HEADER;
        self.key.family = 6;
        let (source, destination) = (u128_at(header, 8), u128_at(header, 24));
        self.orient(source, destination);
        // Never on a wire (RFC 4291, 2.5.5.2): some stack would take it for IPv4.
        if is_mapped(source) || is_mapped(destination) {
            return Err(Reason::Malformed);
        }
        self.read_extensions(header[6])
    }

    fn orient(&mut self, source: u128, destination: u128) {
        (self.key.local, self.key.remote) = match self.direction {
            Direction::Egress => (source, destination),
            Direction::Ingress => (destination, source),
        };
    }

    fn read_transport(&mut self) -> Result<(), Reason> {
        // A later fragment of IPv6 names the first extension header of the datagram, not its protocol.
        if self.fragment == Fragment::Later && self.key.family == 6 {
            return Ok(());
        }
        if !matches!((self.key.proto, self.key.family), (TCP | UDP, _) | (ICMP, 4) | (ICMPV6, 6)) {
            return Err(Reason::Protocol);
        }
        if self.fragment == Fragment::Later {
            return Ok(());
        }
        let ports = match self.key.proto {
            TCP => {
                let header: &[u8; 20] = self.load(self.transport)?;
                self.tcp_flags = header[13];
                self.opener = header[13] & (SYN | ACK) == SYN;
                (u16_at(header, 0), u16_at(header, 2))
            }
            UDP => {
                let header: &[u8; 8] = self.load(self.transport)?;
                (u16_at(header, 0), u16_at(header, 2))
            }
            _ => return self.read_icmp(),
        };
        (self.key.local_port, self.key.remote_port) = match self.direction {
            Direction::Egress => ports,
            Direction::Ingress => (ports.1, ports.0),
        };
        Ok(())
    }

    fn read_icmp(&mut self) -> Result<(), Reason> {
        let header: &[u8; 8] = self.load(self.transport)?;
        let kind = header[0];
        let (request, reply) = if self.key.proto == ICMPV6 { (128, 129) } else { (8, 0) };
        self.opener = kind == request;
        if kind == request || kind == reply {
            self.key.local_port = u16_at(header, 4);
        } else if is_icmp_error(self.key.proto, kind) {
            self.quote = Some(self.transport + header.len());
        } else {
            // Apart from every echo identifier, which leaves the remote port 0.
            self.key.local_port = kind.into();
            self.key.remote_port = 1;
        }
        Ok(())
    }

    /// The key of the packet that an ICMP error quotes, in the orientation of the flow. The quoted packet went the other
    /// way: an error that comes in quotes what we sent.
    pub(crate) fn quoted(&self) -> Option<FlowKey> {
        let at = self.quote?;
        let ours = self.direction == Direction::Ingress;
        let turned = |(source, destination)| if ours { (source, destination) } else { (destination, source) };
        let mut key = FlowKey { family: self.key.family, ..FlowKey::default() };
        let transport = if key.family == 4 {
            let header: &[u8; V4_HEADER] = self.load(at).ok()?;
            if header[0] != 0x45 {
                return None;
            }
            (key.local, key.remote) = turned((u32_at(header, 12).into(), u32_at(header, 16).into()));
            key.proto = header[9];
            at + V4_HEADER
        } else {
            let header: &[u8; V6_HEADER] = self.load(at).ok()?;
            (key.local, key.remote) = turned((u128_at(header, 8), u128_at(header, 24)));
            key.proto = header[6];
            at + V6_HEADER
        };
        match (key.proto, key.family) {
            (TCP | UDP, _) => {
                let ports: &[u8; 4] = self.load(transport).ok()?;
                let (source, destination) = (u16_at(ports, 0), u16_at(ports, 2));
                (key.local_port, key.remote_port) =
                    if ours { (source, destination) } else { (destination, source) };
            }
            (ICMP, 4) | (ICMPV6, 6) => key.local_port = u16_at(self.load::<2>(transport + 4).ok()?, 0),
            _ => return None,
        }
        Some(key)
    }
}

fn is_icmp_error(proto: u8, kind: u8) -> bool {
    if proto == ICMP { matches!(kind, 3 | 11 | 12) } else { matches!(kind, 1..=4) }
}

const fn is_mapped(address: u128) -> bool {
    address >> 32 == 0xffff
}

fn u16_at<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) << 16 | u32::from(u16_at(bytes, at + 2))
}

fn u128_at<const N: usize>(bytes: &[u8; N], at: usize) -> u128 {
    let word = |at| u128::from(u32_at(bytes, at));
    word(at) << 96 | word(at + 4) << 64 | word(at + 8) << 32 | word(at + 12)
}
