//! The responder's half (sections 5.4.2 and 5.4.3).

use lattice_wire::WgPublicKey;
use x25519_dalek::{PublicKey, StaticSecret};

use super::{Identity, Keys, NO_PRESHARED_KEY, Remote, diffie_hellman};
use crate::{
    kdf::{Bytes32, Key},
    message::{INITIATION_LEN, RESPONSE_LEN, initiation, new_response, response, u32_at},
    symmetric::{NotAuthentic, Symmetric},
    timestamp::Timestamp,
};

/// An initiation that was encrypted to us, and names its sender. That it is the sender's own is not known yet.
pub(crate) struct Opened {
    pub(crate) sender: WgPublicKey,
    sender_index: u32,
    sender_ephemeral: Bytes32,
    symmetric: Symmetric,
}

impl Opened {
    /// Reads whose an initiation is.
    ///
    /// # Errors
    /// When it was not encrypted to our key.
    pub(crate) fn read(identity: &Identity, message: &[u8; INITIATION_LEN]) -> Result<Self, NotAuthentic> {
        let mut symmetric = Symmetric::new(&identity.public_key);
        let ephemeral = message[initiation::EPHEMERAL].try_into().map_err(|_| NotAuthentic)?;
        symmetric.mix_ephemeral(&ephemeral);
        let key = symmetric.mix_key(diffie_hellman(&identity.private_key, &ephemeral)?.as_slice());
        let sender = symmetric.decrypt_and_hash::<32>(&key, &message[initiation::STATIC])?;
        Ok(Self {
            sender: WgPublicKey(*sender),
            sender_index: u32_at(message, 4),
            sender_ephemeral: ephemeral,
            symmetric,
        })
    }

    /// Proves that the initiation is the sender's own; returns when it was made.
    ///
    /// # Errors
    /// When it is not.
    pub(crate) fn authenticate(
        &mut self,
        identity: &Identity,
        remote: &mut Remote,
        message: &[u8; INITIATION_LEN],
    ) -> Result<Timestamp, NotAuthentic> {
        let key = self.symmetric.mix_key(remote.static_static(identity)?.as_slice());
        let time = self.symmetric.decrypt_and_hash::<12>(&key, &message[initiation::TIMESTAMP])?;
        Ok(Timestamp(*time))
    }

    /// Answers an authenticated initiation and ends the handshake. The message lacks its MACs. `ephemeral` is 32 random
    /// bytes, used for this alone. Returns the peer's index too.
    ///
    /// # Errors
    /// When a key is of low order.
    pub(crate) fn answer(
        mut self,
        index: u32,
        ephemeral: &Key,
    ) -> Result<(u32, Keys, [u8; RESPONSE_LEN]), NotAuthentic> {
        let ephemeral = StaticSecret::from(**ephemeral);
        let mut message = new_response(index, self.sender_index);
        let public = PublicKey::from(&ephemeral).to_bytes();
        message[response::EPHEMERAL].copy_from_slice(&public);
        self.symmetric.mix_ephemeral(&public);

        self.symmetric.mix_key(diffie_hellman(&ephemeral, &self.sender_ephemeral)?.as_slice());
        self.symmetric.mix_key(diffie_hellman(&ephemeral, &self.sender.0)?.as_slice());
        let key = self.symmetric.mix_key_and_hash(&NO_PRESHARED_KEY);
        self.symmetric.encrypt_and_hash(&key, &[], &mut message[response::EMPTY]);
        let [receive, send] = self.symmetric.split();
        Ok((self.sender_index, Keys { send, receive }, message))
    }
}
