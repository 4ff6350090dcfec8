//! The keys that latticed signs with. All of them live in the data directory.

use nkeys::{KeyPair, KeyPairType};

use crate::data_dir::{DataDir, DataDirError};

const RELAY: &str = "relay.nk";

/// The NATS hierarchy of trust: the operator signs accounts, the account signs users. And beside it, whom relays trust.
#[derive(Debug)]
pub struct Keys {
    /// Signs both accounts; the server trusts it.
    pub operator: KeyPair,
    /// The server's own account, of which nobody is a user.
    pub system: KeyPair,
    /// The account that latticed and every peer live in.
    pub account: KeyPair,
    /// Signs the tokens with which peers go to relays. NATS knows nothing of it.
    pub relay: KeyPair,
}

impl Keys {
    /// Reads the keys, making those that are missing.
    ///
    /// # Errors
    /// When a file cannot be read, or holds something else.
    pub fn load(dir: &DataDir) -> Result<Self, DataDirError> {
        Ok(Self {
            operator: load(dir, "operator.nk", KeyPairType::Operator)?,
            system: load(dir, "system-account.nk", KeyPairType::Account)?,
            account: load(dir, "account.nk", KeyPairType::Account)?,
            relay: load(dir, RELAY, KeyPairType::Account)?,
        })
    }

    /// The public half of the key of a latticed that was started once, by which relays know the tokens of its peers.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn relay(dir: &DataDir) -> Result<String, DataDirError> {
        Ok(parse(dir, RELAY, KeyPairType::Account, &dir.kept_secret(RELAY)?)?.public_key())
    }
}

fn load(dir: &DataDir, name: &str, kind: KeyPairType) -> Result<KeyPair, DataDirError> {
    let damaged = || damaged(dir, name);
    let mut fresh = random::<32>();
    let made = KeyPair::new_from_raw(kind.clone(), fresh).map_err(|_| damaged())?;
    fresh.fill(0);
    let made_seed = made.seed().map_err(|_| damaged())?;
    let (seed, _) = dir.secret(name, || made_seed)?;
    parse(dir, name, kind, &seed)
}

fn parse(dir: &DataDir, name: &str, kind: KeyPairType, seed: &str) -> Result<KeyPair, DataDirError> {
    let key = KeyPair::from_seed(seed).ok().filter(|key| key.key_pair_type() == kind);
    key.ok_or_else(|| damaged(dir, name))
}

fn damaged(dir: &DataDir, name: &str) -> DataDirError {
    DataDirError::Damaged { path: dir.join(name), expected: "an nkey seed of the right kind" }
}

/// Random bytes from the kernel.
///
/// # Panics
/// When the kernel has no randomness to give: nothing here could go on safely.
#[expect(clippy::expect_used, reason = "getrandom(2) cannot fail on a kernel that runs gVisor")]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel's random number generator is available");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_a_restart() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        let (first, again) = (Keys::load(&dir).unwrap(), Keys::load(&dir).unwrap());
        assert_eq!(first.operator.public_key(), again.operator.public_key());
        assert_ne!(first.account.public_key(), first.system.public_key());
        assert_eq!(first.relay.public_key(), Keys::relay(&dir).unwrap());
        dir.remove(RELAY);
        assert!(Keys::relay(&dir).is_err() && !dir.join(RELAY).exists(), "only a start makes one");
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        dir.write("operator.nk", KeyPair::new_user().seed().unwrap().as_bytes()).unwrap();
        assert!(matches!(Keys::load(&dir), Err(DataDirError::Damaged { .. })));
    }
}
