//! `POST /api/v1/agent-enroll`: an orchestrator enrols an agent that has its WireGuard key already, or holds a place for
//! one that will make its keys when it starts.

mod wg_quick;

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State, http::StatusCode};
use lattice_policy::{Labels, Preset, overlay};
use lattice_wire::{PeerId, PeerName, Token, WgPublicKey, WorkspaceId, message::PeerKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    Api,
    access::Caller,
    error::ApiError,
    extract::{Body, Key},
    time::{LONGEST, rfc3339, seconds},
    tokens::PresetName,
    workspaces,
};
use crate::{
    app::now,
    keys::random,
    maps,
    store::{
        enroll::EnrollRefused,
        peers::Endpoints,
        repeat::Repeat,
        reserve::{NewReservation, NewStatic, OwnToken},
        tokens::{TokenRefused, TokenRow},
        workspaces::Workspace,
    },
};

/// Of the token that belongs to the peer. It opens nothing once the peer is gone, which is what ends it.
const OWN_TOKEN_SECS: i64 = LONGEST;

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Enroll {
    /// 1 to 63 of a-z, 0-9 and '-', unique in the workspace.
    agent_name: String,
    /// What kind of agent it is. Becomes the label `agent-type` when an API token enrols it: policies trust labels, so who holds
    /// an enrollment token does not choose its own.
    agent_type: Option<String>,
    /// Name or id of a workspace.
    workspace_id: String,
    /// How long the peer lives unless it is renewed: `90s`, `15m`, `1h`, `7d`. Without it, it has no end; a place whose agent has not come
    /// is kept for so long, or a day.
    ttl: Option<String>,
    #[schemars(with = "Option<PresetName>")]
    policy_preset: Option<Preset>,
    /// WireGuard public key in base64. With it the peer is a member at once, without a connection to NATS.
    #[schemars(with = "Option<String>")]
    public_key: Option<WgPublicKey>,
}

/// An agent's place in the overlay.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Enrolled {
    #[schemars(with = "String")]
    peer_id: PeerId,
    /// Its address, as a /32.
    #[serde(rename = "overlayIP")]
    overlay_ip: String,
    /// Its IPv6 address, as a /128.
    #[serde(rename = "overlayIPv6")]
    overlay_ipv6: String,
    /// Opens GET, DELETE and renew of this peer; without a `publicKey`, it also admits it, once. Shown this once.
    enrollment_token: String,
    /// For wg-quick, without the private key; null without a `publicKey`.
    wireguard_config: Option<String>,
    /// When it ends unless it is renewed; of a place without a `ttl`, until when its agent may take it. Null: it has no end.
    expires_at: Option<String>,
}

pub(super) async fn post(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Key(key): Key,
    Body(request): Body<Enroll>,
) -> Result<(StatusCode, Json<Enrolled>), ApiError> {
    let result = enroll(&api, &caller, key, request).await;
    api.app.metrics.enrolment(if result.is_ok() { "granted" } else { "refused" });
    Ok((StatusCode::CREATED, Json(result?)))
}

async fn enroll(
    api: &Api,
    caller: &Caller,
    key: Option<String>,
    request: Enroll,
) -> Result<Enrolled, ApiError> {
    let repeat = key.map(|key| repeat(caller, key, &request)).transpose()?;
    let name: PeerName = request.agent_name.parse().map_err(|e| ApiError::invalid(format!("{e}")))?;
    let Workspace { id: workspace, prefix, .. } =
        workspaces::named(api, caller, &request.workspace_id).await?;
    let (token, cap) = match caller {
        Caller::Enrollment(pair) => (Some(&pair.0), Some(&pair.1)),
        _ => (None, None),
    };
    let asked = request.ttl.as_deref().map(|ttl| seconds("ttl", ttl)).transpose()?;
    let ttl = capped_ttl(asked, cap)?;
    let (id, now) = (PeerId::from_random(random()), now());
    let place = NewReservation {
        id,
        workspace: workspace.clone(),
        name,
        kind: PeerKind::Sandbox,
        preset: capped_preset(request.policy_preset, cap)?,
        labels: labels(request.agent_type.as_deref(), token.is_none())?,
        agent_type: request.agent_type,
        ttl,
    };
    let (place_name, reserved) = (place.name.clone(), request.public_key.is_none());
    let own = Token::from_random(random(), random());
    let belongs =
        OwnToken { token: own.clone(), expires_at: now + OWN_TOKEN_SECS, created_by: caller.actor() };
    let admitted = match request.public_key {
        Some(wireguard_public_key) => {
            let new = NewStatic { peer: place, wireguard_public_key, endpoints: Endpoints::default() };
            api.app.store.admit_static(&new, token, belongs, repeat.as_ref(), now).await?
        }
        None => api.app.store.reserve(&place, token, belongs, repeat.as_ref(), now).await?,
    };
    let admitted = match admitted {
        Ok(admitted) => admitted,
        Err(refused) => return Err(refuse(api, caller, &workspace, &refused).await),
    };
    let id = admitted.peer;
    let again = if admitted.again { ", again: the token of the first answer is revoked" } else { "" };
    if !admitted.again {
        api.app.maps.changed(workspace.clone());
    }
    api.event("peer.enrolled", Some(&workspace), caller, format!("{id} ({place_name}){again}")).await;
    let map = match reserved {
        true => None,
        false => maps::whole(&api.app, &workspace, &id).await?,
    };
    Ok(Enrolled {
        peer_id: id,
        overlay_ip: format!("{}/32", admitted.address),
        overlay_ipv6: format!("{}/128", overlay::in_prefix(prefix.0, admitted.address)),
        enrollment_token: own.expose(),
        wireguard_config: map.map(|map| wg_quick::text(&map)),
        expires_at: admitted.not_after.map(rfc3339),
    })
}

