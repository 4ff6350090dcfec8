//! Sealed signals: what one peer leaves for another on NATS, which neither NATS nor latticed can read or change.
//!
//! The one-way pattern K of the Noise protocol, between the two peers' WireGuard keys: only the holder of the receiver's key
//! can open it, and only the holder of the sender's could have sealed it. One message, no round trip.
//!
//! WireGuard uses the same keys for handshakes of its own. That is sound because both are Noise: each hashes the full name of
//! its protocol (`Noise_K_…` here, `Noise_IKpsk2_…` there) and its prologue into everything it derives, so that no message or key of one
//! means anything in the other. Any other use of these keys would need a proof of its own.
//!
//! What it does not give: a server that stores a sealed message can deliver it again, or late, so its content must carry what
//! makes it fresh; and whoever steals the receiver's key can open what was recorded before.

use snow::{
    Builder, Error,
    params::{CipherChoice, DHChoice, HashChoice, NoiseParams},
    resolvers::{CryptoResolver, DefaultResolver},
    types::{Cipher, Dh, Hash, Random},
};
use zeroize::Zeroizing;

use crate::{PeerId, WgPrivateKey, WgPublicKey};

const PATTERN: &str = "Noise_K_25519_ChaChaPoly_BLAKE2s";
/// Largest sealed message, in bytes: the limit of Noise.
pub const MAX_SEALED: usize = 65_535;
/// What sealing adds: the ephemeral public key and the authentication tag.
pub const OVERHEAD: usize = 32 + 16;

/// Why a message was not sealed or opened. Says nothing about its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// More than [`MAX_SEALED`] bytes, sealed.
    #[error("message is too big to be sealed: at most {} bytes", MAX_SEALED - OVERHEAD)]
    TooBig,
    /// Damaged, for another receiver, from another sender, or of another context.
    #[error("sealed message does not open: it is damaged, or not from this sender to this receiver")]
    Refused,
}

/// The context of a signal, so that one between two peers is no signal between any others, and not its own answer.
pub fn signal_context(from: &PeerId, to: &PeerId) -> Vec<u8> {
    format!("lattice-signal-v1 {from} {to}").into_bytes()
}

/// Seals `plaintext` to the holder of `to`, in proof that it comes from the holder of `from`. `ephemeral` are 32 fresh random
/// bytes: used twice, they give away how two plaintexts differ.
///
/// # Errors
/// [`SealError::TooBig`]; [`SealError::Refused`] when `to` is no usable key.
pub fn seal(
    from: &WgPrivateKey,
    to: &WgPublicKey,
    context: &[u8],
    plaintext: &[u8],
    ephemeral: Zeroizing<[u8; 32]>,
) -> Result<Vec<u8>, SealError> {
    if plaintext.len() > MAX_SEALED - OVERHEAD {
        return Err(SealError::TooBig);
    }
    let seal = || -> Result<Vec<u8>, Error> {
        let mut sealed = vec![0; plaintext.len() + OVERHEAD];
        let length = builder(Some(ephemeral))?
            .prologue(context)?
            .local_private_key(from.expose())?
            .remote_public_key(&to.0)?
            .build_initiator()?
            .write_message(plaintext, &mut sealed)?;
        sealed.truncate(length);
        Ok(sealed)
    };
    seal().map_err(|_| SealError::Refused)
}

/// Opens what [`seal`] made with the other halves of these keys and the same context.
///
/// # Errors
/// As described by [`SealError`].
pub fn open(
    to: &WgPrivateKey,
    from: &WgPublicKey,
    context: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>, SealError> {
    if sealed.len() > MAX_SEALED {
        return Err(SealError::TooBig);
    }
    let open = || -> Result<Vec<u8>, Error> {
        let mut plaintext = vec![0; sealed.len()];
        let length = builder(None)?
            .prologue(context)?
            .local_private_key(to.expose())?
            .remote_public_key(&from.0)?
            .build_responder()?
            .read_message(sealed, &mut plaintext)?;
        plaintext.truncate(length);
        Ok(plaintext)
    };
    open().map_err(|_| SealError::Refused)
}

fn builder<'a>(ephemeral: Option<Zeroizing<[u8; 32]>>) -> Result<Builder<'a>, Error> {
    let params: NoiseParams = PATTERN.parse()?;
    Ok(Builder::with_resolver(params, Box::new(Given(ephemeral))))
}

/// The default primitives, with the caller's randomness in place of the system's.
struct Given(Option<Zeroizing<[u8; 32]>>);

impl CryptoResolver for Given {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Given(self.0.clone())))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

