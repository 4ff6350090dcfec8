//! Cutting and putting together, against each other and against packets made one by one.

use lattice_wireguard::Packets as _;
use proptest::prelude::*;

use super::*;

/// One packet of a flow between 10.0.0.1 and 10.0.0.2, or fd00::1 and fd00::2, with right checksums.
#[derive(Debug, Clone)]
struct Spec {
    v6: bool,
    protocol: u8,
    port: u16,
    id: u16,
    sequence: u32,
    flags: u8,
    options: usize,
    payload: Vec<u8>,
}

impl Spec {
    fn tcp(sequence: u32, len: usize) -> Self {
        let payload = (0..len).map(|at| (at % 251) as u8 + 1).collect();
        Self { v6: false, protocol: TCP, port: 1, id: 7, sequence, flags: ACK, options: 12, payload }
    }

    fn udp(id: u16, len: usize) -> Self {
        Self { protocol: UDP, id, ..Self::tcp(0, len) }
    }

    fn build(&self) -> Vec<u8> {
        let mut packet = if self.v6 {
            let mut packet = vec![0x60, 0x12, 0x34, 0x56, 0, 0, self.protocol, 61];
            for last in [1, 2] {
                packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
            }
            packet
        } else {
            let [high, low] = self.id.to_be_bytes();
            vec![0x45, 2, 0, 0, high, low, 0x40, 0, 61, self.protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]
        };
        let transport = packet.len();
        packet.extend(self.port.to_be_bytes());
        packet.extend([0x1f, 0x90]);
        let place = if self.protocol == TCP {
            packet.extend(self.sequence.to_be_bytes());
            packet.extend([0, 0, 9, 9, (5 + self.options as u8 / 4) << 4, self.flags, 1, 2, 0, 0, 0, 0]);
            packet.extend(vec![1; self.options]);
            TCP_CHECKSUM
        } else {
            packet.extend(((UDP_HEADER + self.payload.len()) as u16).to_be_bytes());
            packet.extend([0, 0]);
            UDP_CHECKSUM
        };
        packet.extend(&self.payload);
        let len = packet.len();
        set_ip_length(&mut packet, transport, len);
        let pseudo_header = checksum::pseudo_header(&packet, transport, self.protocol);
        let sum = checksum::finish(pseudo_header + checksum::sum(&packet[transport..]));
        let sum = if sum == 0 && self.protocol == UDP { 0xffff } else { sum };
        packet[transport + place..transport + place + 2].copy_from_slice(&sum.to_ne_bytes());
        packet
    }
}

/// What a TUN device would be given for `packets`.
fn coalesced(packets: &[Vec<u8>]) -> Vec<(Header, Vec<u8>)> {
    let (mut coalescer, mut written) = (Coalescer::new(true), Vec::new());
    for packet in packets {
        coalescer.push(&mut packet.clone(), |header, packet| written.push((header, packet.to_vec())));
    }
    coalescer.flush(|header, packet| written.push((header, packet.to_vec())));
    written
}

fn split(header: Header, packet: &[u8]) -> Vec<Vec<u8>> {
    let mut bytes = [&header.to_bytes()[..], packet].concat();
    match Frame::read(&mut bytes).expect("what we write we can read") {
        Frame::Packet(packet) => vec![packet.to_vec()],
        Frame::Segments(mut segments) => {
            let (mut packets, count, bytes) = (Vec::new(), segments.count(), segments.bytes());
            while let Some(len) = segments.next_len() {
                let mut packet = vec![0xaa; len];
                segments.write(&mut packet);
                packets.push(packet);
            }
            assert_eq!((count, bytes), (packets.len(), packets.iter().map(Vec::len).sum()));
            assert_eq!(header.count(packet.len()), count as u64);
            packets
        }
    }
}

