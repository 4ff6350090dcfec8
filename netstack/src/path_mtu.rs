//! What packets may measure to whom (RFC 1191, RFC 8201), where that is less than the link's MTU.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Destinations of which something is known.
const MOST: usize = 256;

/// A path may have changed for the better after so long (RFC 8201, 4).
const LASTS: Duration = Duration::from_secs(600);

/// No path of IPv6 takes less (RFC 8200, 5). One of IPv4 might; what claims that makes us send many small packets, so it is
/// taken for a lie.
pub(crate) fn least(of: IpAddr) -> u16 {
    if of.is_ipv4() { 576 } else { 1280 }
}

/// What is known.
#[derive(Debug)]
pub(crate) struct PathMtus {
    link: u16,
    known: HashMap<IpAddr, (u16, Instant)>,
}

impl PathMtus {
    pub(crate) fn new(link: u16) -> Self {
        Self { link, known: HashMap::new() }
    }

    /// How long a packet to `destination` may be, in bytes.
    pub(crate) fn to(&self, destination: IpAddr, now: Instant) -> u16 {
        match self.known.get(&destination) {
            Some((mtu, at)) if now.saturating_duration_since(*at) < LASTS => *mtu,
            _ => self.link,
        }
    }

    /// Learns that packets to `destination` may be `mtu` bytes long, if that is less than was known. Says what holds now.
    pub(crate) fn learn(&mut self, destination: IpAddr, mtu: u16, now: Instant) -> u16 {
        let mtu = mtu.max(least(destination)).min(self.to(destination, now));
        if self.known.len() >= MOST && !self.known.contains_key(&destination) {
            self.known.retain(|_, (_, at)| now.saturating_duration_since(*at) < LASTS);
        }
        if mtu < self.link && (self.known.len() < MOST || self.known.contains_key(&destination)) {
            self.known.insert(destination, (mtu, now));
        }
        mtu
    }
}
