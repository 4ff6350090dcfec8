//! Tokens, credentials and sealed signals.

use lattice_wire::{
    AdminToken, Credentials, PeerId, Token, WgPrivateKey,
    seal::{SealError, open, seal, signal_context},
};
use zeroize::Zeroizing;

use crate::json::read;

/// Text that claims to be a token of either kind.
pub(crate) fn token(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    match (text.parse::<Token>(), text.parse::<AdminToken>()) {
        (Ok(_), Ok(_)) => panic!("one token is of both kinds"),
        (Ok(token), Err(_)) => check(text, &token.expose(), &format!("{token:?}")),
        (Err(_), Ok(token)) => check(text, &token.expose(), &format!("{token:?}")),
        // Their type has no room for the text.
        (Err(_), Err(_)) => return false,
    }
    true
}

fn check(text: &str, exposed: &str, shown: &str) {
    assert_eq!(exposed, text);
    let secret = text.split('-').nth(2).expect("a token has four parts");
    assert!(!shown.contains(secret), "the secret is printed");
}

/// The credentials file.
pub(crate) fn credentials(bytes: &[u8]) -> bool {
    read::<Credentials>(bytes).is_some()
}

/// A signal that claims to be sealed; and the same bytes as the content of one that is.
pub(crate) fn signal(bytes: &[u8]) -> bool {
    let (from, to) = (WgPrivateKey::from_random([1; 32]), WgPrivateKey::from_random([2; 32]));
    let context = signal_context(&PeerId::from_random([1; 10]), &PeerId::from_random([2; 10]));
    let opened = open(&to, &from.public(), &context, bytes);
    let sealed = match &opened {
        Ok(_) => bytes.to_vec(),
        Err(_) => match seal(&from, &to.public(), &context, bytes, Zeroizing::new([3; 32])) {
            Ok(sealed) => {
                assert_eq!(open(&to, &from.public(), &context, &sealed).as_deref(), Ok(bytes));
                sealed
            }
            Err(error) => {
                assert_eq!(error, SealError::TooBig);
                return false;
            }
        },
    };
    let mut damaged = sealed.clone();
    let at =
        bytes.iter().fold(bytes.len(), |at, byte| at.wrapping_mul(31) + usize::from(*byte)) % damaged.len();
    damaged[at] ^= 1;
    assert_eq!(open(&to, &from.public(), &context, &damaged), Err(SealError::Refused));
    assert_eq!(open(&to, &from.public(), b"another", &sealed), Err(SealError::Refused));
    assert_eq!(open(&from, &to.public(), &context, &sealed), Err(SealError::Refused));
    opened.is_ok()
}
