//! Where a peer is, or may be.

use std::{net::SocketAddr, time::Instant};

use lattice_wire::netmap::MAX_ENDPOINTS;

use crate::{Output, Path};

/// The ways to one peer.
pub(crate) struct Paths {
    /// The only one to use, as the interface's owner says.
    forced: Option<Path>,
    /// Where the last authentic message came from. Nothing else moves a peer.
    heard: Option<(Path, Instant)>,
    /// Where it may be, best first.
    candidates: Vec<SocketAddr>,
}

impl Paths {
    pub(crate) fn new(candidates: impl Iterator<Item = SocketAddr>) -> Self {
        Self { forced: None, heard: None, candidates: usable(candidates).collect() }
    }

    /// False when that changes nothing.
    pub(crate) fn set_candidates(&mut self, candidates: impl Iterator<Item = SocketAddr> + Clone) -> bool {
        let is_new = !usable(candidates.clone()).eq(self.candidates.iter().copied());
        if is_new {
            self.candidates = usable(candidates).collect();
        }
        is_new
    }

    /// Whether the peer was last heard of from where it is said not to be.
    pub(crate) fn has_moved(&self) -> bool {
        let remote = self.heard().and_then(|heard| heard.remote());
        remote.is_some_and(|remote| !self.candidates.contains(&remote))
    }

    /// False when that changes nothing.
    pub(crate) fn force(&mut self, path: Option<Path>) -> bool {
        std::mem::replace(&mut self.forced, path) != path
    }

    /// Takes note of where an authentic message came from.
    pub(crate) fn hear(&mut self, from: Path, now: Instant) {
        self.heard = Some((from, now));
    }

    pub(crate) fn heard(&self) -> Option<Path> {
        self.heard.map(|(path, _)| path)
    }

    pub(crate) fn last_heard(&self) -> Option<Instant> {
        self.heard.map(|(_, at)| at)
    }

    /// Where to send data.
    pub(crate) fn best(&self) -> Option<Path> {
        self.forced
            .or(self.heard.map(|(path, _)| path))
            .or_else(|| self.candidates.first().copied().map(Path::to))
    }

    /// Sends a message to where the peer is; with `search`, also to wherever else it may be. Returns how many bytes that
    /// was.
    pub(crate) fn send(&self, message: &[u8], search: bool, out: &mut impl Output) -> u64 {
        let known = self.forced.or(self.heard());
        let is_fixed = self.forced.is_some() || known.is_some() && !search;
        let candidates = if is_fixed { &[][..] } else { &self.candidates };
        let remote = known.and_then(|known| known.remote());
        let others = candidates.iter().filter(|candidate| Some(**candidate) != remote);
        let mut sent = 0;
        for to in known.into_iter().chain(others.copied().map(Path::to)) {
            out.transmit(to, message.len(), |room| room.copy_from_slice(message));
            sent += message.len() as u64;
        }
        sent
    }
}

/// A port of zero is no endpoint.
fn usable(candidates: impl Iterator<Item = SocketAddr>) -> impl Iterator<Item = SocketAddr> {
    candidates.filter(|candidate| candidate.port() != 0).take(MAX_ENDPOINTS)
}
