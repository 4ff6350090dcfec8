//! The symmetric state of a Noise handshake (Noise section 5.2, paper section 5.4): a chaining key, from which all keys
//! come, and a hash of all that was said.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::kdf::{Bytes32, Key, hash, kdf};

/// `Construction` of the paper.
const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";

/// `Identifier` of the paper: the prologue.
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";

/// Bytes that encryption adds.
pub(crate) const TAG_LEN: usize = 16;

/// What did not decrypt: it was not made by who it claims, or not for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAuthentic;

/// A handshake so far. Cloned so that what turns out not to be authentic changes nothing.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Symmetric {
    chaining_key: Bytes32,
    hash: Bytes32,
}

impl Symmetric {
    /// The beginning of every handshake with `responder`.
    pub(crate) fn new(responder: &Bytes32) -> Self {
        let chaining_key = hash(&[CONSTRUCTION]);
        let mut state = Self { hash: hash(&[&chaining_key, IDENTIFIER]), chaining_key };
        state.mix_hash(responder);
        state
    }

    pub(crate) fn mix_hash(&mut self, data: &[u8]) {
        self.hash = hash(&[&self.hash, data]);
    }

    /// An ephemeral public key: said in clear and, with a pre-shared key, mixed into the keys as well.
    pub(crate) fn mix_ephemeral(&mut self, ephemeral: &Bytes32) {
        self.mix_hash(ephemeral);
        let [chaining_key] = kdf(&self.chaining_key, ephemeral);
        self.chaining_key = *chaining_key;
    }

    /// Mixes in a shared secret; what comes out encrypts the next message.
    pub(crate) fn mix_key(&mut self, secret: &[u8]) -> Key {
        let [chaining_key, key] = kdf(&self.chaining_key, secret);
        self.chaining_key = *chaining_key;
        key
    }

    /// Mixes in the pre-shared key.
    pub(crate) fn mix_key_and_hash(&mut self, preshared: &Bytes32) -> Key {
        let [chaining_key, in_hash, key] = kdf(&self.chaining_key, preshared);
        self.chaining_key = *chaining_key;
        self.mix_hash(in_hash.as_slice());
        key
    }

    /// Encrypts `plain` into `out`, which is [`TAG_LEN`] bytes longer.
    pub(crate) fn encrypt_and_hash(&mut self, key: &Key, plain: &[u8], out: &mut [u8]) {
        let (text, tag) = out.split_at_mut(plain.len());
        text.copy_from_slice(plain);
        tag.copy_from_slice(&seal(key, 0, &self.hash, text));
        self.mix_hash(out);
    }

    /// Decrypts what [`Symmetric::encrypt_and_hash`] made of `N` bytes.
    pub(crate) fn decrypt_and_hash<const N: usize>(
        &mut self,
        key: &Key,
        sealed: &[u8],
    ) -> Result<Zeroizing<[u8; N]>, NotAuthentic> {
        let mut buffer = Zeroizing::new(sealed.to_vec());
        let plain = open(key, 0, &self.hash, &mut buffer)?;
        let plain: &[u8; N] = (&*plain).try_into().map_err(|_| NotAuthentic)?;
        let plain = Zeroizing::new(*plain);
        self.mix_hash(sealed);
        Ok(plain)
    }

    /// The keys of the session: what the initiator sends with, and what the responder does (section 5.4.5).
    pub(crate) fn split(&self) -> [Key; 2] {
        kdf(&self.chaining_key, &[])
    }
}

/// `Aead` in place; returns the tag. A pair of key and counter is never used twice.
pub(crate) fn seal(key: &Key, counter: u64, associated: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
    let tag = cipher(key).seal_in_place_separate_tag(nonce(counter), Aad::from(associated), text);
    let tag = tag.expect("no packet is as long as ChaCha20-Poly1305's limit of 256 GiB");
    tag.as_ref().try_into().expect("the tag has 16 bytes")
}

/// Decrypts in place what has its tag at its end; returns the part without.
pub(crate) fn open<'a>(
    key: &Key,
    counter: u64,
    associated: &[u8],
    sealed: &'a mut [u8],
) -> Result<&'a mut [u8], NotAuthentic> {
    cipher(key).open_in_place(nonce(counter), Aad::from(associated), sealed).map_err(|_| NotAuthentic)
}

/// ring cannot wipe its own form of a key. So it lives on the stack for one packet only, where the next overwrites it;
/// making it copies 32 bytes.
fn cipher(key: &Key) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key.as_slice()).expect("the key has 32 bytes"))
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}
