//! Packets on their way out.

use crate::{
    checksum, ip,
    tcp::{self, FIN, PSH},
};

const MAX_HEAD: usize = ip::MAX_HEADER + tcp::MAX_HEADER;

/// One packet, or the segments of a stretch of one TCP stream: all of them to the same address, all equally long but for the
/// last, which may be shorter. So they can be sealed one after another into one run of datagrams.
///
/// Only the headers are kept once. [`Self::write`] copies the next packet straight to where it is to be sealed, and sums it
/// there, while it is in the processor's cache.
#[derive(Debug)]
pub struct Run<'a> {
    head: [u8; MAX_HEAD],
    /// Bytes of the head; none for one packet that is all in `rest`.
    head_len: usize,
    /// Where the TCP header begins in the head.
    transport: usize,
    rest: &'a [u8],
    /// Bytes of `rest` in each packet.
    segment: usize,
    /// What each packet's checksum has in common with the others'.
    sum: u64,
    is_done: bool,
}

impl<'a> Run<'a> {
    /// One packet, complete.
    pub(crate) fn single(packet: &'a [u8]) -> Self {
        Self {
            head: [0; MAX_HEAD],
            head_len: 0,
            transport: 0,
            rest: packet,
            segment: packet.len().max(1),
            sum: 0,
            is_done: false,
        }
    }

    /// A stretch of a stream: an IP header and a TCP header, in which all but lengths and checksums is right for the first
    /// segment, and of `payload` up to `segment` bytes for each. Its flags at the end of the stream (FIN, PSH) are for the
    /// last.
    pub(crate) fn segments(ip: &[u8], tcp: &[u8], payload: &'a [u8], segment: usize, sum: u64) -> Self {
        let mut run = Self::single(payload);
        run.head[..ip.len()].copy_from_slice(ip);
        run.head[ip.len()..][..tcp.len()].copy_from_slice(tcp);
        ip::set_len(&mut run.head, ip.len() + tcp.len());
        run.transport = ip.len();
        run.head_len = ip.len() + tcp.len();
        run.segment = segment.max(1);
        run.sum = sum;
        run
    }

    /// The next packet's length in bytes; `None` when there is no more.
    pub fn next_len(&self) -> Option<usize> {
        (!self.is_done).then(|| self.head_len + self.rest.len().min(self.segment))
    }

    /// The first bytes of the next packet: its IP header, and that of TCP, UDP or ICMP; nothing of its payload need be
    /// there. Checksums in it are not those of the packet, and where the payload is not there, the length is that of what is.
    pub fn head(&self) -> &[u8] {
        if self.head_len == 0 { self.rest } else { &self.head[..self.head_len] }
    }

    /// Cuts a stretch of a stream so that no packet is longer than `mtu`: the connection need not know of a way that is narrow for a while.
    /// What is one complete packet stays as it is. Before the first is written.
    pub fn cut_to(&mut self, mtu: usize) {
        if self.head_len > 0 && self.head_len < mtu {
            self.segment = self.segment.min(mtu - self.head_len);
        }
    }

    /// How many packets are still to come.
    pub fn count(&self) -> usize {
        if self.is_done { 0 } else { self.rest.len().div_ceil(self.segment).max(1) }
    }

    /// How many bytes the packets still to come are long together.
    pub fn bytes(&self) -> usize {
        self.count() * self.head_len + if self.is_done { 0 } else { self.rest.len() }
    }

    /// Writes the next packet to `room`, which has its length, and moves on.
    ///
    /// # Panics
    /// When `room` is not as long as [`Self::next_len`] says.
    pub fn write(&mut self, room: &mut [u8]) {
        let (payload, rest) = self.rest.split_at(self.rest.len().min(self.segment));
        let is_last = rest.is_empty();
        room[self.head_len..].copy_from_slice(payload);
        if self.head_len > 0 {
            room[..self.head_len].copy_from_slice(&self.head[..self.head_len]);
            let (head, segment) = room.split_at_mut(self.transport);
            if !is_last {
                segment[13] &= !(FIN | PSH);
            }
            ip::set_len(head, self.transport + segment.len());
            segment[16..18].fill(0);
            let len = u64::from((segment.len() as u16).to_be());
            let sum = checksum::finish(self.sum + len + checksum::sum(segment));
            segment[16..18].copy_from_slice(&sum);
            self.advance(payload.len() as u32);
        }
        self.rest = rest;
        self.is_done = is_last;
    }

    /// Makes the head the next segment's.
    fn advance(&mut self, payload: u32) {
        let sequence = &mut self.head[self.transport + 4..][..4];
        let next =
            u32::from_be_bytes([sequence[0], sequence[1], sequence[2], sequence[3]]).wrapping_add(payload);
        sequence.copy_from_slice(&next.to_be_bytes());
        if ip::is_v4(&self.head) {
            let id = u16::from_be_bytes([self.head[4], self.head[5]]).wrapping_add(1);
            self.head[4..6].copy_from_slice(&id.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACK: u8 = 0x10;

    /// A stretch of a stream, as its packets.
    fn packets(payload: &[u8], mtu: Option<usize>) -> Vec<Vec<u8>> {
        let (mut ip, mut tcp) = ([0; 20], [0; 20]);
        (ip[0], ip[8], ip[9], tcp[12], tcp[13]) = (0x45, 64, 6, 5 << 4, ACK | FIN | PSH);
        let mut run = Run::segments(&ip, &tcp, payload, 1380, 0);
        mtu.into_iter().for_each(|mtu| run.cut_to(mtu));
        let (count, bytes, mut packets) = (run.count(), run.bytes(), Vec::new());
        while let Some(len) = run.next_len() {
            packets.push(vec![0; len]);
            run.write(packets.last_mut().unwrap());
        }
        assert_eq!((count, bytes), (packets.len(), packets.iter().map(Vec::len).sum()));
        packets
    }

    #[test]
    fn a_narrow_way_has_more_packets_of_the_same_stream() {
        let payload: Vec<u8> = (0..10_000_u32).map(|at| (at * 7 % 251) as u8).collect();
        for (mtu, longest) in [(None, 1420), (Some(1280), 1280), (Some(1500), 1420), (Some(40), 1420)] {
            let (mut stream, packets) = (Vec::new(), packets(&payload, mtu));
            let (last, others) = packets.split_last().unwrap();
            for packet in &packets {
                let sequence = u32::from_be_bytes(packet[24..28].try_into().unwrap());
                assert_eq!(
                    (sequence as usize, packet[2..4].to_vec()),
                    (stream.len(), (packet.len() as u16).to_be_bytes().to_vec())
                );
                stream.extend(&packet[40..]);
            }
            assert!(others.iter().all(|packet| packet.len() == longest && packet[33] == ACK), "{mtu:?}");
            assert_eq!((last[33], &stream), (ACK | FIN | PSH, &payload), "{mtu:?}");
        }
    }

    #[test]
    fn a_complete_packet_is_never_cut() {
        let mut run = Run::single(&[1; 1400]);
        run.cut_to(1280);
        assert_eq!((run.next_len(), run.count()), (Some(1400), 1));
    }
}
