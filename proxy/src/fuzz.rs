//! The readers of hostile bytes as functions of bytes, for the fuzzer. What is asserted must hold of everything.

use crate::{
    Credentials, Forward, Host, Protocol, Target,
    handshake::{Handshake, Step},
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
    let Some(Step::Done(protocol, Request::Connect(target))) = whole.1 else {
        return matches!(whole.1, Some(Step::Done(Protocol::Socks5, Request::Associate(_))));
    };
    consistent(&target);
    assert!(protocol.granted(None).len() <= 64);
    true
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
