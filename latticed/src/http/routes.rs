//! The table of routes: the router and the OpenAPI document are both made from it, so there is no route without a
//! decision about who may use it, and none that is not described.

use std::sync::Arc;

use axum::{
    Router,
    handler::Handler,
    http::StatusCode,
    middleware,
    routing::{self, MethodRouter},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::{
    Api,
    access::Access,
    admin_tokens, agent_enroll, auth, events, explain,
    extract::{Filter, InWorkspace, Listed, Page},
    health, labels, login, metrics, openapi, peers, policies, signaling, tokens, workspaces,
};
use crate::store::admin_tokens::Role::{Admin, Operator, Viewer};

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// One method of one path.
pub(super) struct Route {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) access: Access,
    pub(super) summary: &'static str,
    /// Whether it takes an `Idempotency-Key`.
    pub(super) repeatable: bool,
    pub(super) query: Option<SchemaOf>,
    pub(super) body: Option<SchemaOf>,
    pub(super) status: StatusCode,
    pub(super) answer: Option<SchemaOf>,
    handler: MethodRouter<Arc<Api>>,
}

/// Every route.
pub(super) fn table() -> Vec<Route> {
    use Access::{Global, LocalOrViewer, OneTime, Open, Probe, Role, RoleOrEnrollment, RoleOrPeer};
    vec![
        get("/healthz", Probe, "Whether latticed lives", health::live).answers::<health::Health>(),
        get("/readyz", Probe, "Whether a peer could enrol now: the database and NATS answer", health::ready)
            .answers::<health::Health>(),
        get("/metrics", LocalOrViewer, "Metrics in the text format of Prometheus", metrics::get),
        get("/api/v1/openapi.json", Open, "This document", openapi::get),
        get(
            "/api/v1/ca",
            Open,
            "The certificate of the authority that certifies this server, in PEM",
            signaling::ca,
        ),
        get("/api/v1/signaling", Open, "Where NATS is, and a user for one enrolment", signaling::get),
        get(
            "/api/v1/relay-key",
            Open,
            "Who signs the tokens that peers show to relays",
            signaling::relay_key,
        )
        .answers::<signaling::RelayKeys>(),
        post(
            "/api/v1/login",
            OneTime,
            "Consume the one-time admin token; the API token is shown this once",
            login::post,
        )
        .takes::<login::Login>()
        .creates::<admin_tokens::Created>(),
        get("/api/v1/whoami", Role(Viewer), "Whose API token this is", login::whoami)
            .answers::<admin_tokens::View>(),
        get("/api/v1/admin-tokens", Role(Admin), "List API tokens", admin_tokens::list)
            .asks::<Page>()
            .answers::<Listed<admin_tokens::View>>(),
        post("/api/v1/admin-tokens", Role(Admin), "Make an API token, shown this once", admin_tokens::create)
            .takes::<admin_tokens::Create>()
            .creates::<admin_tokens::Created>(),
        delete(
            "/api/v1/admin-tokens/{id}",
            Role(Viewer),
            "Revoke an API token: the own one, or as admin any",
            admin_tokens::revoke,
        ),
        get("/api/v1/workspaces", Role(Viewer), "List workspaces", workspaces::list)
            .asks::<Page>()
            .answers::<Listed<workspaces::View>>(),
        post("/api/v1/workspaces", Global(Admin), "Make a workspace", workspaces::create)
            .takes::<workspaces::Create>()
            .creates::<workspaces::View>(),
        get("/api/v1/tokens", Role(Viewer), "List enrollment tokens", tokens::list)
            .asks::<Filter>()
            .answers::<Listed<tokens::View>>(),
        post("/api/v1/tokens", Role(Operator), "Make an enrollment token, shown this once", tokens::create)
            .takes::<tokens::Create>()
            .creates::<tokens::Created>(),
        get("/api/v1/tokens/{id}", Role(Viewer), "Show an enrollment token", tokens::show)
            .answers::<tokens::View>(),
        delete("/api/v1/tokens/{id}", Role(Operator), "Revoke an enrollment token", tokens::revoke),
        post(
            "/api/v1/agent-enroll",
            RoleOrEnrollment(Operator),
            "Enrol an agent, or reserve its place",
            agent_enroll::post,
        )
        .repeatable()
        .takes::<agent_enroll::Enroll>()
        .creates::<agent_enroll::Enrolled>(),
        get("/api/v1/peers", Role(Viewer), "List peers", peers::list)
            .asks::<Filter>()
            .answers::<Listed<peers::View>>(),
        get("/api/v1/peers/{id}", RoleOrPeer(Viewer), "Show a peer", peers::show).answers::<peers::View>(),
        delete("/api/v1/peers/{id}", RoleOrPeer(Operator), "Remove a peer", peers::remove),
        post("/api/v1/peers/{id}/renew", RoleOrPeer(Operator), "Let a peer's time begin anew", peers::renew)
            .answers::<peers::Renewed>(),
        put("/api/v1/peers/{id}/labels", Role(Operator), "Set a peer's labels", labels::put)
            .takes::<labels::Put>()
            .answers::<peers::View>(),
        get("/api/v1/policies", Role(Viewer), "List named policies", policies::list)
            .asks::<Filter>()
            .answers::<Listed<policies::View>>(),
        post("/api/v1/policies", Role(Operator), "Make a named policy", policies::create)
            .takes::<policies::Create>()
            .creates::<policies::View>(),
        get("/api/v1/policies/{name}", Role(Viewer), "Show a named policy", policies::show)
            .asks::<InWorkspace>()
            .answers::<policies::View>(),
        delete("/api/v1/policies/{name}", Role(Operator), "Remove a named policy", policies::remove)
            .asks::<InWorkspace>(),
        post(
            "/api/v1/policies/explain",
            Role(Viewer),
            "What becomes of a flow, and which rule decides",
            explain::post,
        )
        .takes::<explain::Question>()
        .answers::<explain::Answer>(),
        get("/api/v1/events", Role(Admin), "List security events, newest first", events::list)
            .asks::<Filter>()
            .answers::<Listed<events::View>>(),
    ]
}

