//! `lattice workspace`.

use std::process::ExitCode;

use lattice_bootstrap::Failure;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    admin::Client,
    args::{Format, WorkspaceCommand},
    output,
};

const HEADINGS: [&str; 3] = ["ID", "NAME", "PREFIX"];

#[derive(Serialize, Deserialize)]
struct Workspace {
    id: String,
    name: String,
    #[serde(default)]
    prefix: String,
}

pub(crate) fn run(command: WorkspaceCommand) -> Result<ExitCode, Failure> {
    match command {
        WorkspaceCommand::Create { name, admin } => {
            let made: Workspace =
                Client::new(&admin)?.post("/api/v1/workspaces", &json!({ "name": name }))?;
            match admin.output {
                Format::Json => output::print(&json!(made).to_string()),
                Format::Table => output::table(&HEADINGS, &[row(&made)]),
            }
        }
        WorkspaceCommand::List { admin } => {
            Client::new(&admin)?.show_list(admin.output, "/api/v1/workspaces", None, &HEADINGS, row)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(workspace: &Workspace) -> Vec<String> {
    vec![workspace.id.clone(), workspace.name.clone(), workspace.prefix.clone()]
}
