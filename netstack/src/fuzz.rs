//! What hostile packets must not do to a stack. For the fuzzer alone.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{
    Config, Event, FlowId, Limits, Run, Stack, datagram, echo, ip,
    tcp::{self, ACK, SYN, Segment},
};

const MTU: u16 = 1280;
const OURS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 42, 0, 2));
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 42, 0, 1));
const PORT: u16 = 80;
const PEER_PORT: u16 = 40_000;

/// A packet from anybody, to a stack that listens. Says whether nothing of it was dropped.
pub fn packet(bytes: &[u8]) -> bool {
    for_others(bytes);
    let mut node = Node::new();
    let before = node.stack.drops();
    node.receive(bytes);
    node.poll();
    // An error says more than what it answers, but not much more.
    assert!(node.sent_bytes <= bytes.len() + 56, "{} bytes answer {}", node.sent_bytes, bytes.len());
    node.stack.drops() == before
}

/// What is read by who stands for other hosts.
fn for_others(bytes: &[u8]) {
    if let Some(request) = echo::read(bytes) {
        assert!(echo::is_request(bytes) && request.message.len() >= echo::HEADER);
        let mut reply = vec![0; echo::packet_len(request.from, request.message.len())];
        echo::write_reply(&mut reply, request.to, request.from, request.identifier, request.message);
        assert!(!echo::is_request(&reply));
    }
    let is_datagram = datagram::read(bytes).is_some();
    let head = &bytes[..bytes.len().min(datagram::QUOTED)];
    let mut room = [0; datagram::ERROR_ROOM];
    let error = datagram::write_unreachable(&mut room, head, datagram::Unreachable::Port);
    assert!(error.is_some() || !is_datagram);
}

/// What a peer does with a connection, and its owner. Each step is a byte that says what, one that says how much, and for
/// segments what is special about them. Says whether the connection was made and data was read.
pub fn session(bytes: &[u8]) -> bool {
    let mut node = Node::new();
    let mut steps = Steps(bytes);
    let mss = steps.next();
    let Some((flow, mut peer)) = node.connect(mss) else { return false };
    let mut read = 0;
    while let Some(step) = steps.next() {
        let much = usize::from(steps.next().unwrap_or(0));
        match step % 8 {
            0 => node.now += Duration::from_millis(1 << (much % 18)),
            1 => drop(node.stack.send(node.now, flow, &[7; 255 * 16][..much * 16])),
            2 => {
                let got = node.stack.recv(flow, &mut [0; 255 * 16][..much * 16]).unwrap_or(0);
                read += got;
            }
            3 => drop(node.stack.shutdown_write(node.now, flow)),
            4 if much == 0 => node.stack.close(node.now, flow),
            4 if much == 1 => node.stack.abort(flow),
            4 if much == 2 => node.stack.reset(flow),
            _ => peer.segment(&mut node, &mut steps, step, much),
        }
        node.poll();
        peer.hear(&node);
        assert!(node.stack.flows() <= node.limits.flows);
    }
    // Whatever happened, it ends.
    node.stack.close(node.now, flow);
    for _ in 0..10_000 {
        node.poll();
        let Some(at) = node.stack.poll_at() else { break };
        node.now = node.now.max(at);
    }
    node.poll();
    assert_eq!(node.stack.flows(), 0, "a flow has not ended");
    read > 0
}

struct Steps<'a>(&'a [u8]);

impl Steps<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }
}

/// What a peer knows of the connection.
struct Peer {
    next: u32,
    acknowledges: u32,
}

impl Peer {
    /// Sends a segment that is nearly right.
    fn segment(&mut self, node: &mut Node, steps: &mut Steps<'_>, step: u8, much: usize) {
        let flags = if step & 8 != 0 { steps.next().unwrap_or(ACK) } else { ACK };
        let mut near = |number: u32, bit: u8| {
            let shift = if step & bit != 0 { steps.next().unwrap_or(0) } else { return number };
            let off = 1_u32.checked_shl(u32::from(shift & 0x1f)).unwrap_or(0);
            if shift & 0x80 != 0 { number.wrapping_sub(off) } else { number.wrapping_add(off) }
        };
        let sequence = near(self.next, 16);
        let acknowledgement = near(self.acknowledges, 32);
        let window = if step & 64 != 0 { u16::from(steps.next().unwrap_or(0)) << 3 } else { 0xffff };
        let len = if step & 128 != 0 { 0 } else { much * 4 };
        let data = vec![9; len];
        node.receive(&segment(sequence, acknowledgement, flags, window, &[], &data));
        if sequence == self.next && flags & SYN == 0 {
            self.next = self.next.wrapping_add(len as u32 + u32::from(flags & tcp::FIN));
        }
    }

