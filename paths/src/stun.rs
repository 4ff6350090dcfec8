//! STUN messages (RFC 8489), those that queries of servers and connectivity checks (RFC 8445 section 7) need.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ring::hmac;
use subtle::ConstantTimeEq;

use crate::mux::STUN_COOKIE;

/// Names a request; its answer carries the same. Random, so that only who sees the request can answer.
pub(crate) type TransactionId = [u8; 12];

const HEADER: usize = 20;
const BINDING: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;

const MAPPED_ADDRESS: u16 = 0x0001;
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
const ICE_CONTROLLED: u16 = 0x8029;
const ICE_CONTROLLING: u16 = 0x802a;
/// Attributes from here on may be ignored by who does not know them.
const OPTIONAL: u16 = 0x8000;
const INTEGRITY_LEN: usize = 20;

/// What a message asks or says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Request,
    Success,
}

/// A password as the key of a message's integrity (RFC 8489 section 9.1: short-term credentials).
pub(crate) fn key(password: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes())
}

/// A binding request or its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) class: Class,
    pub(crate) transaction: TransactionId,
    /// The receiver's user name fragment; what follows the colon, the sender's, is not needed.
    pub(crate) receiver: Option<&'a str>,
    pub(crate) priority: Option<u32>,
    pub(crate) use_candidate: bool,
    /// Whether the sender says that it is the controlling one.
    pub(crate) controlling: Option<bool>,
    /// Where the answerer saw the asker.
    pub(crate) mapped: Option<SocketAddr>,
    /// All before the integrity attribute, and its content.
    integrity: Option<(&'a [u8], &'a [u8])>,
}

impl<'a> Message<'a> {
    /// `None` for all that is no binding request or success, is malformed, or has attributes that we would have to understand.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header: &[u8; HEADER] = bytes.first_chunk()?;
        let class = match u16::from_be_bytes([header[0], header[1]]) {
            BINDING => Class::Request,
            BINDING_SUCCESS => Class::Success,
            _ => return None,
        };
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header[4..8] != STUN_COOKIE || len % 4 != 0 || bytes.len() != HEADER + len {
            return None;
        }
        let mut message = Self {
            class,
            transaction: *header.last_chunk()?,
            receiver: None,
            priority: None,
            use_candidate: false,
            controlling: None,
            mapped: None,
            integrity: None,
        };
        let mut at = HEADER;
        while at < bytes.len() {
            let attribute = &bytes[at..];
            let [t0, t1, l0, l1] = *attribute.first_chunk()?;
            let value = attribute.get(4..4 + usize::from(u16::from_be_bytes([l0, l1])))?;
            message.read(u16::from_be_bytes([t0, t1]), value, bytes, at)?;
            at += 4 + value.len().next_multiple_of(4);
        }
        Some(message)
    }

    fn read(&mut self, kind: u16, value: &'a [u8], bytes: &'a [u8], at: usize) -> Option<()> {
        if kind == FINGERPRINT {
            let last = at + 8 == bytes.len();
            return (last && value == fingerprint(&bytes[..at]).to_be_bytes()).then_some(());
        }
        // What follows the integrity is not covered by it.
        if self.integrity.is_some() {
            return Some(());
        }
        match kind {
            USERNAME => self.receiver = Some(str::from_utf8(value).ok()?.split_once(':')?.0),
            PRIORITY => self.priority = Some(u32::from_be_bytes(value.try_into().ok()?)),
            USE_CANDIDATE => self.use_candidate = true,
            ICE_CONTROLLING | ICE_CONTROLLED if value.len() == 8 => {
                self.controlling = Some(kind == ICE_CONTROLLING);
            }
            XOR_MAPPED_ADDRESS => self.mapped = Some(read_address(value, &bytes[4..HEADER])?),
            MAPPED_ADDRESS => self.mapped = self.mapped.or(Some(read_address(value, &[0; 16])?)),
            MESSAGE_INTEGRITY if value.len() == INTEGRITY_LEN => {
                self.integrity = Some((&bytes[..at], value));
            }
            MESSAGE_INTEGRITY_SHA256 => {}
            kind if kind >= OPTIONAL => {}
            _ => return None,
        }
        Some(())
    }

    /// Whether the sender knows the password of `key`.
    pub(crate) fn is_authentic(&self, key: &hmac::Key) -> bool {
        self.integrity
            .is_some_and(|(covered, claimed)| bool::from(integrity(covered, key).as_ref().ct_eq(claimed)))
    }
}

/// Asks a server how it sees us.
pub(crate) fn query(transaction: TransactionId) -> Vec<u8> {
    finish(begin(BINDING, transaction), None)
}

/// What a connectivity check says.
pub(crate) struct Check<'a> {
    pub(crate) transaction: TransactionId,
    /// `<receiver's fragment>:<ours>`.
    pub(crate) username: &'a str,
    pub(crate) priority: u32,
    pub(crate) controlling: bool,
    pub(crate) tie_breaker: u64,
    pub(crate) nominate: bool,
}

/// A connectivity check, with the receiver's password.
pub(crate) fn check(check: &Check<'_>, key: &hmac::Key) -> Vec<u8> {
    let mut bytes = begin(BINDING, check.transaction);
    put(&mut bytes, USERNAME, check.username.as_bytes());
    put(&mut bytes, PRIORITY, &check.priority.to_be_bytes());
    let role = if check.controlling { ICE_CONTROLLING } else { ICE_CONTROLLED };
    put(&mut bytes, role, &check.tie_breaker.to_be_bytes());
    if check.nominate {
        put(&mut bytes, USE_CANDIDATE, &[]);
    }
    finish(bytes, Some(key))
}

