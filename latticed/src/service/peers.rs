//! What admitted peers ask. The peer is the one in the subject.

use std::time::Instant;

use async_nats::Message;
use lattice_wire::{
    MapRequest, MapUpdate, PeerId, Reach,
    message::{Ack, Heartbeat, Leave, Refusal, RefusalCode, RenewGrant},
    subject::{self, PeerVerb},
};
use tracing::{debug, error, info};

use super::{internal, parse, refusal, reply};
use crate::{
    app::{App, now},
    limit::RateLimiter,
    maps::{self, NoMap},
    nats::{JwtError, jwt_expiry},
    store::{peers::Endpoints, presence::Heard},
};

pub(super) async fn handle(app: &App, limiter: &RateLimiter<PeerId>, message: Message) {
    let Some((peer, verb)) = subject::parse_peer(&message.subject) else {
        return debug!(subject = %message.subject, "request on an unknown subject ignored");
    };
    let Some(to) = message.reply.filter(|to| subject::is_reply_of(&peer, to)) else {
        return debug!(%peer, "request without an inbox of its peer ignored");
    };
    if limiter.take(&peer, Instant::now()).is_err() {
        let refused = refusal(RefusalCode::RateLimited, "too many requests: wait a second");
        return reply::<Ack>(app, to, Err(refused)).await;
    }
    match verb {
        PeerVerb::Netmap => reply(app, to, map(app, &peer, &message.payload).await).await,
        PeerVerb::Heartbeat => {
            let result = match parse(&message.payload) {
                Ok(heartbeat) => heard(app, &peer, &heartbeat).await,
                Err(refusal) => Err(refusal),
            };
            reply(app, to, result).await;
        }
        PeerVerb::Renew => reply(app, to, renew(app, &peer).await).await,
        PeerVerb::Leave => {
            let result = match parse(&message.payload) {
                Ok(Leave { for_good: false }) => leave(app, &peer).await,
                Ok(Leave { for_good: true }) => resign(app, &peer).await,
                Err(refusal) => Err(refusal),
            };
            reply(app, to, result).await;
        }
        PeerVerb::Reach => reply(app, to, reach(app, &peer).await).await,
    }
}

async fn map(app: &App, peer: &PeerId, payload: &[u8]) -> Result<MapUpdate, Refusal> {
    let request = if payload.is_empty() { MapRequest::default() } else { parse(payload)? };
    maps::answer(app, peer, request).await.map_err(|error| match error {
        NoMap::Unknown => unknown(),
        NoMap::TooOften(_) => refusal(RefusalCode::RateLimited, error.to_string()),
        NoMap::Store(error) => internal(&error),
    })
}

/// More time, if the membership is limited, and a JWT that is valid as long.
async fn renew(app: &App, peer: &PeerId) -> Result<RenewGrant, Refusal> {
    let now = now();
    let renewed = app.renew(peer).await.map_err(|e| internal(&e))?.ok_or_else(unknown)?;
    let key = renewed.nats_public_key.ok_or_else(unknown)?;
    let expires_at = jwt_expiry(renewed.not_after, now);
    // Before the JWT exists: who is removed later must be known to hold one.
    app.store.set_jwt_expiry(peer, expires_at).await.map_err(|e| internal(&e))?;
    let nats_jwt = app
        .issuer
        .peer(peer, &renewed.name, &key, expires_at, now)
        .map_err(|error| unsigned(peer, &error))?;
    app.presence.heard(peer, now);
    Ok(RenewGrant { nats_jwt, not_after: renewed.not_after })
}

async fn heard(app: &App, peer: &PeerId, heartbeat: &Heartbeat) -> Result<Ack, Refusal> {
    let endpoints = Endpoints::sanitized(&heartbeat.endpoints);
    let now = now();
    match app.store.heard(peer, &endpoints, now).await.map_err(|e| internal(&e))? {
        Heard::Unknown => return Err(unknown()),
        Heard::Same => {}
        Heard::Changed(workspace) => app.maps.changed(workspace),
    }
    app.presence.heard(peer, now);
    Ok(Ack {})
}

async fn leave(app: &App, peer: &PeerId) -> Result<Ack, Refusal> {
    let workspace = app.store.leave(peer, now()).await.map_err(|e| internal(&e))?.ok_or_else(unknown)?;
    app.presence.forget(peer);
    app.maps.changed(workspace);
    info!(%peer, "peer left");
    Ok(Ack {})
}

/// The answer may meet a connection that NATS has closed already.
async fn resign(app: &App, peer: &PeerId) -> Result<Ack, Refusal> {
    if !app.remove_peer(peer).await.map_err(|e| internal(&e))? {
        return Err(unknown());
    }
    info!(%peer, "peer left for good");
    Ok(Ack {})
}

/// STUN servers and relays, and the proof to these that it is a member for now.
async fn reach(app: &App, peer: &PeerId) -> Result<Reach, Refusal> {
    let now = now();
    let Some(member) = app.store.member(peer, now).await.map_err(|e| internal(&e))? else {
        app.metrics.relay_token("refused");
        return Err(unknown());
    };
    let reach = app.servers.reach(&member, &app.issuer, now).map_err(|error| unsigned(peer, &error))?;
    if reach.relay_token.is_some() {
        app.metrics.relay_token("granted");
    }
    Ok(reach)
}

fn unsigned(peer: &PeerId, error: &JwtError) -> Refusal {
    error!(%peer, %error, "what the peer asked for cannot be signed");
    refusal(RefusalCode::Internal, "latticed failed; its log says how")
}

fn unknown() -> Refusal {
    refusal(RefusalCode::PeerUnknown, "this peer was removed: enroll again with a new token")
}
