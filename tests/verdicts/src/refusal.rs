//! The answers to denied packets, byte by byte.

use lattice_policy::Table;

use crate::{Judge, packet::*};

const NOWHERE: [u8; 4] = [198, 51, 100, 1];

/// The transport payload of an IPv4 answer whose header is right.
fn open4(ip: &[u8], proto: u8) -> &[u8] {
    assert_eq!((ip[0], ip[9], &ip[12..16], &ip[16..20]), (0x45, proto, &NOWHERE[..], &OWN4[..]));
    assert_eq!(usize::from(u16::from_be_bytes([ip[2], ip[3]])), ip.len());
    assert!(checksum_is_right(&[&ip[..20]]));
    &ip[20..]
}

fn open6(ip: &[u8], next: u8) -> &[u8] {
    assert_eq!((ip[0], ip[6], &ip[8..24], &ip[24..40]), (0x60, next, &TOOL6[..], &OWN6[..]));
    assert_eq!(usize::from(u16::from_be_bytes([ip[4], ip[5]])), ip.len() - 40);
    let pseudo = [0, 0, ip[4], ip[5], 0, 0, 0, next];
    assert!(checksum_is_right(&[&ip[8..40], &pseudo, &ip[40..]]));
    &ip[40..]
}

fn assert_reset(tcp: &[u8], seq: u32, ack: u32, flags: u8) {
    assert_eq!(tcp.len(), 20);
    assert_eq!(tcp[..4], [&22u16.to_be_bytes()[..], &1111u16.to_be_bytes()].concat());
    assert_eq!((&tcp[4..8], &tcp[8..12]), (&seq.to_be_bytes()[..], &ack.to_be_bytes()[..]));
    assert_eq!((tcp[12], tcp[13]), (0x50, flags));
}

pub fn tcp_is_reset<J: Judge>() {
    let mut judge = J::with(&Table::default());
    for (flags, payload, seq, ack, answer) in [
        (SYN, &b""[..], 0, 1001, RST | ACK),
        (SYN, b"fast open", 0, 1010, RST | ACK),
        (ACK, b"data", 5000, 0, RST),
        (SYN | ACK, b"", 5000, 0, RST),
    ] {
        let segment = tcp(1111, 22, flags, payload);
        let reply = judge.answer(&ip4(6, OWN4, NOWHERE, &segment)).unwrap();
        let inside = open4(&reply, 6);
        let pseudo = [&NOWHERE[..], &OWN4, &[0, 6, 0, 20]].concat();
        assert!(checksum_is_right(&[&pseudo, inside]));
        assert_reset(inside, seq, ack, answer);
        let reply = judge.answer(&ip6(6, OWN6, TOOL6, &segment)).unwrap();
        assert_reset(open6(&reply, 6), seq, ack, answer);
    }
    let long = tcp(1111, 22, ACK, &[1; 1400]);
    assert_eq!(judge.answer(&ip4(6, OWN4, NOWHERE, &long)).unwrap().len(), 40);
    let padded = [ip4(6, OWN4, NOWHERE, &tcp(1111, 22, SYN, b"")), vec![0; 6]].concat();
    assert_reset(open4(&judge.answer(&padded).unwrap(), 6), 0, 1001, RST | ACK);
    let behind_options = [&[6, 0, 1, 4, 0, 0, 0, 0][..], &tcp(1111, 22, SYN, b"")].concat();
    let reply = judge.answer(&ip6(60, OWN6, TOOL6, &behind_options)).unwrap();
    assert_reset(open6(&reply, 6), 0, 1001, RST | ACK);
}

pub fn udp_and_ping_are_told_that_it_is_prohibited<J: Judge>() {
    let mut judge = J::with(&Table::default());
    for (proto, proto6, payload, payload6) in
        [(17, 17, udp(1111, 53), udp(1111, 53)), (1, 58, icmp(8, 0, 5, b"ping"), icmp(128, 0, 5, b"ping"))]
    {
        let sent = ip4(proto, OWN4, NOWHERE, &payload);
        let reply = judge.answer(&sent).unwrap();
        let inside = open4(&reply, 1);
        assert_eq!(inside[..2], [3, 13]);
        assert!(checksum_is_right(&[inside]));
        assert_eq!(inside[8..], sent[..28]);

        let sent = ip6(proto6, OWN6, TOOL6, &payload6);
        let reply = judge.answer(&sent).unwrap();
        let inside = open6(&reply, 58);
        assert_eq!(inside[..2], [1, 1]);
        assert_eq!(inside[8..], sent[..48]);
    }
}

pub fn nobody_is_answered_who_must_not_be<J: Judge>() {
    let mut judge = J::with(&Table::default());
    let quote = icmp(3, 3, 0, &[0; 28]);
    let behind_options = [&[17, 0, 1, 4, 0, 0, 0, 0][..], &udp(1, 53)].concat();
    for (packet, why) in [
        (ip4(6, OWN4, NOWHERE, &tcp(1111, 22, RST, b"")), "a reset"),
        (ip4(6, OWN4, NOWHERE, &tcp(1111, 22, RST | ACK, b"")), "a reset"),
        (ip4(1, OWN4, NOWHERE, &quote), "an ICMP error"),
        (ip4(1, OWN4, NOWHERE, &icmp(0, 0, 1, b"")), "an echo reply"),
        (ip4(17, OWN4, [224, 0, 0, 251], &udp(1, 5353)), "multicast"),
        (ip4(17, OWN4, [255; 4], &udp(1, 67)), "broadcast"),
        (ip4(6, [10, 9, 9, 9], NOWHERE, &tcp(1111, 22, SYN, b"")), "a foreign source"),
        (fragment4(ip4(17, OWN4, NOWHERE, &[0; 64]), false, 9), "a later fragment"),
        (ip4(132, OWN4, NOWHERE, &[0; 20]), "SCTP"),
        (ip6(60, OWN6, TOOL6, &behind_options), "a socket that the quote would not name"),
    ] {
        assert_eq!(judge.answer(&packet), None, "{why}");
    }
}