fn ways_out(packets: &[Vec<u8>]) -> (usize, Vec<Vec<u8>>) {
    let written = coalesced(packets);
    let packets = written.iter().flat_map(|(header, packet)| split(*header, packet)).collect();
    (written.len(), packets)
}

/// Writes of the TUN device for packets which arrive as they were.
fn writes(specs: &[Spec]) -> usize {
    let packets: Vec<_> = specs.iter().map(Spec::build).collect();
    let (writes, arrived) = ways_out(&packets);
    assert_eq!(arrived, packets);
    writes
}

/// `count` packets in sequence.
fn stream(first: &Spec, count: usize) -> Vec<Spec> {
    let next = |n: usize| Spec {
        id: first.id.wrapping_add(n as u16),
        sequence: first.sequence.wrapping_add((n * first.payload.len()) as u32),
        ..first.clone()
    };
    (0..count).map(next).collect()
}

#[test]
fn a_stream_is_one_write_in_either_version_and_protocol() {
    for v6 in [false, true] {
        for first in [Spec::tcp(u32::MAX - 5000, 1368), Spec::udp(65_530, 1392)] {
            assert_eq!(writes(&stream(&Spec { v6, ..first.clone() }, 44)), 1);
            assert_eq!(writes(&stream(&Spec { v6, ..first }, 200)), 5);
        }
    }
    assert_eq!(writes(&stream(&Spec::udp(0, 10), 130)), 3, "64 datagrams are the most");
}

#[test]
fn the_last_may_be_short_or_pushed_and_then_it_is_written_at_once() {
    for (flags, len) in [(ACK | PSH, 1000), (ACK, 999), (ACK | PSH, 1)] {
        let mut specs = stream(&Spec::tcp(1, 1000), 5);
        let last = specs.last_mut().unwrap();
        (last.flags, last.payload) = (flags, vec![7; len]);
        let packets: Vec<_> = specs.iter().map(Spec::build).collect();
        let (mut coalescer, mut count) = (Coalescer::new(true), 0);
        packets.iter().for_each(|packet| coalescer.push(&mut packet.clone(), |_, _| count += 1));
        assert_eq!(count, 1);
        assert_eq!(writes(&specs), 1);
        let mut more = specs.clone();
        more.extend(stream(&Spec::tcp(5001, 1000), 5));
        assert_eq!(writes(&more), 2);
    }
}

#[test]
fn what_differs_in_a_header_stays_apart() {
    let build = |specs: &[Spec]| specs.iter().map(Spec::build).collect::<Vec<_>>();
    for v6 in [false, true] {
        let first = Spec { v6, ..Spec::tcp(1, 100) };
        let transport = if v6 { 40 } else { 20 };
        let base = build(&stream(&first, 2));
        assert_eq!(ways_out(&base).0, 1);
        // Traffic class, hop limit, acknowledgment, window, urgent pointer, an option: each with its checksums put right.
        let places =
            [1, if v6 { 7 } else { 8 }, transport + 8, transport + 14, transport + 18, transport + 21];
        for at in places {
            let mut packets = base.clone();
            packets[1][at] ^= 1;
            repair(&mut packets[1], transport);
            let (writes, arrived) = ways_out(&packets);
            assert_eq!((writes, &arrived), (2, &packets), "v6 {v6}, byte {at}");
        }
        let gap = [first.clone(), Spec { id: 8, sequence: 102, ..first.clone() }];
        assert_eq!(ways_out(&build(&gap)).0, 2);
    }
    let other_id = [Spec::tcp(1, 100), Spec { id: 9, ..Spec::tcp(101, 100) }];
    assert_eq!(ways_out(&build(&other_id)).0, 2);
    for flags in [0, FIN, 0x02, 0x04, 0x20, 0x40, CWR].map(|flag| ACK | flag) {
        let specs = [Spec::tcp(1, 100), Spec { flags, id: 8, ..Spec::tcp(101, 100) }, Spec::tcp(201, 100)];
        assert_eq!(writes(&specs), if flags == ACK { 2 } else { 3 }, "{flags:#x}");
    }
}

