//! The keys that latticed signs with. All of them live in the data directory.

use nkeys::{KeyPair, KeyPairType};

use crate::data_dir::{DataDir, DataDirError};

/// The NATS hierarchy of trust: the operator signs accounts, the account signs users.
#[derive(Debug)]
pub struct Keys {
    /// Signs both accounts; the server trusts it.
    pub operator: KeyPair,
    /// The server's own account, of which nobody is a user.
    pub system: KeyPair,
    /// The account that latticed and every peer live in.
    pub account: KeyPair,
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
        })
    }
}

fn load(dir: &DataDir, name: &str, kind: KeyPairType) -> Result<KeyPair, DataDirError> {
    let damaged =
        || DataDirError::Damaged { path: dir.join(name), expected: "an nkey seed of the right kind" };
    let mut fresh = random::<32>();
    let made = KeyPair::new_from_raw(kind.clone(), fresh).map_err(|_| damaged())?;
    fresh.fill(0);
    let made_seed = made.seed().map_err(|_| damaged())?;
    let (seed, _) = dir.secret(name, || made_seed)?;
    KeyPair::from_seed(&seed).ok().filter(|key| key.key_pair_type() == kind).ok_or_else(damaged)
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
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        dir.write("operator.nk", KeyPair::new_user().seed().unwrap().as_bytes()).unwrap();
        assert!(matches!(Keys::load(&dir), Err(DataDirError::Damaged { .. })));
    }
}
