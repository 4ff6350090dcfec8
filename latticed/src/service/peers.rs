//! What admitted peers ask. The peer is the one in the subject.

use std::time::Instant;

use async_nats::Message;
use lattice_wire::{
    PeerId,
    message::{Ack, Heartbeat, Refusal, RefusalCode},
    subject::{self, PeerVerb},
};
use tracing::{debug, info};

use super::{internal, parse, refusal, reply};
use crate::{
    app::{App, now},
    limit::RateLimiter,
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
        PeerVerb::Netmap => {
            let map = app.store.netmap(&peer, now()).await.map_err(|e| internal(&e));
            reply(app, to, map.and_then(|map| map.ok_or_else(unknown))).await;
        }
        PeerVerb::Heartbeat => {
            let result = match parse(&message.payload) {
                Ok(heartbeat) => heard(app, &peer, &heartbeat).await,
                Err(refusal) => Err(refusal),
            };
            reply(app, to, result).await;
        }
        PeerVerb::Renew => {
            let refused = refusal(RefusalCode::Malformed, "this latticed renews nothing");
            reply::<Ack>(app, to, Err(refused)).await;
        }
        PeerVerb::Leave => reply(app, to, leave(app, &peer).await).await,
    }
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

fn unknown() -> Refusal {
    refusal(RefusalCode::PeerUnknown, "this peer was removed: enroll again with a new token")
}
