//! `POST /api/v1/policies/explain`: what becomes of a flow, and which rule decides.

use std::{net::IpAddr, sync::Arc};

use axum::{Json, extract::State};
use lattice_policy::{
    Action, Compiler, Direction, NamePattern, NamedFlow, NamedPolicy, Opinion, Packet, Proto, Reason,
    RuleSpec, effective, evaluate, explain, explain_name, parse_rule,
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
    /// The other end, by address.
    address: Option<IpAddr>,
    /// The other end, by DNS name; for egress, and instead of the address.
    name: Option<String>,
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

/// What is asked about.
enum Flow {
    ToAddress(Packet),
    ToName(NamedFlow),
}

/// A flow passes when every layer, and the flags, allow it; one to a name when the sandbox's resolver permits the name too.
#[derive(Serialize, JsonSchema)]
pub(super) struct Answer {
    #[schemars(with = "policies::Action")]
    action: Action,
    /// As the flow record will say it.
    #[schemars(with = "String")]
    reason: Reason,
    /// Likewise: what is left of the rules that allow the flow, and where it comes from; null when no rule decides.
    rule: Option<String>,
    /// Of the map that the answer is about. A sandbox that has it enforces what is said here.
    generation: u64,
    opinions: Vec<OpinionView>,
}

/// What one layer, the flags, or for a name the resolver, say.
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
    let flow = flow(&question)?;
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
    let overlay = snapshot.overlay();
    let layers = Compiler::new(overlay.pool(), &members, &policies).layers(receiver);
    let (opinions, (action, reason, rule)) = match flow {
        Flow::ToAddress(packet) => {
            let opinions = explain(&layers, &flags, overlay, &packet);
            // A sandbox to which this is too much denies everything.
            let verdict = effective(1, &layers, &flags, overlay).map_or(
                (Action::Deny, Reason::NoPolicy, None),
                |policy| {
                    let verdict = evaluate(&policy, &packet);
                    let rule = policy.rule(verdict.rule).map(|rule| rule.text.clone());
                    (verdict.action, verdict.reason, rule)
                },
            );
            (opinions, verdict)
        }
        Flow::ToName(flow) => {
            let opinions = explain_name(&layers, &flags, overlay, &flow);
            // The resolver, which knows all of them, speaks last.
            let denies = opinions.iter().rev().find(|opinion| opinion.action == Action::Deny);
            let verdict = denies
                .or(opinions.last())
                .map_or((Action::Deny, Reason::NoPolicy, None), |o| (o.action, o.reason, o.rule.clone()));
            (opinions, verdict)
        }
    };
    let opinions = opinions.into_iter().map(OpinionView::from).collect();
    Ok(Json(Answer { action, reason, rule, generation: snapshot.generation(), opinions }))
}

fn flow(question: &Question) -> Result<Flow, ApiError> {
    let Question { direction, protocol, port, .. } = *question;
    match (protocol, port) {
        (Protocol::Icmp, Some(_)) => return Err(ApiError::invalid("icmp has no port: leave it out")),
        (Protocol::Tcp | Protocol::Udp, None) => return Err(ApiError::invalid("port is missing")),
        _ => {}
    }
    match (question.address, &question.name) {
        (Some(remote), None) => {
            Ok(Flow::ToAddress(Packet { direction, proto: protocol.number(remote), remote, port }))
        }
        (None, Some(name)) if direction == Direction::Egress => {
            let name: NamePattern =
                name.parse().map_err(|e| ApiError::invalid(format!("invalid name: {e}")))?;
            if name.is_wildcard() {
                return Err(ApiError::invalid("name is a wildcard: give one name that it means"));
            }
            Ok(Flow::ToName(NamedFlow { name, proto: protocol.into(), port }))
        }
        (None, Some(_)) => Err(ApiError::invalid("name is for egress: ingress comes from addresses")),
        _ => Err(ApiError::invalid("give either address or name")),
    }
}

impl Protocol {
    /// Its IP protocol number in packets to or from `remote`.
    fn number(self, remote: IpAddr) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Icmp if remote.is_ipv4() => 1,
            Self::Icmp => 58,
        }
    }
}

impl From<Protocol> for Proto {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
            Protocol::Icmp => Self::Icmp,
        }
    }
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
