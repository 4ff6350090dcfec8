//! `POST /api/v1/policies/explain`: what becomes of a flow, and which rule decides.

use std::{net::IpAddr, sync::Arc};

use axum::{Json, extract::State};
use lattice_policy::{
    Action, Compiler, Direction, NamedPolicy, Opinion, Packet, Reason, RuleSpec, explain, parse_rule,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Api, access::Caller, error::ApiError, extract::Body, policies, throttle, workspaces};
use crate::{
    app::now,
    selected::{self, Unreadable},
};

/// As many as a sandbox may be started with.
const MAX_FLAGS: usize = 256;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Question {
    /// Name or id of a workspace.
    workspace: String,
    /// Name of a peer of it.
    peer: String,
    /// The `--egress-allow` flags with which its sandbox runs.
    #[serde(default)]
    egress_allow: Vec<String>,
    #[schemars(with = "policies::Direction")]
    direction: Direction,
    protocol: Protocol,
    /// The other end.
    address: IpAddr,
    /// Of the other end (egress) or of the peer itself (ingress); without one for icmp.
    port: Option<u16>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    Tcp,
    Udp,
    Icmp,
}

/// A flow passes when every layer, and the flags, allow it.
#[derive(Serialize, JsonSchema)]
pub(super) struct Answer {
    #[schemars(with = "policies::Action")]
    action: Action,
    opinions: Vec<OpinionView>,
}

/// What one layer, or the flags, say.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Opinion")]
struct OpinionView {
    layer: String,
    #[schemars(with = "policies::Action")]
    action: Action,
    #[schemars(with = "String")]
    reason: Reason,
    /// The text of the rule that decided; null when the default did.
    rule: Option<String>,
    /// The named policy that the rule comes from.
    policy: Option<String>,
}

pub(super) async fn post(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(question): Body<Question>,
) -> Result<Json<Answer>, ApiError> {
    let packet = packet(&question)?;
    if question.egress_allow.len() > MAX_FLAGS {
        return Err(ApiError::invalid(format!("egressAllow has more than {MAX_FLAGS} rules")));
    }
    let flags: Vec<RuleSpec> = question
        .egress_allow
        .iter()
        .map(|text| parse_rule(text).map_err(|e| ApiError::invalid(e.to_string())))
        .collect::<Result<_, _>>()?;
    let workspace = workspaces::named(&api, &caller, &question.workspace).await?;
    throttle::question(&api, &caller)?;
    let snapshot = api.app.store.snapshot(&workspace.id, now()).await?;
    let members: Vec<_> = snapshot.members().map(selected::member).collect::<Result<_, _>>()?;
    let policies: Vec<NamedPolicy> =
        snapshot.policies().iter().map(selected::policy).collect::<Result<_, _>>()?;
    let receiver = members.iter().find(|member| member.name == question.peer).ok_or_else(|| {
        let shown: String = question.peer.chars().take(80).collect();
        ApiError::not_found(format!(
            "no peer is called {shown:?} in {}: list them with GET /api/v1/peers",
            workspace.name
        ))
    })?;
    let pool = snapshot.pool();
    let layers = Compiler::new(pool, &members, &policies).layers(receiver);
    let opinions = explain(&layers, &flags, pool, &packet);
    let passes = opinions.iter().all(|opinion| opinion.action == Action::Allow);
    let action = if passes { Action::Allow } else { Action::Deny };
    Ok(Json(Answer { action, opinions: opinions.into_iter().map(OpinionView::from).collect() }))
}

fn packet(question: &Question) -> Result<Packet, ApiError> {
    let proto = match (question.protocol, question.address, question.port) {
        (Protocol::Tcp, _, Some(_)) => 6,
        (Protocol::Udp, _, Some(_)) => 17,
        (Protocol::Icmp, IpAddr::V4(_), None) => 1,
        (Protocol::Icmp, IpAddr::V6(_), None) => 58,
        (Protocol::Icmp, _, Some(_)) => return Err(ApiError::invalid("icmp has no port: leave it out")),
        (_, _, None) => return Err(ApiError::invalid("port is missing")),
    };
    Ok(Packet { direction: question.direction, proto, remote: question.address, port: question.port })
}

impl From<Opinion> for OpinionView {
    fn from(opinion: Opinion) -> Self {
        let Opinion { layer, action, reason, rule, policy } = opinion;
        Self { layer, action, reason, rule, policy }
    }
}

impl From<Unreadable> for ApiError {
    fn from(error: Unreadable) -> Self {
        tracing::error!(%error, "request failed");
        Self::internal()
    }
}
