//! What comes to a relay, to its client and to a STUN server.

use std::net::SocketAddr;

use lattice_relay::stun;
use lattice_wire::{
    lrp::{self, Frame},
    relay_token::{self, TrustedKeys},
};
use nkeys::{KeyPair, KeyPairType};

/// Frames on a stream, one after the other.
pub(crate) fn frames(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Ok(Some(length)) = lrp::frame_len(rest) {
        assert!(length > 2 && length <= 2 + 1 + lrp::HANDLE + lrp::MAX_DATAGRAM);
        let Some((one, after)) = rest.split_at_checked(length) else { return false };
        let Ok(frame) = Frame::parse(one) else { return false };
        let mut again = Vec::new();
        frame.write(&mut again);
        assert_eq!(again, one);
        if let Frame::Data(body) = frame {
            let (_, datagram) = lrp::split_data(body).unwrap_or_default();
            assert!(datagram.len() <= lrp::MAX_DATAGRAM);
        }
        rest = after;
    }
    !bytes.is_empty() && rest.is_empty()
}

/// A relay token, to a relay that trusts one key.
pub(crate) fn token(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(issuer) = KeyPair::new_from_raw(KeyPairType::Account, [7; 32]) else { return false };
    let Ok(trusted) = TrustedKeys::new([issuer.public_key().as_str()]) else { return false };
    let Ok(claims) = relay_token::verify(text, &trusted, 0) else { return false };
    assert!(claims.not_after > 0 && text.len() <= relay_token::MAX_TOKEN);
    assert!(!claims.is_signed_by_holder(b"something", &[0; 64]));
    true
}

/// A datagram to a STUN server.
pub(crate) fn stun_request(bytes: &[u8]) -> bool {
    let from: [SocketAddr; 2] = [([192, 0, 2, 1], 1).into(), ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 1).into()];
    let answers = from.map(|from| stun::answer(bytes, from));
    for answer in answers.iter().flatten() {
        assert!(answer.len() <= stun::MAX_ANSWER && answer.len() % 4 == 0);
        assert_eq!(answer[4..20], bytes[4..20]);
        assert_eq!(stun::answer(answer, from[0]), None, "an answer is answered");
    }
    answers[0].is_some()
}
