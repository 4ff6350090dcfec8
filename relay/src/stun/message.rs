//! Reading a request and writing its answer. Pure.

use std::net::{IpAddr, SocketAddr};

/// Longest answer, in bytes: XOR-MAPPED-ADDRESS of IPv6, or an error with the attributes it names, and FINGERPRINT.
pub const MAX_ANSWER: usize = 52;

const HEADER: usize = 20;
const COOKIE: u32 = 0x2112_A442;
/// Longest request that is looked at, in bytes: what fits a packet anywhere (section 6.1).
const MAX_REQUEST: usize = 548;

const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;

const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
const FINGERPRINT: u16 = 0x8028;
const FINGERPRINT_XOR: u32 = 0x5354_554E;
/// Attributes below this must be understood (section 14).
const OPTIONAL: u16 = 0x8000;
/// USERNAME, MESSAGE-INTEGRITY, REALM, NONCE, MESSAGE-INTEGRITY-SHA256, PASSWORD-ALGORITHM, USERHASH, XOR-MAPPED-ADDRESS,
/// MAPPED-ADDRESS: understood, and of no consequence here; ICE's USE-CANDIDATE and PRIORITY are for peers.
const IGNORED: [u16; 9] = [0x0006, 0x0008, 0x0014, 0x0015, 0x001C, 0x001D, 0x001E, 0x0020, 0x0001];
/// Unknown attributes that an answer names.
const MAX_UNKNOWN: usize = 4;

/// The answer to `request`, which came from `from`; `None` when it is no binding request, and nothing is to be sent.
pub fn answer(request: &[u8], from: SocketAddr) -> Option<Vec<u8>> {
    let attributes = header(request)?;
    let mut unknown = Vec::new();
    let mut fingerprint = false;
    let mut rest = attributes;
    while !rest.is_empty() {
        let (head, after) = rest.split_first_chunk::<4>()?;
        let kind = u16::from_be_bytes([head[0], head[1]]);
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let value = after.get(..length)?;
        let padded = after.get(length.next_multiple_of(4)..)?;
        match kind {
            FINGERPRINT => {
                // The last attribute, over all before it (section 14.7).
                let before = request.len() - rest.len();
                let expected = (crc32(&request[..before]) ^ FINGERPRINT_XOR).to_be_bytes();
                if !padded.is_empty() || value != expected {
                    return None;
                }
                fingerprint = true;
            }
            kind if kind < OPTIONAL && !IGNORED.contains(&kind) && unknown.len() < MAX_UNKNOWN => {
                unknown.push(kind);
            }
            _ => {}
        }
        rest = padded;
    }
    let mut out = Vec::with_capacity(MAX_ANSWER);
    let kind = if unknown.is_empty() { BINDING_SUCCESS } else { BINDING_ERROR };
    out.extend(kind.to_be_bytes());
    out.extend([0, 0]);
    out.extend(&request[4..HEADER]);
    if unknown.is_empty() {
        attribute(&mut out, XOR_MAPPED_ADDRESS, &xor_address(from, &request[4..HEADER]));
    } else {
        // 420, without a reason phrase.
        attribute(&mut out, ERROR_CODE, &[0, 0, 4, 20]);
        let kinds: Vec<u8> = unknown.iter().flat_map(|kind| kind.to_be_bytes()).collect();
        attribute(&mut out, UNKNOWN_ATTRIBUTES, &kinds);
    }
    if fingerprint {
        set_length(&mut out, 8);
        let sum = crc32(&out) ^ FINGERPRINT_XOR;
        attribute(&mut out, FINGERPRINT, &sum.to_be_bytes());
    }
    set_length(&mut out, 0);
    Some(out)
}

/// What is behind the header of a binding request.
fn header(request: &[u8]) -> Option<&[u8]> {
    let (head, attributes) = request.split_first_chunk::<HEADER>()?;
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let is_request = head[..2] == BINDING_REQUEST.to_be_bytes() && head[4..8] == COOKIE.to_be_bytes();
    (is_request && request.len() <= MAX_REQUEST && length == attributes.len() && length % 4 == 0)
        .then_some(attributes)
}

/// XOR-MAPPED-ADDRESS (section 14.2); `mask` is cookie and transaction id.
fn xor_address(from: SocketAddr, mask: &[u8]) -> Vec<u8> {
    let (family, mut address) = match from.ip().to_canonical() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    address.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    let port = from.port() ^ (COOKIE >> 16) as u16;
    [&[0, family], port.to_be_bytes().as_slice(), &address].concat()
}

fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend(kind.to_be_bytes());
    out.extend((value.len() as u16).to_be_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Sets the header's length to what is there and `more`.
fn set_length(out: &mut [u8], more: usize) {
    let length = (out.len() - HEADER + more) as u16;
    out[2..4].copy_from_slice(&length.to_be_bytes());
}

/// CRC-32 of ITU V.42 (section 14.7), bit by bit: some 30 bytes for an answer.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut out = [BINDING_REQUEST.to_be_bytes(), [0, 0]].concat();
        out.extend(COOKIE.to_be_bytes());
        out.extend(1..=12);
        attributes.iter().for_each(|(kind, value)| attribute(&mut out, *kind, value));
        set_length(&mut out, 0);
        out
    }

    fn with_fingerprint(mut out: Vec<u8>) -> Vec<u8> {
        set_length(&mut out, 8);
        let sum = crc32(&out) ^ FINGERPRINT_XOR;
        attribute(&mut out, FINGERPRINT, &sum.to_be_bytes());
        out
    }

    /// RFC 5769 section 2.2 and 2.3: the addresses, masked with the transaction id of the vectors.
    #[test]
    fn addresses_are_as_in_the_vectors_of_the_rfc() {
        let mask: [u8; 16] =
            [0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];
        assert_eq!(
            xor_address("192.0.2.1:32853".parse().unwrap(), &mask),
            [0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]
        );
        assert_eq!(
            xor_address("[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap(), &mask),
            [
                0x00, 0x02, 0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79, 0xbc, 0x25, 0xf4,
                0xb5, 0xbe, 0xd2, 0xb9, 0xd9
            ]
        );
    }

    #[test]
    fn says_where_a_request_came_from() {
        let answer = answer(&request(&[]), "[::ffff:192.0.2.1]:32853".parse().unwrap()).unwrap();
        assert_eq!(answer[..4], [1, 1, 0, 12]);
        assert_eq!(answer[4..HEADER], request(&[])[4..HEADER]);
        assert_eq!(answer[HEADER..], [0, 0x20, 0, 8, 0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
    }

    #[test]
    fn a_fingerprint_is_checked_and_answered_by_one() {
        let from = "192.0.2.1:1".parse().unwrap();
        let mut asked = with_fingerprint(request(&[]));
        let answered = answer(&asked, from).unwrap();
        let body = answered.len() - 8;
        assert_eq!(
            answered[body + 4..],
            (crc32(&answered[..body]) ^ FINGERPRINT_XOR).to_be_bytes(),
            "over the length that includes it"
        );
        *asked.last_mut().unwrap() ^= 1;
        assert_eq!(answer(&asked, from), None);
    }

    #[test]
    fn what_must_be_understood_and_is_not_is_named() {
        let from = "192.0.2.1:1".parse().unwrap();
        // CHANGE-REQUEST of RFC 5780 would have us answer from elsewhere.
        let answered = answer(&request(&[(0x0003, &[0; 4]), (0x8022, b"some")]), from).unwrap();
        assert_eq!(answered[..2], BINDING_ERROR.to_be_bytes());
        assert_eq!(answered[HEADER..], [0, 9, 0, 4, 0, 0, 4, 20, 0, 10, 0, 2, 0, 3, 0, 0]);
    }

    #[test]
    fn nothing_but_a_binding_request_is_answered() {
        let from = "192.0.2.1:1".parse().unwrap();
        let whole = request(&[(0x8022, b"some")]);
        for (at, value) in [(0, 1), (1, 0x11), (1, 3), (4, 0), (3, 4), (3, 9)] {
            let mut changed = whole.clone();
            changed[at] = value;
            assert_eq!(answer(&changed, from), None, "byte {at} = {value}");
        }
        assert!((0..whole.len()).all(|length| answer(&whole[..length], from).is_none()));
        assert_eq!(answer(&request(&[(0x8022, &[0; 600])]), from), None);
    }

    proptest! {
        #[test]
        fn no_answer_is_large(attributes in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..20)), 0..12), v6: bool, fingerprint: bool) {
            let attributes: Vec<_> = attributes.iter().map(|(kind, value)| (*kind, value.as_slice())).collect();
            let mut asked = request(&attributes);
            if fingerprint {
                asked = with_fingerprint(asked);
            }
            let from = if v6 { "[2001:db8::1]:1" } else { "192.0.2.1:1" }.parse().unwrap();
            if let Some(answer) = answer(&asked, from) {
                prop_assert!(answer.len() <= MAX_ANSWER && answer.len() <= 3 * asked.len());
            }
        }
    }
}