/// The answer to a check that came from `mapped`, with our password.
pub(crate) fn answer(transaction: TransactionId, mapped: SocketAddr, key: Option<&hmac::Key>) -> Vec<u8> {
    let mut bytes = begin(BINDING_SUCCESS, transaction);
    let mut value = vec![0, if mapped.is_ipv4() { 1 } else { 2 }];
    value.extend(mapped.port().to_be_bytes());
    match mapped.ip() {
        IpAddr::V4(ip) => value.extend(ip.octets()),
        IpAddr::V6(ip) => value.extend(ip.octets()),
    }
    xor(&mut value[2..4], &bytes[4..HEADER]);
    xor(&mut value[4..], &bytes[4..HEADER]);
    put(&mut bytes, XOR_MAPPED_ADDRESS, &value);
    finish(bytes, key)
}

fn begin(kind: u16, transaction: TransactionId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(STUN_COOKIE);
    bytes.extend(transaction);
    bytes
}

fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend(kind.to_be_bytes());
    bytes.extend((value.len() as u16).to_be_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn finish(mut bytes: Vec<u8>, key: Option<&hmac::Key>) -> Vec<u8> {
    if let Some(key) = key {
        let tag = integrity(&bytes, key);
        put(&mut bytes, MESSAGE_INTEGRITY, tag.as_ref());
    }
    // The fingerprint's eight bytes count already when it is made.
    set_len(&mut bytes, 8);
    let crc = fingerprint(&bytes);
    put(&mut bytes, FINGERPRINT, &crc.to_be_bytes());
    bytes
}

fn set_len(bytes: &mut [u8], more: usize) {
    let len = (bytes.len() - HEADER + more) as u16;
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
}

/// RFC 8489 section 14.5: over all before the attribute, with a length that ends behind it.
fn integrity(covered: &[u8], key: &hmac::Key) -> hmac::Tag {
    let len = (covered.len() - HEADER + 4 + INTEGRITY_LEN) as u16;
    let mut context = hmac::Context::with_key(key);
    context.update(&covered[..2]);
    context.update(&len.to_be_bytes());
    context.update(&covered[4..]);
    context.sign()
}

/// RFC 8489 section 14.7: the CRC-32 of all before it, exclusive-or "STUN".
fn fingerprint(bytes: &[u8]) -> u32 {
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1)))
    });
    !crc ^ 0x5354_554e
}

fn read_address(value: &[u8], mask: &[u8]) -> Option<SocketAddr> {
    let mut value = value.to_vec();
    let (head, address) = value.split_at_mut_checked(4)?;
    xor(&mut head[2..], mask);
    xor(address, mask);
    let port = u16::from_be_bytes([head[2], head[3]]);
    let ip = match head[1] {
        1 => Ipv4Addr::from(<[u8; 4]>::try_from(&*address).ok()?).into(),
        2 => Ipv6Addr::from(<[u8; 16]>::try_from(&*address).ok()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn xor(bytes: &mut [u8], mask: &[u8]) {
    bytes.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5769 section 2.1, a sample request; the user name there is "evtj:h6vY".
    const SAMPLE: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74\
        002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5\
        b2d3f249c1b571a280280004e57a3bcf";

    fn unhex(text: &str) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
    }

    #[test]
    fn reads_the_rfcs_sample() {
        let bytes = unhex(SAMPLE);
        let message = Message::parse(&bytes).unwrap();
        assert_eq!((message.class, message.receiver), (Class::Request, Some("evtj")));
        assert_eq!((message.priority, message.controlling), (Some(0x6e00_01ff), Some(false)));
        assert!(message.is_authentic(&key("VOkJxbRl1RmTxUk/WvJxBt")));
        assert!(!message.is_authentic(&key("VOkJxbRl1RmTxUk/WvJxBu")));
        // But the header of the fingerprint, all is covered.
        for at in (0..100).chain(104..bytes.len()) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Message::parse(&damaged).is_none(), "byte {at} is not covered");
        }
    }

    #[test]
    fn what_is_written_is_read_by_another_implementation() {
        let hmac = |key: &[u8], parts: &[&[u8]]| {
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
            hmac::sign(&key, &parts.concat()).as_ref().try_into().unwrap()
        };
        let request = Check {
            transaction: [7; 12],
            username: "theirs:ours",
            priority: 99,
            controlling: true,
            tie_breaker: 5,
            nominate: true,
        };
        let bytes = check(&request, &key("secret"));
        let read = is::stun::StunMessage::parse(&bytes).unwrap();
        assert!(read.is_binding_request() && read.use_candidate() && read.verify(b"secret", hmac));
        assert_eq!(read.split_username(), Some(("theirs", "ours")));
        assert_eq!((read.prio(), read.ice_controlling()), (Some(99), Some(5)));
        assert!(Message::parse(&bytes).unwrap().is_authentic(&key("secret")));
        for mapped in ["192.0.2.1:4711", "[2001:db8::7]:4711"] {
            let mapped = mapped.parse().unwrap();
            let bytes = answer([9; 12], mapped, Some(&key("secret")));
            let read = is::stun::StunMessage::parse(&bytes).unwrap();
            assert!(read.is_successful_binding_response() && read.verify(b"secret", hmac));
            assert_eq!(read.mapped_address(), Some(mapped));
            assert_eq!(Message::parse(&bytes).unwrap().mapped, Some(mapped));
            assert!(
                bytes.len() <= check(&request, &key("secret")).len(),
                "an answer is bigger than its question"
            );
        }
    }
}
