//! MACs and cookies (sections 5.3, 5.4.4 and 5.4.7 of the paper).
//!
//! `mac1` shows that the sender of a handshake message knows whom it writes to; what lacks it gets no answer. Under load,
//! `mac2` shows besides that the sender can receive at the address that it sends from: it is made with a cookie, which
//! went to that address and port.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use chacha20poly1305::{AeadInPlace, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use subtle::ConstantTimeEq;

use crate::{
    Path,
    handshake::Identity,
    kdf::{Bytes32, Key, hash, mac},
    message::{COOKIE_REPLY_LEN, MACS_LEN, cookie_reply, new_cookie_reply, u32_at},
    sources::Random,
    symmetric::NotAuthentic,
};

pub(crate) const LABEL_MAC1: &[u8] = b"mac1----";
pub(crate) const LABEL_COOKIE: &[u8] = b"cookie--";

/// How long a secret makes cookies, and so how long a cookie may be used.
const SECRET_AGE: Duration = Duration::from_secs(120);

/// A cookie is used this much less long than it lives, for it was on its way.
const LATENCY: Duration = Duration::from_secs(5);

type Cookie = [u8; 16];

/// The MACs of what we send to one peer.
#[derive(Default)]
pub(crate) struct Macs {
    /// Of the last message, which a cookie reply answers.
    last_mac1: Option<[u8; 16]>,
    cookie: Option<(Cookie, Instant)>,
}

impl Macs {
    /// Writes both MACs at the end of a handshake message. Without a cookie the second is zeros.
    pub(crate) fn write(&mut self, peer: &Bytes32, message: &mut [u8], now: Instant) {
        let (said, macs) = message.split_at_mut(message.len() - MACS_LEN);
        let mac1 = mac(&hash(&[LABEL_MAC1, peer]), &[said]);
        macs[..16].copy_from_slice(&mac1);
        self.last_mac1 = Some(mac1);
        self.write_mac2(message, now);
    }

    /// Writes the second MAC with the cookie that there is now: for a message that is sent again.
    pub(crate) fn write_mac2(&self, message: &mut [u8], now: Instant) {
        let Some((cookie, since)) = &self.cookie else { return };
        if now.saturating_duration_since(*since) < SECRET_AGE - LATENCY {
            let (said, mac2) = message.split_at_mut(message.len() - 16);
            mac2.copy_from_slice(&mac(cookie, &[said]));
        }
    }

    /// Takes a cookie that answers the last message.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) fn take_cookie(
        &mut self,
        peer: &Bytes32,
        reply: &[u8; COOKIE_REPLY_LEN],
        now: Instant,
    ) -> Result<(), NotAuthentic> {
        let last_mac1 = self.last_mac1.ok_or(NotAuthentic)?;
        let mut cookie: Cookie = reply[cookie_reply::COOKIE][..16].try_into().map_err(|_| NotAuthentic)?;
        let tag = Tag::from_slice(&reply[cookie_reply::COOKIE][16..]);
        let nonce = XNonce::from_slice(&reply[cookie_reply::NONCE]);
        XChaCha20Poly1305::new(&hash(&[LABEL_COOKIE, peer]).into())
            .decrypt_in_place_detached(nonce, &last_mac1, &mut cookie, tag)
            .map_err(|_| NotAuthentic)?;
        self.cookie = Some((cookie, now));
        // One message is answered by one cookie.
        self.last_mac1 = None;
        Ok(())
    }

    /// Forgets what was exchanged.
    pub(crate) fn clear(&mut self) {
        (self.last_mac1, self.cookie) = (None, None);
    }
}

/// Makes the cookies that we hand out.
pub(crate) struct CookieSecret {
    secret: Key,
    since: Option<Instant>,
}

impl CookieSecret {
    pub(crate) fn new() -> Self {
        Self { secret: Key::default(), since: None }
    }

    /// The cookie of whoever receives at `path`. Nothing is kept of it.
    pub(crate) fn cookie(&mut self, path: &Path, now: Instant, random: &mut dyn Random) -> Cookie {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= SECRET_AGE) {
            self.secret = random.key();
            self.since = Some(now);
        }
        match path {
            Path::Direct { remote: SocketAddr::V4(v4), .. } => {
                mac(self.secret.as_slice(), &[&v4.ip().octets(), &v4.port().to_be_bytes()])
            }
            Path::Direct { remote: SocketAddr::V6(v6), .. } => {
                mac(self.secret.as_slice(), &[&v6.ip().octets(), &v6.port().to_be_bytes()])
            }
            Path::Relay { relay, peer } => mac(self.secret.as_slice(), &[&peer.0, &relay.to_be_bytes()]),
        }
    }
}