    /// Hears what the stack sent.
    fn hear(&mut self, node: &Node) {
        if tcp::before(self.acknowledges, node.end) {
            self.acknowledges = node.end;
        }
    }
}

struct Node {
    stack: Stack,
    limits: Limits,
    now: Instant,
    sent_bytes: usize,
    /// The first sequence number after all that was sent to the peer.
    end: u32,
}

impl Node {
    fn new() -> Self {
        let now = Instant::now();
        let limits = Limits { flows: 4, memory: 1 << 20, half_open: 4, time_wait: 2, ..Limits::default() };
        let random = Box::new(|bytes: &mut [u8]| bytes.fill(0x42));
        let config = Config { addresses: vec![OURS], mtu: MTU, limits, random };
        let mut stack = Stack::new(config, now).expect("a valid configuration");
        stack.listen(PORT);
        stack.bind_udp(PORT).expect("a free port");
        Self { stack, limits, now, sent_bytes: 0, end: 0 }
    }

    /// A connection from the peer; what its SYN says of segments' length comes from the fuzzer.
    fn connect(&mut self, mss: Option<u8>) -> Option<(FlowId, Peer)> {
        let mut options = [2, 4, 0x05, 0x00, 4, 2, 1, 3, 3, 7, 0, 0];
        if let Some(mss) = mss {
            options[3] = mss;
        }
        self.receive(&segment(1000, 0, SYN, 0xffff, &options, &[]));
        let Some(Event::Incoming { id, .. }) = self.stack.poll_event() else { return None };
        let flow = self.stack.accept(self.now, id, &mut |_: &mut Run<'_>| {}).ok()?;
        self.poll();
        self.receive(&segment(1001, self.end, ACK, 0xffff, &[], &[]));
        self.poll();
        Some((flow, Peer { next: 1001, acknowledges: self.end }))
    }

    fn receive(&mut self, packet: &[u8]) {
        let mut packet = packet.to_vec();
        let (sent, end) = (&mut self.sent_bytes, &mut self.end);
        self.stack.receive(self.now, &mut packet, &mut |run: &mut Run<'_>| check(run, sent, end));
    }

    fn poll(&mut self) {
        let (sent, end) = (&mut self.sent_bytes, &mut self.end);
        self.stack.poll(self.now, &mut |run: &mut Run<'_>| check(run, sent, end));
        let mut events = 0;
        while self.stack.poll_event().is_some() {
            events += 1;
        }
        assert!(events < 100, "{events} events at once");
        assert!(!self.stack.is_ready());
    }
}

/// What the stack sends must be whole, right and short enough.
fn check(run: &mut Run<'_>, sent: &mut usize, end: &mut u32) {
    while let Some(len) = run.next_len() {
        assert!(len <= MTU.into(), "{len} bytes");
        let mut packet = vec![0; len];
        run.write(&mut packet);
        let header = ip::Header::read(&packet, &mut crate::Drops::default()).expect("a whole packet");
        assert_eq!((header.source, header.len), (OURS, len));
        if header.protocol == ip::TCP {
            assert!(header.checksum_is_right(&packet));
            let segment = Segment::read(&packet[header.transport..]).expect("a whole segment");
            if segment.destination_port == PEER_PORT && !segment.has(tcp::RST) {
                *end = if *sent == 0 || tcp::before(*end, segment.end()) { segment.end() } else { *end };
            }
        }
        *sent += len;
    }
}

/// A segment from the peer.
fn segment(
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
    window: u16,
    options: &[u8],
    data: &[u8],
) -> Vec<u8> {
    let (from, to) = (SocketAddr::new(PEER, PEER_PORT), SocketAddr::new(OURS, PORT));
    let header = tcp::HEADER + options.len();
    let mut packet = vec![0; 20];
    ip::write(&mut packet, from.ip(), to.ip(), ip::TCP, header + data.len());
    packet.extend(from.port().to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend(acknowledgement.to_be_bytes());
    packet.extend([(header as u8 / 4) << 4, flags]);
    packet.extend(window.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend(options);
    packet.extend(data);
    tcp::set_checksum(&mut packet[20..], from.ip(), to.ip());
    packet
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    #[test]
    fn a_connection_is_made_and_data_read() {
        assert!(super::session(&[0x80, 5, 10, 2, 1]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn no_session_breaks_the_stack(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            super::session(&bytes);
        }

        #[test]
        fn no_packet_breaks_the_stack(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            super::packet(&bytes);
        }
    }
}