/// The router of the whole table.
pub(super) fn router(api: &Arc<Api>) -> Router<Arc<Api>> {
    table().into_iter().fold(Router::new(), |router, route| {
        let Route { method, path, access, .. } = route;
        let post = auth::Post { api: Arc::clone(api), method, path, access };
        router.route(path, route.handler.route_layer(middleware::from_fn_with_state(post, auth::guard)))
    })
}

impl Route {
    fn new(
        method: &'static str,
        path: &'static str,
        access: Access,
        summary: &'static str,
        status: StatusCode,
        handler: MethodRouter<Arc<Api>>,
    ) -> Self {
        Self {
            method,
            path,
            access,
            summary,
            repeatable: false,
            query: None,
            body: None,
            status,
            answer: None,
            handler,
        }
    }

    fn asks<T: JsonSchema>(mut self) -> Self {
        self.query = Some(|generator| T::json_schema(generator));
        self
    }

    fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    fn takes<T: JsonSchema>(mut self) -> Self {
        self.body = Some(|generator| generator.subschema_for::<T>());
        self
    }

    fn answers<T: JsonSchema>(mut self) -> Self {
        self.answer = Some(|generator| generator.subschema_for::<T>());
        self
    }

    fn creates<T: JsonSchema>(mut self) -> Self {
        self.status = StatusCode::CREATED;
        self.answers::<T>()
    }
}

fn get<H, T>(path: &'static str, access: Access, summary: &'static str, handler: H) -> Route
where
    H: Handler<T, Arc<Api>>,
    T: 'static,
{
    Route::new("GET", path, access, summary, StatusCode::OK, routing::get(handler))
}

fn post<H, T>(path: &'static str, access: Access, summary: &'static str, handler: H) -> Route
where
    H: Handler<T, Arc<Api>>,
    T: 'static,
{
    Route::new("POST", path, access, summary, StatusCode::OK, routing::post(handler))
}

fn put<H, T>(path: &'static str, access: Access, summary: &'static str, handler: H) -> Route
where
    H: Handler<T, Arc<Api>>,
    T: 'static,
{
    Route::new("PUT", path, access, summary, StatusCode::OK, routing::put(handler))
}

fn delete<H, T>(path: &'static str, access: Access, summary: &'static str, handler: H) -> Route
where
    H: Handler<T, Arc<Api>>,
    T: 'static,
{
    Route::new("DELETE", path, access, summary, StatusCode::NO_CONTENT, routing::delete(handler))
}
