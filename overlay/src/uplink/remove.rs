//! Takes uplinks away: one's own at its end, and those whose sandbox was killed.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use super::{
    UplinkError, UplinkId,
    forwarding::{self, Version},
    nft::Nft,
    ruleset::{self, Opened},
};
use crate::{LinkError, Netns, link};

/// Each holder needs some tens of milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_millis(10);

pub(super) type Lock = Flock<std::fs::File>;

/// Takes the lock of an underlay; the kernel gives it back when its holder dies.
pub(super) fn lock(path: &Path) -> Result<Lock, UplinkError> {
    let fail = |source: io::Error| UplinkError::Lock { path: path.into(), source };
    let open = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.custom_flags(libc::O_NOFOLLOW).open(path)
    };
    let mut file = open().map_err(fail)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK)) if Instant::now() < deadline => file = back,
            Err((_, errno)) => return Err(fail(errno.into())),
        }
        thread::sleep(RETRY);
    }
}

/// Removes what is left of the uplink `id` and of those whose link is gone, and restores the forwarding that was theirs.
///
/// # Errors
/// What could not be removed; it can be tried again.
pub fn remove(underlay: &Netns, id: UplinkId, lock_file: &Path) -> Result<(), UplinkError> {
    let nft = Nft::find()?;
    let _lock = lock(lock_file)?;
    remove_locked(underlay, id, &nft)
}

/// The uplinks of a namespace, by their tables.
pub(super) fn listed(underlay: &Netns, nft: &Nft) -> Result<BTreeMap<UplinkId, Opened>, UplinkError> {
    Ok(ruleset::parse(&nft.ask(underlay, &["list", "sets", "inet"], "list the uplinks there are")?))
}

/// Traffic ends first and the rules go last: at no time does a link forward without them.
pub(super) fn remove_locked(underlay: &Netns, id: UplinkId, nft: &Nft) -> Result<(), UplinkError> {
    match link::delete(underlay, &id.link()) {
        Ok(()) | Err(LinkError::NotFound(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let links = link::links(underlay)?;
    let is_live = |other: &UplinkId| *other != id && links.iter().any(|link| link.name == other.link());
    let (live, dead): (BTreeMap<_, _>, BTreeMap<_, _>) =
        listed(underlay, nft)?.into_iter().partition(|(other, _)| is_live(other));
    for version in [Version::V4, Version::V6] {
        let needed = |link: &String| live.values().any(|opened| opened.of(version).contains(link));
        let left = dead.values().flat_map(|opened| opened.of(version));
        for link in left.filter(|link| !needed(link)) {
            forwarding::set(underlay, version, link, false)?;
        }
    }
    if dead.is_empty() {
        return Ok(());
    }
    let script: String = dead.keys().map(|other| ruleset::removal(*other)).collect();
    nft.apply(underlay, &script, "remove the rules of an uplink")
}
