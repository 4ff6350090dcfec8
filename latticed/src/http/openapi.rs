//! The OpenAPI 3.1 document, made from the table of routes and from the types of the requests and answers.
//! A copy is kept in `latticed/openapi.json`.

use std::sync::{Arc, LazyLock};

use axum::{extract::State, http::header, response::IntoResponse};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{
    Api,
    access::Access,
    error::Problem,
    extract::MAX_KEY,
    routes::{Route, table},
};

static DOCUMENT: LazyLock<String> = LazyLock::new(text);

pub(super) async fn get(State(_): State<Arc<Api>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
}

/// The document as it is kept.
fn text() -> String {
    format!("{:#}\n", document())
}

fn document() -> Value {
    // JSON Schema 2020-12 is the dialect of OpenAPI 3.1.
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let problem = generator.subschema_for::<Problem>();
    let mut paths = Map::new();
    for route in table() {
        let query = route.query.map(|schema| schema(&mut generator).to_value());
        let body = route.body.map(|schema| schema(&mut generator));
        let answer = route.answer.map(|schema| schema(&mut generator));
        let mut operation = json!({
            "operationId": operation_id(&route),
            "summary": route.summary,
            "description": who(route.access),
            "security": security(route.access),
            "responses": {
                "default": { "description": "Refused", "content": { "application/problem+json": { "schema": problem } } },
            },
        });
        let mut done = json!({ "description": "Done" });
        if let Some(schema) = answer {
            done["content"] = json!({ "application/json": { "schema": schema } });
        }
        operation["responses"][route.status.as_str()] = done;
        if let Some(schema) = body {
            operation["requestBody"] =
                json!({ "required": true, "content": { "application/json": { "schema": schema } } });
        }
        let mut parameters = parameters(route.path, query);
        if route.repeatable {
            parameters.push(json!({
                "name": "Idempotency-Key", "in": "header", "required": false,
                "description": "Chosen by the client, for one request. The same request with the same key is answered with the same peer for 24 hours, and with a fresh token in place of the one of the answer before; another request with it is refused with 422.",
                "schema": { "type": "string", "minLength": 1, "maxLength": MAX_KEY },
            }));
        }
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Lattice control plane",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {
                "apiToken": { "type": "http", "scheme": "bearer", "description": "la-…, from a login or from POST /api/v1/admin-tokens" },
                "oneTimeToken": { "type": "http", "scheme": "bearer", "description": "la-…, from the file admin-token in latticed's data directory" },
                "enrollmentToken": { "type": "http", "scheme": "bearer", "description": "lt-…, from POST /api/v1/tokens or POST /api/v1/agent-enroll" },
            },
        },
    })
}

/// `GET /api/v1/peers/{id}` is `get_peers_id`.
fn operation_id(route: &Route) -> String {
    let path = route.path.trim_start_matches("/api/v1").replace(['{', '}'], "");
    let words: Vec<&str> = path.split(['/', '-', '.']).filter(|word| !word.is_empty()).collect();
    format!("{}_{}", route.method.to_lowercase(), words.join("_"))
}

fn who(access: Access) -> String {
    match access {
        Access::Open | Access::Probe => "For everybody.".into(),
        Access::LocalOrViewer => {
            "For callers on the same host, and for API tokens of the role viewer and above that are bound to no workspace.".into()
        }
        Access::OneTime => "For the holder of the one-time admin token.".into(),
        Access::Role(role) => format!("For API tokens of the role {} and above.", role.as_str()),
        Access::Global(role) => {
            format!("For API tokens of the role {} and above that are bound to no workspace.", role.as_str())
        }
        Access::RoleOrEnrollment(role) => {
            format!("For API tokens of the role {} and above, and for enrollment tokens that belong to no peer.", role.as_str())
        }
        Access::RoleOrPeer(role) => {
            format!("For API tokens of the role {} and above, and for the token that belongs to the peer.", role.as_str())
        }
    }
}

fn security(access: Access) -> Value {
    match access {
        Access::Open | Access::Probe => json!([]),
        Access::LocalOrViewer => json!([{}, { "apiToken": [] }]),
        Access::OneTime => json!([{ "oneTimeToken": [] }]),
        Access::Role(_) | Access::Global(_) => json!([{ "apiToken": [] }]),
        Access::RoleOrEnrollment(_) | Access::RoleOrPeer(_) => {
            json!([{ "apiToken": [] }, { "enrollmentToken": [] }])
        }
    }
}

/// What stands in the path, then the fields of the query.
fn parameters(path: &str, query: Option<Value>) -> Vec<Value> {
    let in_path = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut all: Vec<Value> = in_path
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    let Some(mut query) = query else { return all };
    let required = query["required"].as_array().cloned().unwrap_or_default();
    if let Some(Value::Object(fields)) = query.get_mut("properties").map(Value::take) {
        all.extend(fields.into_iter().map(|(name, mut schema)| {
            let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            let required = required.contains(&json!(name));
            json!({ "name": name, "in": "query", "required": required, "description": description, "schema": schema })
        }));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");

    #[test]
    fn the_kept_document_is_current() {
        if std::env::var_os("LATTICE_RENEW_OPENAPI").is_some() {
            std::fs::write(KEPT, text()).unwrap();
        }
        let kept = std::fs::read_to_string(KEPT).unwrap_or_default();
        assert!(
            kept == text(),
            "openapi.json is stale: LATTICE_RENEW_OPENAPI=1 cargo test -p latticed openapi"
        );
    }

    #[test]
    fn every_route_is_described_once() {
        let document = document();
        let mut ids = std::collections::BTreeSet::new();
        for route in table() {
            let operation = &document["paths"][route.path][route.method.to_lowercase()];
            let id = operation["operationId"].as_str().unwrap().to_owned();
            assert!(ids.insert(id.clone()), "{id} twice");
            assert_eq!(operation["requestBody"].is_object(), route.body.is_some(), "{id}");
            let placeholders = route.path.matches('{').count();
            let in_path =
                operation["parameters"].as_array().into_iter().flatten().filter(|p| p["in"] == "path");
            assert_eq!(in_path.count(), placeholders, "{id}");
        }
        assert_eq!(ids.len(), table().len());
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn check(document: &Value, value: &Value) {
            match value {
                Value::Object(map) => {
                    if let Some(to) = map.get("$ref").and_then(Value::as_str) {
                        assert!(document.pointer(to.trim_start_matches('#')).is_some(), "{to}");
                    }
                    map.values().for_each(|value| check(document, value));
                }
                Value::Array(all) => all.iter().for_each(|value| check(document, value)),
                _ => {}
            }
        }
        let document = document();
        check(&document, &document);
    }
}