/// Puts the checksums right.
fn repair(packet: &mut [u8], transport: usize) {
    let len = packet.len();
    set_ip_length(packet, transport, len);
    packet[transport + TCP_CHECKSUM..transport + TCP_CHECKSUM + 2].fill(0);
    let sum = checksum::pseudo_header(packet, transport, TCP) + checksum::sum(&packet[transport..]);
    packet[transport + TCP_CHECKSUM..transport + TCP_CHECKSUM + 2]
        .copy_from_slice(&checksum::finish(sum).to_ne_bytes());
}

#[test]
fn what_is_broken_stays_broken() {
    let mut packets: Vec<_> = stream(&Spec::tcp(1, 1000), 5).iter().map(Spec::build).collect();
    packets[2][500] ^= 1;
    assert_eq!(ways_out(&packets), (3, packets));
    let mut packets: Vec<_> = stream(&Spec::udp(1, 1000), 5).iter().map(Spec::build).collect();
    packets[0][26..28].fill(0);
    assert_eq!(ways_out(&packets), (2, packets));
}

#[test]
fn eight_flows_interleave_and_the_order_within_each_is_kept() {
    let interleave = |flows: u16| {
        let streams: Vec<_> =
            (0..flows).map(|port| stream(&Spec { port, ..Spec::tcp(1, 100) }, 10)).collect();
        (0..10).flat_map(|n| streams.iter().map(move |stream| stream[n].build())).collect::<Vec<_>>()
    };
    assert_eq!(coalesced(&interleave(8)).len(), 8);
    // A bare acknowledgment of one flow has only that one written.
    let mut packets = interleave(2);
    packets.insert(10, Spec { payload: vec![], ..Spec::tcp(501, 0) }.build());
    let written = coalesced(&packets);
    assert_eq!(written.len(), 4);
    let sequence = |packet: &[u8]| u32_at(packet, 24);
    let first: Vec<_> = written.iter().filter(|(_, packet)| packet[21] == 1).collect();
    assert!(first.is_sorted_by_key(|(_, packet)| sequence(packet)), "{first:?}");
}

#[test]
fn without_datagrams_they_pass_one_by_one() {
    let (mut coalescer, mut count) = (Coalescer::new(false), 0);
    let specs = stream(&Spec::udp(1, 100), 5);
    specs.iter().for_each(|spec| coalescer.push(&mut spec.build(), |_, _| count += 1));
    assert_eq!(count, 5);
}

/// The kernel's way to say that FIN and PSH are the last one's, CWR the first one's.
#[test]
fn flags_of_the_whole_go_to_the_first_or_the_last() {
    let written = coalesced(&stream(&Spec::tcp(1, 100), 3).iter().map(Spec::build).collect::<Vec<_>>());
    let (mut header, mut packet) = written.into_iter().next().unwrap();
    packet[33] |= FIN | PSH | CWR;
    header.kind |= Header::ECN;
    let flags: Vec<_> = split(header, &packet).iter().map(|packet| packet[33]).collect();
    assert_eq!(flags, [ACK | CWR, ACK, ACK | FIN | PSH]);
}

#[test]
fn what_the_kernel_left_to_sum_is_summed_in_place() {
    for spec in [Spec::tcp(1, 301), Spec { v6: true, ..Spec::udp(1, 300) }] {
        let whole = spec.build();
        let (transport, place) = if spec.v6 { (40, UDP_CHECKSUM) } else { (20, TCP_CHECKSUM) };
        let mut partial = whole.clone();
        let sum = checksum::fold(checksum::pseudo_header(&whole, transport, spec.protocol));
        partial[transport + place..transport + place + 2].copy_from_slice(&sum.to_ne_bytes());
        let header = Header {
            flags: NEEDS_CHECKSUM,
            checksum_start: transport as u16,
            checksum_offset: place as u16,
            ..Header::default()
        };
        assert_eq!(split(header, &partial), [whole]);
        // A port, the address, behind the end.
        for (start, offset) in [(transport, 2), (0, 16), (transport, 60_000), (60_000, place)] {
            let (checksum_start, checksum_offset) = (start as u16, offset as u16);
            let elsewhere = Header { checksum_start, checksum_offset, ..header };
            assert!(Frame::read(&mut [&elsewhere.to_bytes()[..], &partial].concat()).is_none());
        }
    }
}

