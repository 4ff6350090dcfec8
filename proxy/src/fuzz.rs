//! The readers of hostile bytes as functions of bytes, for the fuzzer. What is asserted must hold of everything.

use crate::{
    Credentials, Forward, Host, Protocol, Target,
    handshake::{Handshake, Step},
    http::Exchange,
    limits::MAX_HANDSHAKE,
    parse_forwards,
    socks::{self, Request},
};

/// A client's handshake. The first byte says whether there are credentials, and how the rest is cut. Accepted if it comes to a request.
pub fn handshake(bytes: &[u8]) -> bool {
    let Some((how, bytes)) = bytes.split_first() else { return false };
    let credentials: Option<Credentials> =
        if how & 1 == 0 { None } else { "merlin:0123456789abcdef".parse().ok() };
    let whole = outcome(bytes, MAX_HANDSHAKE, credentials.as_ref());
    let cut = outcome(bytes, usize::from(how >> 1).max(1), credentials.as_ref());
    assert_eq!(whole, cut, "the cuts decide");
    match whole.1 {
        Some(Step::Done(protocol, Request::Connect(target))) => {
            consistent(&target);
            assert!(protocol.granted(None).len() <= 64);
            true
        }
        Some(Step::Done(protocol, Request::Exchange(exchange))) => {
            consistent(&exchange.target);
            assert_eq!(protocol, Protocol::HttpRequest);
            one_request(&exchange);
            true
        }
        last => matches!(last, Some(Step::Done(Protocol::Socks5, Request::Associate(_)))),
    }
}

/// What goes to a server is one head, which says what was judged and where its body ends, and nothing of the proxy's own.
fn one_request(exchange: &Exchange) {
    let head = str::from_utf8(&exchange.head).expect("text");
    let text = head.strip_suffix("\r\n\r\n").expect("an empty line at its end");
    assert!(!text.contains("\r\n\r\n") && !text.replace("\r\n", "").contains(['\r', '\n']));
    let (line, fields) = text.split_once("\r\n").expect("fields");
    let parts: Vec<&str> = line.split(' ').collect();
    assert!(parts.len() == 3 && (parts[1].starts_with('/') || parts[1] == "*"), "{line}");
    let all = |wanted: &str| -> Vec<&str> {
        let fields = fields.split("\r\n").map(|field| field.split_once(':').expect("a field"));
        fields.filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim()).collect()
    };
    assert_eq!(all("connection"), ["close"]);
    assert!(all("transfer-encoding").is_empty() && all("proxy-authorization").is_empty());
    let length = all("content-length").iter().map(|text| text.parse()).collect::<Result<Vec<u64>, _>>();
    let length = length.expect("a number");
    assert!(length.len() <= 1 && length.first().copied().unwrap_or(0) == exchange.body);
    let host = all("host");
    assert_eq!(host.len(), 1);
    let name = exchange.target.to_string();
    assert!(host[0] == name || Some(host[0]) == name.strip_suffix(":80"), "{host:?} {name}");
}

/// A client's datagram. Accepted if it goes somewhere.
pub fn datagram(bytes: &[u8]) -> bool {
    let Ok((target, payload)) = socks::datagram(bytes) else { return false };
    consistent(&target);
    assert!(bytes.ends_with(payload));
    true
}

/// Port forwards, one on each line.
pub fn forwards(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let Ok(forwards) = parse_forwards(text.lines()) else { return false };
    for forward in &forwards {
        assert_eq!(forward.to_string().parse::<Forward>().as_ref(), Ok(forward));
    }
    !forwards.is_empty()
}

/// Everything that was sent, the last step, and what is left.
fn outcome(
    bytes: &[u8],
    chunk: usize,
    credentials: Option<&Credentials>,
) -> (Vec<u8>, Option<Step>, Vec<u8>) {
    let mut handshake = Handshake::new(credentials);
    let (mut start, mut end, mut sent) = (0, 0, Vec::new());
    loop {
        let (used, step) = handshake.step(&bytes[start..end]);
        start += used;
        match step {
            Step::Send(bytes) => sent.extend(bytes),
            Step::More => {
                let more = (end + chunk).min(start + MAX_HANDSHAKE).min(bytes.len());
                assert!(end - start < MAX_HANDSHAKE, "more is asked for than there is room");
                if more == end {
                    return (sent, None, Vec::new());
                }
                end = more;
            }
            Step::Done(..) => return (sent, Some(step), bytes[start..].to_vec()),
            Step::End(..) => return (sent, Some(step), Vec::new()),
        }
        assert!(sent.len() <= 4, "more than two answers before a request");
    }
}

fn consistent(target: &Target) {
    assert_ne!(target.port, 0);
    match &target.host {
        Host::Address(address) => assert_eq!(*address, address.to_canonical()),
        Host::Name(name) => {
            assert_eq!(Host::read(name.as_str().as_bytes()).as_ref(), Ok(&target.host));
            assert!(name.as_str().parse::<std::net::IpAddr>().is_err());
        }
    }
}
