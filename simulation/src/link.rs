//! What a link does to a datagram: time, loss, duplicates, disorder, and a largest size.

use std::{net::SocketAddr, time::Duration};

use crate::Random;

/// A way between two zones.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// How long a datagram takes.
    pub latency: Duration,
    /// By how much longer some take. A late one is overtaken.
    pub jitter: Duration,
    /// Of a thousand, how many are lost.
    pub loss: u16,
    /// Of a thousand, how many come twice.
    pub duplication: u16,
    /// Largest IP packet in bytes; a bigger one is dropped and nobody told, as by a path MTU black hole.
    pub mtu: usize,
    /// Whether it carries anything.
    pub up: bool,
    /// Whether it carries UDP.
    pub udp: bool,
}

impl Link {
    /// A good one.
    pub const GOOD: Self = Self {
        latency: Duration::from_millis(10),
        jitter: Duration::from_millis(2),
        loss: 0,
        duplication: 0,
        mtu: 1500,
        up: true,
        udp: true,
    };

    /// When each copy of a datagram arrives; at most two do.
    pub fn carry(&self, len: usize, to: SocketAddr, random: &mut Random) -> impl Iterator<Item = Duration> {
        let headers = if to.is_ipv4() { 20 + 8 } else { 40 + 8 };
        let mut copies = [None; 2];
        if self.up && self.udp && len + headers <= self.mtu && !random.chance(self.loss) {
            copies[0] = Some(self.latency + random.up_to(self.jitter));
            if random.chance(self.duplication) {
                copies[1] = Some(self.latency + random.up_to(self.jitter));
            }
        }
        copies.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loses_repeats_and_delays_as_told() {
        let mut random = Random::new(1);
        let link = Link { loss: 100, duplication: 200, jitter: Duration::from_millis(5), ..Link::GOOD };
        let to = SocketAddr::from(([192, 0, 2, 1], 1));
        let copies: Vec<Vec<Duration>> =
            (0..10_000).map(|_| link.carry(100, to, &mut random).collect()).collect();
        let lost = copies.iter().filter(|copies| copies.is_empty()).count();
        let twice = copies.iter().filter(|copies| copies.len() == 2).count();
        assert!((900..1100).contains(&lost), "{lost}");
        assert!((1650..1950).contains(&twice), "{twice}");
        assert!(copies.iter().flatten().all(|after| (10..=15).contains(&after.as_millis())));
    }

    #[test]
    fn carries_no_more_than_fits_and_nothing_when_down() {
        let carries = |link: Link, len, to: &str| {
            link.carry(len, to.parse().unwrap(), &mut Random::new(1)).next().is_some()
        };
        assert!(carries(Link::GOOD, 1472, "192.0.2.1:1") && !carries(Link::GOOD, 1473, "192.0.2.1:1"));
        assert!(
            carries(Link::GOOD, 1452, "[2001:db8::1]:1") && !carries(Link::GOOD, 1453, "[2001:db8::1]:1")
        );
        assert!(!carries(Link { up: false, ..Link::GOOD }, 1, "192.0.2.1:1"));
        assert!(!carries(Link { udp: false, ..Link::GOOD }, 1, "192.0.2.1:1"));
    }
}
