//! Datagrams of the underlay, which anybody may send.

use std::time::Instant;

use lattice_wire::WgPublicKey;

use crate::{
    Interface, Output, Path,
    cookie::{is_mac1_valid, is_mac2_valid, reply},
    handshake::responder::Opened,
    ip,
    load::Admission,
    message::{COOKIE_REPLY_LEN, INITIATION_LEN, Message, RESPONSE_LEN, u32_at},
};

impl Interface {
    /// Handles a datagram of the underlay. What it carries is decrypted in place. Says which peer proved to have sent it.
    pub fn handle_datagram(
        &mut self,
        from: Path,
        datagram: &mut [u8],
        now: Instant,
        out: &mut impl Output,
    ) -> Option<WgPublicKey> {
        if self.is_inner(&from) {
            self.shared.drops.routing_loop += 1;
            return None;
        }
        match Message::parse(datagram) {
            None => {
                self.shared.drops.malformed += 1;
                None
            }
            Some(Message::Data { receiver, counter }) => {
                self.handle_data((receiver, counter), from, datagram, now, out)
            }
            Some(Message::Initiation(message)) => {
                if !self.admit(from, message, now, out) {
                    return None;
                }
                self.handle_initiation(from, message, now, out)
            }
            Some(Message::Response(message)) => {
                if !self.admit(from, message, now, out) {
                    return None;
                }
                self.handle_response(from, message, now, out)
            }
            Some(Message::CookieReply(message)) => {
                self.handle_cookie_reply(message, now);
                None
            }
        }
    }

    /// Whether a handshake message is worth a Diffie-Hellman (section 5.3). What lacks a cookie gets one.
    fn admit(&mut self, from: Path, message: &[u8], now: Instant, out: &mut impl Output) -> bool {
        let random = &mut *self.shared.sources.random;
        let identity = &self.shared.identity;
        // Without peers nothing can be authenticated: no work is done for strangers.
        let is_admitted = !self.by_key.is_empty()
            && is_mac1_valid(identity, message)
            && match self.load.admit(&from, now, random) {
                Admission::Normal => true,
                Admission::Refused => false,
                Admission::WithCookie => {
                    let cookie = self.cookie_secret.cookie(&from, now, random);
                    let is_proven = is_mac2_valid(&cookie, message);
                    if !is_proven {
                        let reply = reply(identity, message, cookie, random);
                        out.transmit(from, reply.len(), |room| room.copy_from_slice(&reply));
                    }
                    is_proven
                }
            };
        self.shared.drops.handshake_refused += u64::from(!is_admitted);
        is_admitted
    }

    fn handle_initiation(
        &mut self,
        from: Path,
        message: &[u8; INITIATION_LEN],
        now: Instant,
        out: &mut impl Output,
    ) -> Option<WgPublicKey> {
        let Ok(opened) = Opened::read(&self.shared.identity, message) else {
            self.shared.drops.handshake_refused += 1;
            return None;
        };
        let Some(peer) = self.by_key.get(&opened.sender).and_then(|slot| self.slots[*slot].as_mut()) else {
            self.shared.drops.unknown_peer += 1;
            return None;
        };
        let taken = peer.take_initiation(opened, message, from, now, &mut self.shared, out);
        self.shared.drops.handshake_refused += u64::from(taken.is_err());
        self.deadlines.schedule(peer);
        taken.ok().map(|()| peer.public_key())
    }

    fn handle_response(
        &mut self,
        from: Path,
        message: &[u8; RESPONSE_LEN],
        now: Instant,
        out: &mut impl Output,
    ) -> Option<WgPublicKey> {
        let receiver = u32_at(message, 8);
        let owner = self.shared.indices.owner(receiver);
        let Some(peer) = owner.and_then(|slot| self.slots[slot].as_mut()) else {
            self.shared.drops.unknown_peer += 1;
            return None;
        };
        let taken = peer.take_response(receiver, message, from, now, &mut self.shared, out);
        self.shared.drops.handshake_refused += u64::from(taken.is_err());
        self.deadlines.schedule(peer);
        taken.ok().map(|()| peer.public_key())
    }

    fn handle_cookie_reply(&mut self, message: &[u8; COOKIE_REPLY_LEN], now: Instant) {
        let owner = self.shared.indices.owner(u32_at(message, 4));
        let Some(peer) = owner.and_then(|slot| self.slots[slot].as_mut()) else {
            self.shared.drops.unknown_peer += 1;
            return;
        };
        if peer.take_cookie(message, now).is_err() {
            self.shared.drops.handshake_refused += 1;
        }
    }

    fn handle_data(
        &mut self,
        (receiver, counter): (u32, u64),
        from: Path,
        datagram: &mut [u8],
        now: Instant,
        out: &mut impl Output,
    ) -> Option<WgPublicKey> {
        let owner = self.shared.indices.owner(receiver);
        let Some((slot, peer)) = owner.and_then(|slot| Some((slot, self.slots[slot].as_mut()?))) else {
            self.shared.drops.unknown_peer += 1;
            return None;
        };
        let key = peer.public_key();
        let opened = peer.open((receiver, counter), datagram, from, now, &mut self.shared, out);
        self.deadlines.schedule(peer);
        let packet = match opened {
            Err(_) => {
                self.shared.drops.unauthenticated += 1;
                return None;
            }
            // A keepalive.
            Ok([]) => return Some(key),
            Ok(packet) => packet,
        };
        match ip::parse(packet) {
            None => self.shared.drops.malformed += 1,
            Some(header) if self.routes.lookup(header.source) != Some(slot) => {
                self.shared.drops.wrong_source += 1;
            }
            // The padding ends here.
            Some(header) => out.deliver(&mut packet[..header.len]),
        }
        Some(key)
    }
}
