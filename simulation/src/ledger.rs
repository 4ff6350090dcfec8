//! Every packet of the overlay by its number: what was sent must arrive unchanged, where it was sent, and once.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

const HEADER: usize = 20;
/// "Use for experimentation and testing" (RFC 3692).
const PROTOCOL: u8 = 253;
const ICMP: u8 = 1;

/// Nodes by number: who sends, who receives.
pub type Pair = (usize, usize);

#[derive(Debug)]
struct Entry {
    pair: Pair,
    packet: Vec<u8>,
    sent: Instant,
    delivered: Option<Instant>,
}

/// The book of what was sent.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<u64, Entry>,
}

impl Ledger {
    /// A packet of `len` bytes, 28 at least, written down as sent.
    pub fn send(
        &mut self,
        pair: Pair,
        (source, destination): (Ipv4Addr, Ipv4Addr),
        len: usize,
        now: Instant,
    ) -> Vec<u8> {
        let number = self.entries.len() as u64;
        let mut packet = vec![0; len.max(HEADER + 8)];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&(len.max(HEADER + 8) as u16).to_be_bytes());
        (packet[8], packet[9]) = (64, PROTOCOL);
        packet[12..16].copy_from_slice(&source.octets());
        packet[16..20].copy_from_slice(&destination.octets());
        packet[20..28].copy_from_slice(&number.to_be_bytes());
        packet[28..].iter_mut().enumerate().for_each(|(at, byte)| *byte = (number as usize + at) as u8);
        self.entries.insert(number, Entry { pair, packet: packet.clone(), sent: now, delivered: None });
        packet
    }

    /// Writes down that a node was handed a packet.
    ///
    /// # Errors
    /// What is wrong with that.
    pub fn deliver(&mut self, node: usize, packet: &[u8], now: Instant) -> Result<(), String> {
        if packet.get(9) == Some(&ICMP) {
            // The interface's own answer to what it cannot send.
            return Ok(());
        }
        let number = packet.get(HEADER..HEADER + 8).and_then(|bytes| bytes.try_into().ok());
        let entry = number.and_then(|bytes| self.entries.get_mut(&u64::from_be_bytes(bytes)));
        let Some(entry) = entry else { return Err(format!("node {node} got a packet that nobody sent")) };
        let (from, to) = entry.pair;
        if to != node {
            return Err(format!("node {node} got a packet from {from} to {to}"));
        }
        if entry.packet != packet {
            return Err(format!("node {node} got a packet from {from} that was changed on the way"));
        }
        if entry.delivered.replace(now).is_some() {
            return Err(format!("node {node} got a packet from {from} twice"));
        }
        Ok(())
    }

    /// How many packets of a pair were sent since, and how many of them arrived.
    pub fn count(&self, pair: Pair, since: Instant) -> (usize, usize) {
        let sent = self.entries.values().filter(|entry| entry.pair == pair && entry.sent >= since);
        sent.fold((0, 0), |(sent, got), entry| (sent + 1, got + usize::from(entry.delivered.is_some())))
    }

    /// The longest time in which every packet of a pair that was sent was lost, from the first of them until the next that
    /// arrived.
    pub fn longest_loss(&self, pair: Pair, since: Instant) -> Duration {
        let (mut longest, mut lost_since) = (Duration::ZERO, None);
        for entry in self.entries.values().filter(|entry| entry.pair == pair && entry.sent >= since) {
            let start = *lost_since.get_or_insert(entry.sent);
            longest = longest.max(entry.sent - start);
            if entry.delivered.is_some() {
                lost_since = None;
            }
        }
        longest
    }

    /// The longest time that a packet was under way.
    pub fn slowest(&self, pair: Pair, since: Instant) -> Duration {
        let entries = self.entries.values().filter(|entry| entry.pair == pair && entry.sent >= since);
        entries.filter_map(|entry| Some(entry.delivered? - entry.sent)).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 2);

    #[test]
    fn knows_what_is_wrong_with_a_packet() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let packet = ledger.send((0, 1), (A, B), 100, now);
        let mut changed = packet.clone();
        changed[50] ^= 1;
        let mut unknown = packet.clone();
        unknown[20] = 1;
        let wrong = |ledger: &mut Ledger, node, packet: &[u8]| ledger.deliver(node, packet, now).unwrap_err();
        assert!(wrong(&mut ledger, 1, &changed).contains("changed"));
        assert!(wrong(&mut ledger, 1, &unknown).contains("nobody"));
        assert!(wrong(&mut ledger, 2, &packet).contains("from 0 to 1"));
        assert_eq!(ledger.deliver(1, &packet, now), Ok(()));
        assert!(wrong(&mut ledger, 1, &packet).contains("twice"));
    }

    #[test]
    fn measures_loss_from_the_first_lost_to_the_next_that_arrives() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        for number in 0..10u32 {
            let now = start + Duration::from_millis(100) * number;
            let packet = ledger.send((0, 1), (A, B), 28, now);
            if !(3..6).contains(&number) {
                ledger.deliver(1, &packet, now).unwrap();
            }
        }
        assert_eq!(ledger.count((0, 1), start), (10, 7));
        assert_eq!(ledger.longest_loss((0, 1), start), Duration::from_millis(300));
        assert_eq!(ledger.longest_loss((1, 0), start), Duration::ZERO);
    }
}
