//! `lattice admin-token`.

use std::process::ExitCode;

use clap::ValueEnum as _;
use lattice_bootstrap::Failure;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    admin::{Client, segment},
    args::{AdminTokenCommand, Format, Role},
    output,
};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AdminToken {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    name: String,
    role: String,
    workspace: Option<String>,
    one_time: bool,
    expires_at: Option<String>,
    revoked: bool,
}

pub(crate) fn run(command: AdminTokenCommand) -> Result<ExitCode, Failure> {
    match command {
        AdminTokenCommand::Create { name, role, workspace, ttl, admin } => {
            let body = json!({ "name": name, "role": word(role), "workspace": workspace, "ttl": ttl });
            let made: AdminToken = Client::new(&admin)?.post("/api/v1/admin-tokens", &body)?;
            match (admin.output, &made.token) {
                (Format::Table, Some(token)) => output::print(token),
                _ => output::print(&json!(made).to_string()),
            }
        }
        AdminTokenCommand::List { admin } => {
            let headings = ["ID", "NAME", "ROLE", "WORKSPACE", "EXPIRES", "STATE"];
            Client::new(&admin)?.show_list(admin.output, "/api/v1/admin-tokens", None, &headings, row)?;
        }
        AdminTokenCommand::Revoke { id, admin } => {
            Client::new(&admin)?.delete(&format!("/api/v1/admin-tokens/{}", segment(&id)?))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(token: &AdminToken) -> Vec<String> {
    let state = match (token.revoked, token.one_time) {
        (true, true) => "used",
        (true, false) => "revoked",
        (false, true) => "one-time",
        (false, false) => "open",
    };
    vec![
        token.id.clone(),
        token.name.clone(),
        token.role.clone(),
        token.workspace.clone().unwrap_or_else(|| "all".into()),
        token.expires_at.clone().unwrap_or_else(|| "never".into()),
        state.into(),
    ]
}

fn word(role: Role) -> String {
    role.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