/// Whether a handshake message was written to us.
pub(crate) fn is_mac1_valid(identity: &Identity, message: &[u8]) -> bool {
    let (said, macs) = message.split_at(message.len() - MACS_LEN);
    mac(&identity.mac1_key, &[said]).ct_eq(&macs[..16]).into()
}

/// Whether a handshake message was made with `cookie`.
pub(crate) fn is_mac2_valid(cookie: &Cookie, message: &[u8]) -> bool {
    let (said, mac2) = message.split_at(message.len() - 16);
    mac(cookie, &[said]).ct_eq(mac2).into()
}

/// The answer to a handshake message that lacks a cookie.
pub(crate) fn reply(
    identity: &Identity,
    message: &[u8],
    mut cookie: Cookie,
    random: &mut dyn Random,
) -> [u8; COOKIE_REPLY_LEN] {
    let nonce = random.array();
    let mac1 = &message[message.len() - MACS_LEN..][..16];
    let mut reply = new_cookie_reply(u32_at(message, 4), &nonce);
    let tag = XChaCha20Poly1305::new(&identity.cookie_key.into())
        .encrypt_in_place_detached(&nonce.into(), mac1, &mut cookie)
        .expect("16 bytes are not too long");
    reply[cookie_reply::COOKIE][..16].copy_from_slice(&cookie);
    reply[cookie_reply::COOKIE][16..].copy_from_slice(&tag);
    reply
}

#[cfg(test)]
mod tests {
    use lattice_wire::{WgPrivateKey, WgPublicKey};

    use super::*;
    use crate::sources::OsRandom;

    fn path(port: u16) -> Path {
        Path::to(([192, 0, 2, 1], port).into())
    }

    #[test]
    fn a_cookie_proves_an_address_for_a_while() {
        let key = WgPrivateKey::from_random([1; 32]);
        let (identity, now) = (Identity::new(&key), Instant::now());
        let (mut macs, mut secret) = (Macs::default(), CookieSecret::new());
        let mut message = [9; 148];
        message[116..].fill(0);
        macs.write(&key.public().0, &mut message, now);
        assert!(is_mac1_valid(&identity, &message) && message[132..] == [0; 16]);
        let mut cookie = |port, now| secret.cookie(&path(port), now, &mut OsRandom);
        assert!(!is_mac2_valid(&cookie(1, now), &message));

        let answer = reply(&identity, &message, cookie(1, now), &mut OsRandom);
        let mut forged = answer;
        forged[40] ^= 1;
        assert!(macs.take_cookie(&key.public().0, &forged, now).is_err());
        assert!(macs.take_cookie(&key.public().0, &answer, now).is_ok());
        assert!(macs.take_cookie(&key.public().0, &answer, now).is_err(), "one message, one cookie");
        macs.write(&key.public().0, &mut message, now);
        assert!(is_mac2_valid(&cookie(1, now), &message));
        assert!(!is_mac2_valid(&cookie(2, now), &message), "another port");
        let later = now + SECRET_AGE;
        assert!(!is_mac2_valid(&cookie(1, later), &message), "another secret");
        message[132..].fill(0);
        macs.write(&key.public().0, &mut message, now + SECRET_AGE - LATENCY);
        assert_eq!(message[132..], [0; 16], "too old to be used");
    }

    #[test]
    fn a_changed_message_has_no_valid_mac() {
        let key = WgPrivateKey::from_random([1; 32]);
        let (identity, mut message) = (Identity::new(&key), [9; 92]);
        Macs::default().write(&key.public().0, &mut message, Instant::now());
        for at in 0..76 {
            message[at] ^= 1;
            assert!(!is_mac1_valid(&identity, &message), "byte {at}");
            message[at] ^= 1;
        }
        assert!(is_mac1_valid(&identity, &message));
    }

    #[test]
    fn who_comes_by_a_relay_is_told_by_its_key() {
        let (mut secret, now) = (CookieSecret::new(), Instant::now());
        let mut cookie = |relay, key| {
            secret.cookie(&Path::Relay { relay, peer: WgPublicKey([key; 32]) }, now, &mut OsRandom)
        };
        assert_eq!(cookie(1, 1), cookie(1, 1));
        assert!(cookie(1, 1) != cookie(1, 2) && cookie(1, 1) != cookie(2, 1));
    }
}
