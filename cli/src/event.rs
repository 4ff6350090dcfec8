//! `lattice event`.

use std::process::ExitCode;

use lattice_bootstrap::Failure;
use serde::{Deserialize, Serialize};

use crate::{admin::Client, args::EventCommand};

#[derive(Serialize, Deserialize)]
struct Event {
    seq: i64,
    at: String,
    workspace: Option<String>,
    kind: String,
    actor: String,
    detail: String,
}

pub(crate) fn run(command: EventCommand) -> Result<ExitCode, Failure> {
    let EventCommand::List { workspace, admin } = command;
    let headings = ["AT", "KIND", "ACTOR", "WORKSPACE", "DETAIL"];
    Client::new(&admin)?.show_list(
        admin.output,
        "/api/v1/events",
        workspace.as_deref(),
        &headings,
        |event: &Event| {
            vec![
                event.at.clone(),
                event.kind.clone(),
                event.actor.clone(),
                event.workspace.clone().unwrap_or_else(|| "-".into()),
                event.detail.clone(),
            ]
        },
    )?;
    Ok(ExitCode::SUCCESS)
}