/// Else the bytes that differ from one to the next could be the ports that the policy has judged.
#[test]
fn where_the_transport_header_is_the_packet_says_and_not_the_device() {
    let whole = Spec { v6: true, ..Spec::udp(1, 500) }.build();
    // A destination header of 8 bytes before UDP: padding.
    let mut packet = [&whole[..40], &[UDP, 0, 1, 4, 0, 0, 0, 0], &whole[40..]].concat();
    packet[6] = 60;
    let len = packet.len();
    set_ip_length(&mut packet, 48, len);
    let partial = checksum::fold(checksum::pseudo_header(&whole, 40, UDP));
    packet[54..56].copy_from_slice(&partial.to_ne_bytes());
    let header = |start| Header {
        flags: NEEDS_CHECKSUM,
        kind: Header::UDP_DATAGRAMS,
        headers: 56,
        segment: 100,
        checksum_start: start,
        checksum_offset: 6,
    };
    let packets = split(header(48), &packet);
    assert_eq!(packets.len(), 5);
    for packet in packets {
        assert_eq!((packet.len(), u16_at(&packet, 4), u16_at(&packet, 52)), (156, 116, 108));
        let without = [&packet[..40], &packet[48..]].concat();
        let sum = checksum::pseudo_header(&without, 40, UDP) + checksum::sum(&without[40..]);
        assert_eq!(checksum::finish(sum), 0);
    }
    for elsewhere in [40, 44, 46, 50, 56] {
        assert!(Frame::read(&mut [&header(elsewhere).to_bytes()[..], &packet].concat()).is_none());
    }
    let mut fragment = packet.clone();
    fragment[6] = 44;
    assert!(Frame::read(&mut [&header(48).to_bytes()[..], &fragment].concat()).is_none());
    let written = coalesced(&stream(&Spec::tcp(1, 100), 3).iter().map(Spec::build).collect::<Vec<_>>());
    for (at, byte) in [(6, 0x20), (7, 1), (9, UDP), (0, 0x46)] {
        let (header, mut packet) = written[0].clone();
        packet[at] = byte;
        assert!(Frame::read(&mut [&header.to_bytes()[..], &packet].concat()).is_none(), "byte {at}");
    }
}

#[test]
fn headers_are_written_as_they_are_read() {
    let bytes = [1, 0x84, 2, 3, 4, 5, 6, 7, 8, 9];
    assert_eq!(Header::from_bytes(&bytes).to_bytes(), bytes);
}

fn spec() -> impl Strategy<Value = Spec> {
    let flags = prop::sample::select(vec![ACK, ACK, ACK, ACK, ACK | PSH, ACK | FIN, 0x02]);
    (any::<bool>(), prop::sample::select(vec![TCP, UDP]), 0..3_u16, flags, 0..4_usize, 0..3_usize).prop_map(
        |(v6, protocol, port, flags, options, len)| Spec {
            v6,
            port,
            flags,
            options: options / 3 * 12,
            ..Spec { protocol, ..Spec::tcp(1, [0, 99, 1300][len]) }
        },
    )
}