impl Random for Given {
    /// Gives its bytes once; a second key from them would be no secret.
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        match self.0.take() {
            Some(bytes) if bytes.len() == dest.len() => dest.copy_from_slice(&*bytes),
            _ => return Err(Error::Rng),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(n: u8) -> (WgPrivateKey, WgPublicKey) {
        let key = WgPrivateKey::from_random([n; 32]);
        let public = key.public();
        (key, public)
    }

    fn sealed(plaintext: &[u8], ephemeral: [u8; 32]) -> Vec<u8> {
        seal(&keys(1).0, &keys(2).1, b"a to b", plaintext, Zeroizing::new(ephemeral)).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn opens_for_its_receiver_and_nobody_else(
            plaintext in prop::collection::vec(any::<u8>(), 0..300),
            ephemeral: [u8; 32],
            context in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let ((a, a_public), (b, b_public), (c, c_public)) = (keys(1), keys(2), keys(3));
            let message = seal(&a, &b_public, &context, &plaintext, Zeroizing::new(ephemeral)).unwrap();
            prop_assert_eq!(message.len(), plaintext.len() + OVERHEAD);
            prop_assert_eq!(open(&b, &a_public, &context, &message), Ok(plaintext));
            let other_context = [&context[..], b"x"].concat();
            for (receiver, sender, context) in
                [(&c, a_public, &context), (&b, c_public, &context), (&a, b_public, &context), (&b, a_public, &other_context)]
            {
                prop_assert_eq!(open(receiver, &sender, context, &message), Err(SealError::Refused));
            }
        }

        #[test]
        fn one_flipped_bit_is_found(at in 0usize..OVERHEAD + 20, bit in 0u8..8) {
            let mut message = sealed(&[7; 20], [9; 32]);
            // X25519 ignores the highest bit of a public key; what is derived from the key's bytes does not.
            message[at] ^= 1 << bit;
            prop_assert_eq!(open(&keys(2).0, &keys(1).1, b"a to b", &message), Err(SealError::Refused));
        }

        #[test]
        fn any_bytes_may_come(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(open(&keys(2).0, &keys(1).1, b"", &bytes).is_err());
        }
    }

    #[test]
    fn sizes_are_bounded() {
        let ((a, a_public), (b, b_public)) = (keys(1), keys(2));
        let most = vec![1; MAX_SEALED - OVERHEAD];
        let message = seal(&a, &b_public, b"", &most, Zeroizing::new([4; 32])).unwrap();
        assert_eq!(open(&b, &a_public, b"", &message).as_ref(), Ok(&most));
        let more = vec![1; most.len() + 1];
        assert_eq!(seal(&a, &b_public, b"", &more, Zeroizing::new([4; 32])), Err(SealError::TooBig));
        assert_eq!(open(&b, &a_public, b"", &vec![1; MAX_SEALED + 1]), Err(SealError::TooBig));
    }

    #[test]
    fn other_randomness_gives_another_message_and_the_text_is_not_in_it() {
        let (one, other) = (sealed(b"where I am", [1; 32]), sealed(b"where I am", [2; 32]));
        assert_ne!(one, other);
        assert!(!one.windows(10).any(|part| part == b"where I am"));
        assert_eq!(one, sealed(b"where I am", [1; 32]), "pure: the same in, the same out");
    }

    #[test]
    fn a_signal_has_its_direction() {
        let (a, b) = (PeerId::from_random([1; 10]), PeerId::from_random([2; 10]));
        assert_ne!(signal_context(&a, &b), signal_context(&b, &a));
    }
}
