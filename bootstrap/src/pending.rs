//! The keys of an enrolment that is under way: next to the credentials file, 0600, from before the first request until the grant is
//! stored. A start that was killed in between is repaired by the next one: the same keys and token are granted the same again.

use std::{
    fs,
    path::{Path, PathBuf},
};

use lattice_wire::{PeerName, WgPrivateKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::{
    Failure, Kind,
    credentials::{Slot, read_private},
};

/// Keys that nobody was granted anything for yet, as far as we know.
#[derive(Serialize, Deserialize)]
pub(crate) struct Pending {
    /// Whom they were made for.
    pub(crate) name: PeerName,
    pub(crate) wireguard_private_key: WgPrivateKey,
    /// Seed of the NATS user.
    pub(crate) nats_seed: String,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.nats_seed.zeroize();
    }
}

impl Pending {
    /// The keys that an earlier start of `name` left, or new ones, which are then kept.
    pub(crate) fn load_or_make(credentials: &Path, name: &PeerName) -> Result<Self, Failure> {
        if let Some(left) = left(credentials, name) {
            tracing::info!("going on with the enrolment that was interrupted");
            return Ok(left);
        }
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| {
            Failure::new(Kind::Kernel, format!("the kernel gave no random bytes: {error}"))
        })?;
        let wireguard_private_key = WgPrivateKey::from_random(random);
        random.zeroize();
        let nats_seed =
            nkeys::KeyPair::new_user().seed().map_err(|error| Failure::new(Kind::Internal, error))?;
        let keys = Self { name: name.clone(), wireguard_private_key, nats_seed };
        Slot::reserve(&path(credentials))?.fill(&keys)?;
        Ok(keys)
    }

    /// Forgets them.
    pub(crate) fn remove(credentials: &Path) {
        let _ = fs::remove_file(path(credentials));
    }
}

/// What cannot be used is replaced, whatever is wrong with it: nothing was granted for it that is worth an error.
fn left(credentials: &Path, name: &PeerName) -> Option<Pending> {
    let text = read_private(&path(credentials)).ok().flatten()?;
    let keys: Pending = serde_json::from_str(&text).ok()?;
    (keys.name == *name && nkeys::KeyPair::from_seed(&keys.nats_seed).is_ok()).then_some(keys)
}

fn path(credentials: &Path) -> PathBuf {
    credentials.with_extension("pending")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_second_start_has_the_keys_of_the_first_until_they_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("new/c.json");
        let make = |name: &str| Pending::load_or_make(&file, &name.parse().unwrap()).unwrap();
        let (first, again) = (make("a"), make("a"));
        assert_eq!(first.wireguard_private_key, again.wireguard_private_key);
        assert_eq!(first.nats_seed, again.nats_seed);
        let kept = dir.path().join("new/c.pending");
        assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);

        let other = make("b");
        assert_ne!(first.nats_seed, other.nats_seed, "keys of another name");
        fs::set_permissions(&kept, fs::Permissions::from_mode(0o644)).unwrap();
        assert_ne!(make("b").nats_seed, other.nats_seed, "keys that others could read");
        fs::write(&kept, "{").unwrap();
        let last = make("b");
        assert_eq!(make("b").nats_seed, last.nats_seed);
        Pending::remove(&file);
        assert_eq!(fs::read_dir(dir.path().join("new")).unwrap().count(), 0);
    }
}
