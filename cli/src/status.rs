//! `lattice status`: what runs on this host.

use std::process::ExitCode;

use lattice_bootstrap::{Failure, Listed, Role, Status, state};
use serde_json::json;

use crate::{
    args::{Format, Global, StatusArgs},
    output,
};

pub(crate) fn run(global: &Global, args: &StatusArgs) -> Result<ExitCode, Failure> {
    let all = state::list(&global.state_dir)?;
    if args.output == Format::Json {
        let items: Vec<_> = all
            .iter()
            .map(|Listed { role, name, status, alive }| {
                json!({ "name": name, "role": role, "alive": alive, "status": status })
            })
            .collect();
        output::print(&json!({ "version": 1, "peers": items }).to_string());
        return Ok(ExitCode::SUCCESS);
    }
    if all.is_empty() {
        output::print("nothing runs on this host");
        return Ok(ExitCode::SUCCESS);
    }
    let row = |Listed { role, name, status, alive }: &Listed| {
        let state = match (alive, status) {
            (true, Some(_)) => "running",
            (true, None) => "starting",
            (false, _) => "dead: lattice doctor --fix",
        };
        let role = match role {
            Role::Sandbox => "sandbox",
            Role::Node => "node",
        };
        let of = |field: fn(&Status) -> String| status.as_ref().map_or_else(|| "-".into(), field);
        vec![
            name.to_string(),
            role.into(),
            state.into(),
            of(|s| s.pid.to_string()),
            of(|s| s.address.clone()),
            of(|s| s.backend.clone()),
            of(|s| s.enforcement.clone()),
            of(|s| s.audit_file.as_ref().map_or_else(|| "-".into(), |path| path.display().to_string())),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    output::table(
        &["NAME", "ROLE", "STATE", "PID", "ADDRESS", "WIREGUARD", "ENFORCED BY", "AUDIT FILE"],
        &rows,
    );
    Ok(ExitCode::SUCCESS)
}
