//! `lattice sandbox rules`: the policy in force on this host, what each rule decided about, and what names open.

use std::process::ExitCode;

use lattice_bootstrap::{
    Failure, Kind, Role,
    control::{self, NameReport, ProxyReport, Report, ResolverReport, RuleCount, RuleReport},
};
use lattice_policy::{Action, Direction};

use crate::{
    args::{Format, Global},
    output, places,
    sandbox::peer_name,
};

pub(crate) fn run(global: &Global, name: &str, format: Format) -> Result<ExitCode, Failure> {
    let root = places::root_of(global, Role::Sandbox, name)?;
    let report = control::report(&root, Role::Sandbox, &peer_name(name)?)?;
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
    output::print(&format!(
        "enforced by {}, generation {}, layers: {}, lost verdicts: {}",
        report.enforcement,
        report.generation,
        layers(report),
        report.lost
    ));
    let row = |direction: &str, action: &str, versions: &str, count: RuleCount, rule: &str| {
        vec![
            direction.into(),
            action.into(),
            versions.into(),
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
        row(direction, action, line.versions(), line.count, &line.rule)
    };
    let mut rows: Vec<_> = report.rules.iter().map(of).collect();
    rows.push(row("both", "deny", "v4+v6", report.default, "everything else"));
    output::table(&["DIRECTION", "ACTION", "IP", "PACKETS", "BYTES", "RULE"], &rows);
    if !report.names.is_empty() {
        let row = |line: &NameReport| {
            vec![line.name.clone(), line.address.to_string(), format!("{} s", line.seconds)]
        };
        output::table(&["NAME", "OPENS", "FOR"], &report.names.iter().map(row).collect::<Vec<_>>());
    }
    output::print(&resolver(&report.resolver));
    if let Some(counts) = &report.proxy {
        output::print(&proxy(counts));
    }
}

/// The layers that a flow must pass, the flags last.
pub(crate) fn layers(report: &Report) -> String {
    report.layers.iter().map(String::as_str).chain(["flags"]).collect::<Vec<_>>().join(", ")
}

fn resolver(counts: &ResolverReport) -> String {
    let ResolverReport { queries, local, cached, forwarded, timeouts, wrong, failed, malformed, .. } = counts;
    let mut text = format!(
        "resolver: {queries} queries, {local} local, {cached} cached, {forwarded} forwarded, {failed} failed, {timeouts} timeouts, {wrong} wrong answers, {malformed} malformed"
    );
    let refused: Vec<_> = counts.refused.iter().map(|(why, count)| format!("{why} {count}")).collect();
    if !refused.is_empty() {
        text.push_str(&format!("; refused: {}", refused.join(", ")));
    }
    text
}

fn proxy(counts: &ProxyReport) -> String {
    let ProxyReport {
        accepted,
        active,
        connected,
        associated,
        refused,
        busy,
        unauthorized,
        malformed,
        slow,
        ..
    } = counts;
    let ProxyReport { datagrams, datagrams_refused, .. } = counts;
    format!(
        "proxy: {accepted} clients, {active} active, {connected} connections, {associated} associations, {refused} refused, {busy} too many, {unauthorized} unauthorized, {malformed} malformed, {slow} slow; {datagrams} datagrams, {datagrams_refused} refused"
    )
}
