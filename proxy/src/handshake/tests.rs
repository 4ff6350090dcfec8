use proptest::prelude::*;

use super::*;
use crate::{Because, Host};

const OURS: &str = "merlin:0123456789abcdef";

/// What became of a whole connection's bytes: what was sent, how it ended, and what was left over. `chunks` says how many bytes come at once.
pub(crate) fn drive(
    bytes: &[u8],
    chunks: impl IntoIterator<Item = usize>,
    credentials: Option<&Credentials>,
) -> (Vec<u8>, Option<Step>, Vec<u8>) {
    let mut handshake = Handshake::new(credentials);
    let (mut held, mut rest, mut sent) = (Vec::new(), bytes, Vec::new());
    let mut chunks = chunks.into_iter();
    loop {
        let (used, step) = handshake.step(&held);
        held.drain(..used);
        match step {
            Step::Send(bytes) => sent.extend(bytes),
            Step::More => {
                assert!(held.len() < MAX_HANDSHAKE, "more is asked for than there is room");
                let room = (MAX_HANDSHAKE - held.len()).min(rest.len());
                if room == 0 {
                    return (sent, None, held);
                }
                let (now, later) = rest.split_at(chunks.next().unwrap_or(usize::MAX).clamp(1, room));
                held.extend(now);
                rest = later;
            }
            step @ (Step::Done(..) | Step::End(..)) => {
                held.extend(rest);
                // After a refusal nothing more is read: how much came along by then is chance.
                let left = if matches!(step, Step::End(..)) { Vec::new() } else { held };
                return (sent, Some(step), left);
            }
        }
    }
}

fn whole(bytes: &[u8], credentials: Option<&str>) -> (Vec<u8>, Option<Step>, Vec<u8>) {
    let credentials = credentials.map(|text| text.parse().unwrap());
    drive(bytes, [], credentials.as_ref())
}

fn connect(host: &str, port: u16) -> Request {
    Request::Connect(Target { host: Host::read(host.as_bytes()).unwrap(), port })
}

#[test]
fn socks_with_everything_at_once() {
    let bytes = b"\x05\x01\0\x05\x01\0\x03\x0bexample.com\x01\xbbearly";
    let done = Step::Done(Protocol::Socks5, connect("example.com", 443));
    assert_eq!(whole(bytes, None), (vec![5, 0], Some(done.clone()), b"early".to_vec()));

    let bytes = b"\x05\x02\0\x02\x01\x06merlin\x100123456789abcdef\x05\x01\0\x03\x0bexample.com\x01\xbb";
    assert_eq!(whole(bytes, Some(OURS)), (vec![5, 2, 1, 0], Some(done), vec![]));
}

#[test]
fn without_the_credentials_nobody_gets_a_request_through() {
    let end = |farewell: &[u8]| Some(Step::End(Ending::Credentials, farewell.into()));
    // No method that is acceptable: the request behind it is not looked at.
    let (sent, step, _) = whole(b"\x05\x01\0\x05\x01\0\x01\x7f\0\0\x01\0\x50", Some(OURS));
    assert_eq!((sent, step), (vec![], end(&[5, 0xff])));
    let (sent, step, _) = whole(b"\x05\x01\x02", None);
    assert_eq!((sent, step), (vec![], end(&[5, 0xff])));
    // Wrong, and none at all.
    for wrong in [&b"\x05\x01\x02\x01\x06merlin\x100123456789abcdeX"[..], b"\x05\x01\x02\x01\0\0"] {
        let (sent, step, _) = whole(wrong, Some(OURS));
        assert_eq!((sent, step), (vec![5, 2], end(&[1, 1])));
    }
    // The negotiation left out.
    let (sent, step, _) = whole(b"\x05\x01\x02\x05\x01\0\x01\x7f\0\0\x01\0\x50", Some(OURS));
    assert_eq!((sent, step), (vec![5, 2], Some(Step::End(Ending::Malformed, vec![1, 1]))));

    for field in
        ["", "Proxy-Authorization: Basic bWVybGluOg==\r\n", "Authorization: Bearer 0123456789abcdef\r\n"]
    {
        let head = format!("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n{field}\r\n");
        let (_, step, _) = whole(head.as_bytes(), Some(OURS));
        let Some(Step::End(Ending::Credentials, farewell)) = step else { panic!("{step:?}") };
        let farewell = String::from_utf8(farewell).unwrap();
        assert!(farewell.starts_with("HTTP/1.1 407 Proxy Authentication Required\r\n"), "{farewell}");
        assert!(farewell.contains("Proxy-Authenticate: Basic realm="), "{farewell}");
    }
}

#[test]
fn a_stranger_learns_nothing_about_targets() {
    let (_, step, _) = whole(b"CONNECT 127.1:1 HTTP/1.0\r\n\r\n", Some(OURS));
    assert!(matches!(step, Some(Step::End(Ending::Credentials, _))), "{step:?}");
}