/// The request, as a client may send it again.
fn repeat(caller: &Caller, key: String, request: &Enroll) -> Result<Repeat, ApiError> {
    let request = serde_json::to_vec(request).map_err(|error| {
        tracing::error!(%error, "request failed");
        ApiError::internal()
    })?;
    Ok(Repeat { caller: caller.actor(), key, request_hash: Sha256::digest(request).into() })
}

/// A token's preset is a cap: who holds it may not choose another.
fn capped_preset(asked: Option<Preset>, cap: Option<&TokenRow>) -> Result<Option<String>, ApiError> {
    let asked = asked.map(|preset| preset.to_string());
    match (asked, cap.and_then(|token| token.preset.clone())) {
        (Some(asked), Some(own)) if asked != own => Err(ApiError::forbidden(format!(
            "this enrollment token is for the preset {own}: ask for another token"
        ))),
        (asked, own) => Ok(own.or(asked)),
    }
}

/// A token's time for peers is the most that its holder may ask for, and what a peer gets that asks for none.
fn capped_ttl(asked: Option<i64>, cap: Option<&TokenRow>) -> Result<Option<i64>, ApiError> {
    match (asked, cap.and_then(|token| token.peer_ttl)) {
        (Some(asked), Some(most)) if asked > most => Err(ApiError::forbidden(format!(
            "this enrollment token is for peers of at most {most}s: ask for less"
        ))),
        (asked, most) => Ok(asked.or(most)),
    }
}

fn labels(agent_type: Option<&str>, trusted: bool) -> Result<BTreeMap<String, String>, ApiError> {
    let mut labels = Labels::default();
    if let Some(agent_type) = agent_type {
        labels.insert("agent-type", agent_type).map_err(|e| ApiError::invalid(format!("agentType: {e}")))?;
    }
    Ok(if trusted { labels.into() } else { BTreeMap::new() })
}

async fn refuse(api: &Api, caller: &Caller, workspace: &WorkspaceId, refused: &EnrollRefused) -> ApiError {
    let detail = refused.to_string();
    match refused {
        EnrollRefused::Token(TokenRefused::Used) => {
            if let Caller::Enrollment(token) = caller {
                api.app.replayed(token.0.id(), Some(workspace), detail.clone()).await;
            }
            ApiError::new(StatusCode::CONFLICT, "token_used", detail)
        }
        EnrollRefused::Token(_) => ApiError::unauthorized(detail),
        EnrollRefused::Prefix(_)
        | EnrollRefused::Preset(_)
        | EnrollRefused::Reserved(_)
        | EnrollRefused::NotReserved
        | EnrollRefused::NoPeer => ApiError::forbidden(detail),
        EnrollRefused::NameTaken(_) => ApiError::new(StatusCode::CONFLICT, "name_taken", detail),
        EnrollRefused::OtherRequest => {
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail)
        }
        EnrollRefused::Gone => ApiError::new(StatusCode::CONFLICT, "peer_gone", detail),
        EnrollRefused::KeyTaken => ApiError::new(StatusCode::CONFLICT, "key_taken", detail),
        EnrollRefused::PoolExhausted { .. } | EnrollRefused::WorkspaceFull => ApiError::unavailable(detail),
    }
}
