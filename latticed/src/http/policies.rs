//! `/api/v1/policies`: the named policies of a workspace.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use lattice_policy::{Compiler, NamedPolicy};
use lattice_wire::WorkspaceId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Api,
    access::Caller,
    error::ApiError,
    extract::{Body, Filter, InWorkspace, Listed, Params},
    time::{rfc3339, seconds},
    workspaces,
};
use crate::{
    app::now,
    keys::random,
    selected,
    store::policies::{NewPolicy, PolicyRow},
};

/// Of one workspace. Compiling them takes time for each rule and peer, and all workspaces share it.
const MAX_POLICIES: usize = 256;
const MAX_RULES: usize = 1024;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    /// Name or id of the workspace that it is for.
    workspace: String,
    #[schemars(with = "Spec")]
    policy: NamedPolicy,
    /// After how long it ends by itself: `90s`, `15m`, `1h`, `7d`.
    ttl: Option<String>,
}

/// What a named policy says.
#[derive(JsonSchema)]
#[schemars(rename = "PolicySpec")]
#[expect(dead_code, reason = "describes lattice_policy::NamedPolicy")]
struct Spec {
    /// 1 to 63 of a-z, 0-9 and '-', unique in the workspace.
    name: String,
    /// Which peers it is for, by their labels: `role=tool,tier!=db,env,!old`; without it, all.
    #[serde(default)]
    selector: String,
    rules: Vec<RuleSpec>,
    /// For people.
    #[serde(default)]
    description: String,
}

/// A rule of a named policy.
#[derive(JsonSchema)]
#[schemars(rename = "PolicyRule")]
#[expect(dead_code, reason = "describes lattice_policy::PolicyRule")]
struct RuleSpec {
    direction: Direction,
    action: Action,
    /// `[proto:]target[:ports]`; the target is a network, a selector in braces, as in `tcp:{role=tool}:8080`, or, in egress, a
    /// DNS name, as in `*.example.com:443`.
    rule: String,
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "describes lattice_policy::Direction")]
pub(super) enum Direction {
    Egress,
    Ingress,
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "describes lattice_policy::Action")]
pub(super) enum Action {
    Allow,
    Deny,
}

/// A named policy.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct View {
    id: String,
    #[schemars(with = "String")]
    workspace: WorkspaceId,
    #[schemars(with = "Spec")]
    policy: Value,
    created_at: String,
    expires_at: Option<String>,
}

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(request): Body<Create>,
) -> Result<(StatusCode, Json<View>), ApiError> {
    let workspace = workspaces::named(&api, &caller, &request.workspace).await?.id;
    let now = now();
    let ttl = request.ttl.as_deref().map(|ttl| seconds("ttl", ttl)).transpose()?;
    let name = request.policy.name.clone();
    let spec = serde_json::to_string(&request.policy).map_err(|_| ApiError::internal())?;
    room(&api, &workspace, request.policy, now).await?;
    let id = format!("pol-{}", data_encoding::BASE32_NOPAD.encode(&random::<10>()).to_ascii_lowercase());
    let new = NewPolicy {
        id,
        workspace: workspace.clone(),
        name: name.clone(),
        spec,
        expires_at: ttl.map(|ttl| now + ttl),
    };
    let row = api.app.store.put_policy(new, now).await?.ok_or_else(|| {
        ApiError::conflict(format!(
            "there is a policy {name:?} already: remove it first, or choose another name"
        ))
    })?;
    api.app.maps.changed(workspace.clone());
    api.event("policy.created", Some(&workspace), &caller, name).await;
    Ok((StatusCode::CREATED, Json(row.into())))
}

/// Refuses a policy that would be one too many, or would deny everything to a peer because it would have too many rules.
async fn room(api: &Api, workspace: &WorkspaceId, new: NamedPolicy, now: i64) -> Result<(), ApiError> {
    let snapshot = api.app.store.snapshot(workspace, now).await?;
    let mut policies: Vec<NamedPolicy> =
        snapshot.policies().iter().map(selected::policy).collect::<Result<_, _>>()?;
    if policies.iter().any(|policy| policy.name == new.name) {
        // Its name is taken, and that is what is said of it.
        return Ok(());
    }
    policies.push(new);
    let rules: usize = policies.iter().map(|policy| policy.rules.len()).sum();
    if policies.len() > MAX_POLICIES || rules > MAX_RULES {
        return Err(ApiError::conflict(format!(
            "a workspace has at most {MAX_POLICIES} policies of {MAX_RULES} rules together: remove some first"
        )));
    }
    let members: Vec<_> = snapshot.members().map(selected::member).collect::<Result<_, _>>()?;
    let compiler = Compiler::new(snapshot.overlay().pool(), &members, &policies);
    match members.iter().find(|member| compiler.is_too_much(member)) {
        None => Ok(()),
        Some(member) => Err(ApiError::conflict(format!(
            "the policies that select the peer {} would have more than {} rules, one for each peer that a rule names, and deny it \
             everything: name networks instead",
            member.name,
            lattice_policy::layer::MAX_RULES
        ))),
    }
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Params(filter): Params<Filter>,
) -> Result<Json<Listed<View>>, ApiError> {
    let (workspace, page) = filter.checked()?;
    let workspace = workspaces::filter(&api, &caller, workspace.as_deref()).await?;
    let rows = api.app.store.list_policies(workspace.as_ref(), &page, now()).await?;
    Ok(Listed::of(rows, &page, |row| row.id.clone()))
}

pub(super) async fn show(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(name): Path<String>,
    Params(place): Params<InWorkspace>,
) -> Result<Json<View>, ApiError> {
    let workspace = workspaces::named(&api, &caller, &place.workspace).await?.id;
    let row = api.app.store.policy(&workspace, &name, now()).await?.ok_or_else(unknown)?;
    Ok(Json(row.into()))
}

pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(name): Path<String>,
    Params(place): Params<InWorkspace>,
) -> Result<StatusCode, ApiError> {
    let workspace = workspaces::named(&api, &caller, &place.workspace).await?.id;
    if !api.app.store.remove_policy(&workspace, &name).await? {
        return Err(unknown());
    }
    api.app.maps.changed(workspace.clone());
    api.event("policy.removed", Some(&workspace), &caller, name).await;
    Ok(StatusCode::NO_CONTENT)
}

fn unknown() -> ApiError {
    ApiError::not_found("no such policy: list them with GET /api/v1/policies")
}

impl From<PolicyRow> for View {
    fn from(row: PolicyRow) -> Self {
        Self {
            id: row.id,
            workspace: row.workspace,
            policy: serde_json::from_str(&row.spec).unwrap_or_default(),
            created_at: rfc3339(row.created_at),
            expires_at: row.expires_at.map(rfc3339),
        }
    }
}