#[test]
fn http_by_either_scheme() {
    for shown in ["Basic bWVybGluOjAxMjM0NTY3ODlhYmNkZWY=", "Bearer 0123456789abcdef"] {
        let head = format!("CONNECT a:1 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: {shown}\r\n\r\nearly");
        let done = Step::Done(Protocol::HttpConnect, connect("a", 1));
        assert_eq!(whole(head.as_bytes(), Some(OURS)), (vec![], Some(done), b"early".to_vec()));
    }
}

#[test]
fn what_is_not_spoken_here_is_told_so() {
    let farewell = |bytes: &[u8]| match whole(bytes, None) {
        (sent, Some(Step::End(Ending::Malformed, farewell)), _) if sent.is_empty() => farewell,
        other => panic!("{other:?}"),
    };
    assert_eq!(farewell(b"\x04\x01\0\x50\x7f\0\0\x01user\0"), [0, 0x5b, 0, 0, 0, 0, 0, 0]);
    let text = |bytes| String::from_utf8(farewell(bytes)).unwrap();
    assert!(text(b"\x16\x03\x01\x02\0\x01").contains("without TLS"));
    assert!(
        text(b"GET https://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n").starts_with("HTTP/1.1 501 ")
    );
    assert!(text(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").starts_with("HTTP/1.1 505 "));
    for silent in [&b"\0"[..], b"\r\n", b"\x01", b"\xff"] {
        assert_eq!(farewell(silent), b"");
    }
}

#[test]
fn every_refusal_has_its_code() {
    let because = || Because { rule: Some("deny tcp 10.0.0.0/8".into()), reason: "rule-deny".into() };
    let target = Target { host: Host::read(b"10.0.0.1").unwrap(), port: 22 };
    for (refusal, socks, status, error) in [
        (Refusal::DeniedName(because()), 2, 403, "http_request_denied"),
        (Refusal::DeniedAddress(because()), 2, 403, "destination_ip_prohibited"),
        (Refusal::NotFound, 4, 502, "dns_error"),
        (Refusal::NoRoute, 3, 502, "destination_ip_unroutable"),
        (Refusal::Unreachable, 4, 502, "destination_unavailable"),
        (Refusal::ConnectionRefused, 5, 502, "connection_refused"),
        (Refusal::TimedOut, 6, 504, "connection_timeout"),
        (Refusal::Busy, 1, 503, "connection_limit_reached"),
        (Refusal::Failed("why".into()), 1, 502, "proxy_internal_error"),
    ] {
        assert_eq!(Protocol::Socks5.refused(Some(&target), &refusal)[..2], [5, socks], "{refusal}");
        let text = String::from_utf8(Protocol::HttpConnect.refused(Some(&target), &refusal)).unwrap();
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        assert!(text.contains(&format!("\r\nProxy-Status: lattice; error={error}\r\n")), "{text}");
        assert!(text.ends_with(&format!("\r\n\r\nlattice: 10.0.0.1:22: {refusal}\n")), "{text}");
    }
    let denied = Refusal::DeniedAddress(because()).to_string();
    assert!(denied.contains("rule-deny, rule \"deny tcp 10.0.0.0/8\""), "{denied}");
}

/// Bytes that go far into a handshake more often than noise does.
fn likely() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just(b"\x05\x01\0".to_vec()),
        Just(b"\x05\x02\0\x02".to_vec()),
        Just(b"\x01\x06merlin\x100123456789abcdef".to_vec()),
        Just(b"\x05\x01\0\x03\x0bexample.com\x01\xbb".to_vec()),
        Just(b"\x05\x01\0\x01\x7f\0\0\x01\0\x50".to_vec()),
        Just(b"\x05\x03\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec()),
        Just(b"\x05\x02\0\x01\x7f\0\0\x01\0\x50".to_vec()),
        Just(b"CONNECT a:1 HTTP/1.1\r\n".to_vec()),
        Just(b"CONNECT [::1]:1 HTTP/1.0\r\n\r\n".to_vec()),
        Just(b"Host: a\r\n".to_vec()),
        Just(b"Proxy-Authorization: Bearer 0123456789abcdef\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(vec![b'x'; 5000]),
        prop::collection::vec(any::<u8>(), 0..40),
    ];
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn however_the_bytes_are_cut_the_outcome_is_the_same(
        bytes in likely(),
        chunks in prop::collection::vec(1usize..60, 0..200),
        guarded: bool,
    ) {
        let credentials = guarded.then(|| OURS.parse().unwrap());
        let expected = drive(&bytes, [], credentials.as_ref());
        prop_assert_eq!(drive(&bytes, chunks, credentials.as_ref()), expected.clone());
        if bytes.len() < 600 {
            prop_assert_eq!(drive(&bytes, std::iter::repeat(1), credentials.as_ref()), expected);
        }
    }

    #[test]
    fn garbage_is_withstood(bytes in prop::collection::vec(any::<u8>(), 0..2000), text in ".{0,80}") {
        crate::fuzz::handshake(&bytes);
        crate::fuzz::datagram(&bytes);
        crate::fuzz::datagram(&[&[0, 0, 0, 3], bytes.as_slice()].concat());
        crate::fuzz::forwards(text.as_bytes());
    }
}
