//! The initiator's half (sections 5.4.2 and 5.4.3).

use x25519_dalek::{PublicKey, StaticSecret};

use super::{Identity, Keys, NO_PRESHARED_KEY, Remote, diffie_hellman};
use crate::{
    kdf::Key,
    message::{INITIATION_LEN, RESPONSE_LEN, initiation, new_initiation, response, u32_at},
    symmetric::{NotAuthentic, Symmetric},
    timestamp::Timestamp,
};

/// A handshake that we began, until it is answered.
pub(crate) struct Initiation {
    /// Under which the answer comes.
    pub(crate) index: u32,
    ephemeral: StaticSecret,
    symmetric: Symmetric,
}

impl Initiation {
    /// Begins a handshake. The message lacks its MACs. `ephemeral` is 32 random bytes, used for this alone.
    ///
    /// # Errors
    /// When the peer's key is of low order.
    pub(crate) fn new(
        identity: &Identity,
        remote: &mut Remote,
        index: u32,
        ephemeral: &Key,
        time: Timestamp,
    ) -> Result<(Self, [u8; INITIATION_LEN]), NotAuthentic> {
        let ephemeral = StaticSecret::from(**ephemeral);
        let mut message = new_initiation(index);
        let mut symmetric = Symmetric::new(&remote.public_key);
        let public = PublicKey::from(&ephemeral).to_bytes();
        message[initiation::EPHEMERAL].copy_from_slice(&public);
        symmetric.mix_ephemeral(&public);

        let key = symmetric.mix_key(diffie_hellman(&ephemeral, &remote.public_key)?.as_slice());
        symmetric.encrypt_and_hash(&key, &identity.public_key, &mut message[initiation::STATIC]);
        let key = symmetric.mix_key(remote.static_static(identity)?.as_slice());
        symmetric.encrypt_and_hash(&key, &time.0, &mut message[initiation::TIMESTAMP]);
        Ok((Self { index, ephemeral, symmetric }, message))
    }

    /// Ends the handshake by the peer's answer. Returns the peer's index and the keys.
    ///
    /// # Errors
    /// When the answer is not the peer's, or not to this initiation.
    pub(crate) fn finish(
        &self,
        identity: &Identity,
        message: &[u8; RESPONSE_LEN],
    ) -> Result<(u32, Keys), NotAuthentic> {
        let mut symmetric = self.symmetric.clone();
        let ephemeral = message[response::EPHEMERAL].try_into().map_err(|_| NotAuthentic)?;
        symmetric.mix_ephemeral(&ephemeral);
        symmetric.mix_key(diffie_hellman(&self.ephemeral, &ephemeral)?.as_slice());
        symmetric.mix_key(diffie_hellman(&identity.private_key, &ephemeral)?.as_slice());
        let key = symmetric.mix_key_and_hash(&NO_PRESHARED_KEY);
        symmetric.decrypt_and_hash::<0>(&key, &message[response::EMPTY])?;
        let [send, receive] = symmetric.split();
        Ok((u32_at(message, 4), Keys { send, receive }))
    }
}
