//! `lattice sandbox rules`: the policy in force on this host, and what each rule decided about.

use std::process::ExitCode;

use lattice_bootstrap::{
    Failure, Kind,
    control::{self, Report, RuleCount, RuleReport},
};
use lattice_policy::{Action, Direction};

use crate::{
    args::{Format, Global},
    output,
    sandbox::peer_name,
};

pub(crate) fn run(global: &Global, name: &str, format: Format) -> Result<ExitCode, Failure> {
    let report = control::rules(&global.state_dir, &peer_name(name)?)?;
    match format {
        Format::Json => {
            let text = serde_json::to_string(&report).map_err(|error| Failure::new(Kind::Internal, error))?;
            output::print(&text);
        }
        Format::Table => table(&report),
    }
    Ok(ExitCode::SUCCESS)
}

fn table(report: &Report) {
    let layers = if report.layers.is_empty() { "none".into() } else { report.layers.join(", ") };
    output::print(&format!(
        "enforced by {}, generation {}, layers: {layers}",
        report.enforcement, report.generation
    ));
    let row = |direction: &str, action: &str, count: RuleCount, rule: &str| {
        vec![
            direction.into(),
            action.into(),
            count.packets.to_string(),
            count.bytes.to_string(),
            rule.to_owned(),
        ]
    };
    let of = |line: &RuleReport| {
        let direction = match line.direction {
            Direction::Egress => "egress",
            Direction::Ingress => "ingress",
        };
        let action = match line.action {
            Action::Allow => "allow",
            Action::Deny => "deny",
        };
        row(direction, action, line.count, &line.rule)
    };
    let mut rows: Vec<_> = report.rules.iter().map(of).collect();
    rows.push(row("both", "deny", report.default, "everything else"));
    output::table(&["DIRECTION", "ACTION", "PACKETS", "BYTES", "RULE"], &rows);
}
