//! The nonces that name the inboxes of bootstrap users.
//!
//! A newcomer says itself where the reply to its enrolment goes, so a limit per inbox would be none if the name could be
//! made up. A nonce therefore carries when it ends and a MAC of that by a key of latticed: it is told from a made up one
//! without remembering any.

use nkeys::KeyPair;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::jwt::JwtError;

const RANDOM: usize = 6;
const TIME: usize = 4;
const MAC: usize = 10;

/// Makes nonces and knows its own.
pub(super) struct Nonces([u8; 32]);

impl Nonces {
    /// Those of an account, so that they outlive a restart.
    pub(super) fn of(account: &KeyPair) -> Result<Self, JwtError> {
        let hash = Sha256::new().chain_update(b"lattice-bootstrap-nonce-v1").chain_update(account.seed()?);
        Ok(Self(hash.finalize().into()))
    }

    /// A nonce that lives until `end`, in Unix seconds.
    pub(super) fn make(&self, random: [u8; RANDOM], end: i64) -> String {
        let end = u32::try_from(end).unwrap_or(u32::MAX).to_be_bytes();
        let mac = self.mac(random, end);
        data_encoding::BASE32_NOPAD.encode(&[&random[..], &end, &mac].concat()).to_ascii_lowercase()
    }

    /// Whether `nonce` is one of these and lives at `now`.
    pub(super) fn is_living(&self, nonce: &str, now: i64) -> bool {
        let mut bytes = [0; RANDOM + TIME + MAC];
        let upper = nonce.to_ascii_uppercase();
        if data_encoding::BASE32_NOPAD.decode_len(upper.len()) != Ok(bytes.len())
            || data_encoding::BASE32_NOPAD.decode_mut(upper.as_bytes(), &mut bytes).is_err()
            || nonce.bytes().any(|byte| byte.is_ascii_uppercase())
        {
            return false;
        }
        let (mut random, mut end) = ([0; RANDOM], [0; TIME]);
        random.copy_from_slice(&bytes[..RANDOM]);
        end.copy_from_slice(&bytes[RANDOM..RANDOM + TIME]);
        let is_ours = bool::from(bytes[RANDOM + TIME..].ct_eq(&self.mac(random, end)));
        is_ours && i64::from(u32::from_be_bytes(end)) > now
    }

    /// The lengths are fixed, so a hash of key and message is a MAC.
    fn mac(&self, random: [u8; RANDOM], end: [u8; TIME]) -> [u8; MAC] {
        let hash = Sha256::new().chain_update(self.0).chain_update(random).chain_update(end).finalize();
        let mut mac = [0; MAC];
        mac.copy_from_slice(&hash[..MAC]);
        mac
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn knows_its_own_and_no_other(random: [u8; RANDOM], at in 0usize..32, by in 1u8..32, text in ".{0,40}") {
            let (ours, theirs) = (Nonces([1; 32]), Nonces([2; 32]));
            let nonce = ours.make(random, 1000);
            prop_assert!(ours.is_living(&nonce, 999) && !ours.is_living(&nonce, 1000));
            prop_assert!(!theirs.is_living(&nonce, 999) && !ours.is_living(&text, 0));
            prop_assert!(!ours.is_living(&nonce.to_ascii_uppercase(), 999), "one nonce, one name");

            const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
            let mut changed = nonce.into_bytes();
            let place = ALPHABET.iter().position(|c| *c == changed[at]).unwrap();
            changed[at] = ALPHABET[(place + usize::from(by)) % 32];
            prop_assert!(!ours.is_living(&String::from_utf8(changed).unwrap(), 0));
        }
    }

    #[test]
    fn an_account_has_the_same_after_a_restart() {
        let account = KeyPair::new_account();
        let again = KeyPair::from_seed(&account.seed().unwrap()).unwrap();
        let nonce = Nonces::of(&account).unwrap().make([7; RANDOM], 1000);
        assert!(Nonces::of(&again).unwrap().is_living(&nonce, 0));
    }
}
