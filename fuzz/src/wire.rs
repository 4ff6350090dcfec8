//! What comes over NATS.

use std::collections::{BTreeMap, BTreeSet};

use lattice_wire::{
    Applied, MapDelta, MapRequest, MapUpdate, NetMap, PeerId, Reach,
    message::{Ack, EnrollGrant, EnrollRequest, Heartbeat, RenewGrant, Reply, Signaling},
    netmap::MAX_PEERS,
    subject,
};

use crate::json::read;

/// A request to join, and what leads there.
pub(crate) fn enrolment(bytes: &[u8]) -> bool {
    if let Some(request) = read::<EnrollRequest>(bytes) {
        let signed = request.signed_bytes();
        assert!(
            signed.len() > request.name.as_str().len() + request.token.len() + request.nats_public_key.len()
        );
        return true;
    }
    read::<Signaling>(bytes)
        .is_some_and(|signaling| signaling.nats_tls.is_none_or(|trust| trust.client_config().is_ok()))
}

/// What a living peer sends.
pub(crate) fn heartbeat(bytes: &[u8]) -> bool {
    read::<Heartbeat>(bytes).is_some() | read::<MapRequest>(bytes).is_some()
}

/// What latticed answers to enrolment, heartbeat, renewal and leave.
pub(crate) fn replies(bytes: &[u8]) -> bool {
    read::<Reply<EnrollGrant>>(bytes).is_some()
        | read::<Reply<RenewGrant>>(bytes).is_some()
        | read::<Reply<Ack>>(bytes).is_some()
        | read::<Reply<Reach>>(bytes).is_some()
}

/// A map and, in the line below, an update of it; or an update alone.
pub(crate) fn map(bytes: &[u8]) -> bool {
    let Some(newline) = bytes.iter().position(|byte| *byte == b'\n') else {
        return read::<Reply<MapUpdate>>(bytes).is_some() | read::<MapUpdate>(bytes).is_some();
    };
    let (Some(have), Some(update)) =
        (read::<NetMap>(&bytes[..newline]), read::<MapUpdate>(&bytes[newline + 1..]))
    else {
        return false;
    };
    let MapUpdate::Delta(delta) = update else { return true };
    applied(have, &delta)
}

fn applied(mut have: NetMap, delta: &MapDelta) -> bool {
    let before = have.clone();
    if have.apply(delta.clone()) != Applied::Newer {
        assert_eq!(have, before, "an update that was not applied changed something");
        return false;
    }
    assert!(delta.since <= before.generation && before.generation < delta.generation);
    assert_eq!((have.generation, have.not_after), (delta.generation, delta.not_after));
    assert_eq!(
        (&have.peer, &have.workspace, have.address),
        (&before.peer, &before.workspace, before.address)
    );
    assert_eq!(have.policy, delta.policy.clone().or(before.policy));
    assert!(have.peers.len() <= MAX_PEERS);
    // The last one said counts.
    let mut changed: BTreeMap<_, _> = delta.changed.iter().map(|peer| (&peer.id, peer)).collect();
    changed.remove(&have.peer);
    let now: BTreeSet<&PeerId> = have.peers.iter().map(|peer| &peer.id).collect();
    for peer in changed.values() {
        assert!(have.peers.contains(peer), "{:?} is not as the update says", peer.id);
    }
    for id in delta.removed.iter().filter(|id| !changed.contains_key(id)) {
        assert!(!now.contains(id), "{id:?} was removed and is there");
    }
    assert_eq!(have.clone().apply(delta.clone()), Applied::Same);
    true
}

/// Subjects of requests and replies, which their senders choose.
pub(crate) fn subject(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let request = subject::parse_peer(text);
    if let Some((peer, verb)) = &request {
        assert_eq!(subject::peer(peer, *verb), text);
    }
    let signal = subject::parse_signal(text);
    if let Some((to, from)) = &signal {
        assert_eq!(subject::signal(to, from), text);
    }
    let peer = PeerId::from_random([1; 10]);
    let is_reply = subject::is_reply_of(&peer, text);
    let nonce = subject::enroll_nonce(text);
    if is_reply || nonce.is_some() {
        assert!(!text.contains(|c: char| matches!(c, '*' | '>') || c.is_whitespace() || c.is_control()));
    }
    if is_reply {
        assert!(text.starts_with(&format!("{}.", subject::inbox(&peer))));
    }
    if let Some(nonce) = nonce {
        assert!(text.starts_with(&format!("{}.", subject::bootstrap_inbox(nonce))));
    }
    request.is_some() || signal.is_some() || is_reply || nonce.is_some()
}
