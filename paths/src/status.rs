//! What people are told of a peer's path.

use std::time::{Duration, Instant};

use lattice_wireguard::Path;

use crate::{gather::Nat, peer::Peer, shared::Shared};

/// How things are with one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStatus {
    /// The path in use. Where WireGuard searches by itself, the direct one that packets last came by.
    pub path: Option<Path>,
    /// When it was selected; `None` if nothing was yet.
    pub since: Option<Instant>,
    /// Addresses of the peer that were checked in this search.
    pub candidates_tried: usize,
    /// Its round trip, as last measured: to the peer where it is direct, else to the relay alone.
    pub rtt: Option<Duration>,
    /// Why the path is not a direct one, for people.
    pub why_not_direct: Option<String>,
}

pub(crate) fn of(peer: &Peer, shared: &Shared) -> PathStatus {
    let session = peer.session.as_ref();
    let searched = peer.seen_direct.map(|(path, _)| path);
    let path = peer.selected.or(searched);
    let pair = session.and_then(|session| session.checks.in_use());
    let rtt = match path {
        Some(Path::Relay { relay, .. }) => shared.relays.rtt(relay),
        _ => pair.and_then(|pair| pair.rtt()),
    };
    let is_direct = path.is_some_and(|path| path.remote().is_some());
    PathStatus {
        path,
        since: peer.since,
        candidates_tried: session.map_or(0, |session| session.checks.tried()),
        rtt,
        why_not_direct: (!is_direct).then(|| obstacle(peer, shared)),
    }
}

fn obstacle(peer: &Peer, shared: &Shared) -> String {
    let Some(session) = &peer.session else {
        return "idle: a path is looked for when there is traffic".to_owned();
    };
    if shared.gather.bases().is_empty() {
        return "this host has no address to send from".to_owned();
    }
    if session.remote.is_none() {
        return match session.gave_up() {
            true => "the peer answers no signal: it is away, or older than signals".to_owned(),
            false => "waiting for the peer's signal".to_owned(),
        };
    }
    let tried = session.checks.tried();
    let progress = match session.checks.exhausted() {
        _ if tried == 0 => "the peer told no address that could be tried".to_owned(),
        true => format!("none of the peer's {tried} addresses answers"),
        false => format!("trying {tried} addresses of the peer"),
    };
    match shared.gather.nat() {
        Nat::Symmetric => format!("{progress}; the NAT here gives each destination another port (symmetric)"),
        Nat::NoAnswer => format!("{progress}; no STUN server answers either: UDP may be blocked here"),
        Nat::Unknown | Nat::Steady => progress,
    }
}