proptest! {
    /// Flows as they come, each going on where it was, now and then with a gap.
    #[test]
    fn what_is_put_together_is_cut_to_the_same(
        specs in prop::collection::vec((spec(), 0..20_u32), 0..120),
    ) {
        let mut next = std::collections::HashMap::new();
        let mut by_flow = std::collections::HashMap::<_, Vec<_>>::new();
        let mut packets = Vec::new();
        for (mut spec, gap) in specs {
            let flow = (spec.v6, spec.protocol, spec.port);
            let (sequence, id) = next.entry(flow).or_insert((u32::MAX - 2000, u16::MAX - 3));
            *sequence = sequence.wrapping_add(u32::from(gap == 0));
            (spec.sequence, spec.id) = (*sequence, *id);
            *sequence = sequence.wrapping_add(spec.payload.len() as u32);
            *id = id.wrapping_add(1);
            let packet = spec.build();
            by_flow.entry(flow).or_default().push(packet.clone());
            packets.push(packet);
        }
        let mut arrived = std::collections::HashMap::<_, Vec<_>>::new();
        for packet in ways_out(&packets).1 {
            let v6 = packet[0] >> 4 == 6;
            let flow = if v6 { (v6, packet[6], u16_at(&packet, 40)) } else { (v6, packet[9], u16_at(&packet, 20)) };
            arrived.entry(flow).or_default().push(packet);
        }
        prop_assert_eq!(arrived, by_flow);
    }
}

/// What `segments` come to when none may make a packet longer than `mtu`.
fn cut(mut segments: Segments<'_>, mtu: usize) -> Vec<Vec<u8>> {
    segments.cut_to(mtu);
    let mut packets = Vec::new();
    while let Some(len) = segments.next_len() {
        let mut packet = vec![0xaa; len];
        segments.write(&mut packet);
        packets.push(packet);
    }
    packets
}

proptest! {
    /// The same bytes at the same places, in packets that are right by themselves: those that a sender with a lower MTU makes.
    #[test]
    fn a_segment_that_is_cut_again_is_what_a_sender_with_that_mtu_sends(
        v6 in any::<bool>(),
        sequence in any::<u32>(),
        len in 1usize..3000,
        options in 0usize..5,
        flags in prop::sample::select(vec![ACK, ACK | PSH, ACK | FIN, ACK | PSH | CWR]),
        mtu in 200usize..1500,
    ) {
        let whole = Spec { v6, flags, options: 4 * options, ..Spec::tcp(sequence, len) };
        let packet = whole.build();
        let headers = packet.len() - len;
        let packets = cut(Segments::of_one(&packet).expect("a segment"), mtu);
        let mut at = 0;
        for (index, payload) in whole.payload.chunks(mtu - headers).enumerate() {
            let is_last = at + payload.len() == len;
            let gone = if is_last { 0 } else { FIN | PSH } | if index == 0 { 0 } else { CWR };
            let expected = Spec {
                id: whole.id.wrapping_add(index as u16),
                sequence: sequence.wrapping_add(at as u32),
                flags: flags & !gone,
                payload: payload.to_vec(),
                ..whole.clone()
            };
            prop_assert_eq!(&packets[index], &expected.build());
            at += payload.len();
        }
        prop_assert_eq!(at, len);
    }
}

#[test]
fn what_must_stay_whole_is_not_cut() {
    let with = |flags| Spec { flags, ..Spec::tcp(1, 1400) }.build();
    for packet in [with(SYN), with(ACK | URG), with(RST), Spec::udp(1, 1400).build(), Spec::tcp(1, 0).build()]
    {
        assert!(Segments::of_one(&packet).is_none());
    }
    let mut longer = Spec::tcp(1, 1400).build();
    longer.push(0);
    assert!(Segments::of_one(&longer).is_none(), "the header says less than there is");
    let mut fragment = Spec::tcp(1, 1400).build();
    fragment[6] |= 0x20;
    assert!(Segments::of_one(&fragment).is_none());
    for len in 0..80 {
        let packet = &Spec::tcp(1, 100).build()[..len];
        assert!(Segments::of_one(packet).is_none(), "{len}");
    }
}
