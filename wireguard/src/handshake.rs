//! The handshake, Noise_IKpsk2 (section 5.4 of the paper): one message each way, and both ends share keys that neither
//! static key alone opens later.
//!
//! ```text
//!   initiator                                              responder
//!   [initiator::Initiation::new]  ── e, es, s, ss, time ─►  [responder::Opened::read], then of the peer that it names
//!   [initiator::Initiation::finish] ◄── e, ee, se, psk ──   [responder::Opened::answer]
//! ```
//!
//! No pre-shared key is used: 32 zeros stand for it. Whatever is no valid message changes no state.

use x25519_dalek::{PublicKey, StaticSecret};

use lattice_wire::{WgPrivateKey, WgPublicKey};

use crate::{
    cookie::{LABEL_COOKIE, LABEL_MAC1},
    kdf::{Bytes32, Key, hash},
    symmetric::NotAuthentic,
};

pub(crate) mod initiator;
mod low_order;
pub(crate) mod responder;

/// Stands for the pre-shared key where there is none.
const NO_PRESHARED_KEY: Bytes32 = [0; 32];

/// Our static key, and the keys that follow from its public half alone.
pub(crate) struct Identity {
    private_key: StaticSecret,
    public_key: Bytes32,
    /// Whoever sends us a handshake message shows by this key that it knows ours.
    pub(crate) mac1_key: Bytes32,
    /// Encrypts the cookies that we hand out.
    pub(crate) cookie_key: Bytes32,
}

impl Identity {
    pub(crate) fn new(private_key: &WgPrivateKey) -> Self {
        let private_key = StaticSecret::from(*private_key.expose());
        let public_key = PublicKey::from(&private_key).to_bytes();
        Self {
            private_key,
            public_key,
            mac1_key: hash(&[LABEL_MAC1, &public_key]),
            cookie_key: hash(&[LABEL_COOKIE, &public_key]),
        }
    }
}

/// A peer's static key, and what it makes with ours.
pub(crate) struct Remote {
    pub(crate) public_key: Bytes32,
    /// The Diffie-Hellman of the two static keys. Made when it is first used: it costs as much as 50 packets, and most
    /// peers of a large network never meet.
    static_static: Option<Key>,
}

impl Remote {
    /// `None` when the key is of low order: anybody could pose as its owner.
    pub(crate) fn new(public_key: WgPublicKey) -> Option<Self> {
        let is_usable = !low_order::is_low_order(&public_key.0);
        is_usable.then_some(Self { public_key: public_key.0, static_static: None })
    }

    fn static_static(&mut self, identity: &Identity) -> Result<&Key, NotAuthentic> {
        match &mut self.static_static {
            Some(made) => Ok(made),
            none => Ok(none.insert(diffie_hellman(&identity.private_key, &self.public_key)?)),
        }
    }
}

/// What a finished handshake leaves.
pub(crate) struct Keys {
    pub(crate) send: Key,
    pub(crate) receive: Key,
}

/// X25519; refuses a point of low order, with which the outcome would be no secret.
fn diffie_hellman(private_key: &StaticSecret, public_key: &Bytes32) -> Result<Key, NotAuthentic> {
    let shared = private_key.diffie_hellman(&PublicKey::from(*public_key));
    if !shared.was_contributory() {
        return Err(NotAuthentic);
    }
    Ok(Key::new(shared.to_bytes()))
}

#[cfg(test)]
mod tests;
