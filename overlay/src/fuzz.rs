//! What a TUN device might hand over, and what peers might send to be put together. For the fuzzer alone.

use lattice_wireguard::Packets as _;

use crate::device::vnet::{Coalescer, Frame, Header, MAX_PACKET};

/// A header and a packet as a TUN device gives them. Says whether they fit together.
pub fn vnet(bytes: &[u8]) -> bool {
    // The same bytes as packets of peers, each behind its length.
    let mut rest = bytes;
    let mut packets = Vec::new();
    while let Some((len, behind)) = rest.split_first_chunk::<2>() {
        let (packet, behind) = behind.split_at(behind.len().min(u16::from_be_bytes(*len).into()));
        packets.push(packet.to_vec());
        rest = behind;
    }
    assert_same(packets);
    let Some(packets) = cut(&mut bytes.to_vec()) else { return false };
    assert_same(packets);
    true
}

/// What goes out for one read of the device.
fn cut(bytes: &mut [u8]) -> Option<Vec<Vec<u8>>> {
    let mut packets = Vec::new();
    match Frame::read(bytes)? {
        Frame::Packet(packet) => packets.push(packet.to_vec()),
        Frame::Segments(mut segments) => {
            let (count, bytes) = (segments.count(), segments.bytes());
            assert!(!segments.head().is_empty() && segments.first().len() <= MAX_PACKET);
            while let Some(len) = segments.next_len() {
                let mut packet = vec![0; len];
                segments.write(&mut packet);
                packets.push(packet);
            }
            assert_eq!((count, bytes), (packets.len(), packets.iter().map(Vec::len).sum()));
        }
    }
    Some(packets)
}

/// Put together and cut again, they are the same packets, in what order ever their flows come.
fn assert_same(mut packets: Vec<Vec<u8>>) {
    let mut coalescer = Coalescer::new(true);
    let mut arrived = Vec::new();
    let mut sink = |header: Header, packet: &mut [u8]| {
        let written = [&header.to_bytes()[..], &*packet].concat();
        arrived.extend(cut(&mut written.clone()).expect("what we write we can read"));
    };
    for packet in &packets {
        coalescer.push(&mut packet.clone(), &mut sink);
    }
    coalescer.flush(&mut sink);
    packets.sort_unstable();
    arrived.sort_unstable();
    assert!(arrived == packets, "{} packets became {}", packets.len(), arrived.len());
}
