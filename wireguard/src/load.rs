//! How many handshakes are taken on in a second, from all senders together and from each.
//!
//! One sender must not bring all others to need a cookie, nor may many senders, whose addresses need not be their own,
//! make us remember each of them. So each address counts in one of a fixed number of places, chosen by a secret that
//! changes every second: who shares a place with a flooder does so for a second, and can still prove its address.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{
    Path,
    kdf::{Key, mac},
    sources::Random,
};

/// Handshake messages in a second from which on senders must prove their address with a cookie first (section 5.3 of the
/// paper). One costs about 0.1 ms: these, 5 % of a core.
const COOKIES_FROM: u32 = 512;

/// Handshake messages in a second beyond which they are dropped unread.
const MAX: u32 = 16_384;

/// As [`COOKIES_FROM`], from one address.
const COOKIES_FROM_PER_SOURCE: u16 = 64;

/// As [`MAX`], from one address, proven or not: a NAT with 30,000 devices behind it that renew their sessions.
const MAX_PER_SOURCE: u16 = 256;

/// Places to count addresses in.
const PLACES: usize = 4096;

/// What to do with a handshake message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Admission {
    Normal,
    WithCookie,
    Refused,
}

/// Counts handshake messages per second.
pub(crate) struct Load {
    since: Option<Instant>,
    count: u32,
    secret: Key,
    by_source: Box<[u16; PLACES]>,
}

impl Load {
    pub(crate) fn new() -> Self {
        Self { since: None, count: 0, secret: Key::default(), by_source: Box::new([0; PLACES]) }
    }

    pub(crate) fn admit(&mut self, from: &Path, now: Instant, random: &mut dyn Random) -> Admission {
        let is_over = |since| now.saturating_duration_since(since) >= Duration::from_secs(1);
        if self.since.is_none_or(is_over) {
            (self.since, self.count, self.secret) = (Some(now), 0, random.key());
            self.by_source.fill(0);
        }
        self.count = self.count.saturating_add(1);
        let of_all = match self.count {
            0..=COOKIES_FROM => Admission::Normal,
            _ if self.count <= MAX => Admission::WithCookie,
            _ => return Admission::Refused,
        };
        let [low, high, ..] = self.place(from);
        let count = &mut self.by_source[usize::from(u16::from_le_bytes([low, high])) % PLACES];
        *count = count.saturating_add(1);
        let of_source = match *count {
            0..=COOKIES_FROM_PER_SOURCE => Admission::Normal,
            _ if *count <= MAX_PER_SOURCE => Admission::WithCookie,
            _ => Admission::Refused,
        };
        of_all.max(of_source)
    }

    /// An address of IPv6 counts as its /64, within which anybody may have all.
    fn place(&self, from: &Path) -> [u8; 16] {
        let secret = self.secret.as_slice();
        match from {
            Path::Direct { remote, .. } => match address(remote) {
                IpAddr::V4(v4) => mac(secret, &[&v4.octets()]),
                IpAddr::V6(v6) => mac(secret, &[&v6.octets()[..8]]),
            },
            Path::Relay { peer, .. } => mac(secret, &[&peer.0]),
        }
    }
}

/// A socket for both versions names IPv4 within IPv6.
fn address(remote: &SocketAddr) -> IpAddr {
    remote.ip().to_canonical()
}

#[cfg(test)]
mod tests {
    use lattice_wire::WgPublicKey;

    use super::*;
    use crate::sources::OsRandom;

    fn count(load: &mut Load, times: u32, now: Instant, from: impl Fn(u32) -> Path) -> [u32; 3] {
        let mut seen = [0; 3];
        for number in 0..times {
            seen[load.admit(&from(number), now, &mut OsRandom) as usize] += 1;
        }
        seen
    }

    fn v4(number: u32) -> Path {
        Path::to((number.to_be_bytes(), 1).into())
    }

    #[test]
    fn a_flood_from_everywhere_costs_cookies_then_nothing_and_passes() {
        let (mut load, start) = (Load::new(), Instant::now());
        let [normal, with_cookie, refused] = count(&mut load, 2 * MAX, start, v4);
        assert_eq!((normal, refused), (COOKIES_FROM, MAX));
        assert_eq!(with_cookie, MAX - COOKIES_FROM);
        assert_eq!(load.admit(&v4(1), start + Duration::from_secs(1), &mut OsRandom), Admission::Normal);
    }

    #[test]
    fn one_flooder_is_slowed_down_and_nobody_else() {
        let start = Instant::now();
        let v6 =
            |number: u32| Path::to(([0x2001, 0xdb8, 0, 0, number as u16, 1, 2, 3], number as u16).into());
        let relayed = |relay: u32| Path::Relay { relay: relay as u16, peer: WgPublicKey([1; 32]) };
        let flooders: [&dyn Fn(u32) -> Path; 3] =
            [&|port| Path::to(([192, 0, 2, 1], port as u16).into()), &v6, &relayed];
        for flooder in flooders {
            let mut load = Load::new();
            assert_eq!(count(&mut load, 400, start, flooder), [64, 192, 144]);
            // Of a hundred others, one shares the flooder's place now and then.
            let [normal, ..] = count(&mut load, 100, start, |number| v4(number + 7));
            assert!(normal > 90, "{normal}");
        }
    }
}
