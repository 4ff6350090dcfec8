//! `lattice audit`: what was allowed and what was denied.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use lattice_audit::{Entry, Fault, VerifyError};
use lattice_bootstrap::{Failure, Kind, failure::chain};
use lattice_policy::Action;

use crate::{
    args::{AuditCommand, Format, Global},
    output,
    places::{self, Found},
};

pub(crate) fn run(global: &Global, command: &AuditCommand) -> Result<ExitCode, Failure> {
    match command {
        AuditCommand::Tail { name, file, lines, denied, output } => {
            let path = match (file, name) {
                (Some(file), _) => file.clone(),
                (None, Some(name)) => file_of(global, name)?,
                (None, None) => return Err(Failure::new(Kind::Usage, "give --name or --file")),
            };
            tail(&path, *lines, *denied, *output)
        }
        AuditCommand::Verify { file } => {
            let summary = lattice_audit::verify(file).map_err(|error| {
                Failure::new(Kind::Input, format!("{}: {}", file.display(), chain(&error)))
            })?;
            output::print(&format!(
                "{}: the chain holds: {} records ({} allowed, {} denied), {} runs, {} gaps",
                file.display(),
                summary.records,
                summary.allowed,
                summary.denied,
                summary.epochs,
                summary.gaps
            ));
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The file of a sandbox: the one it says it writes to, or the usual one when it does not run.
fn file_of(global: &Global, name: &str) -> Result<PathBuf, Failure> {
    let usual = lattice_audit::default_path(&crate::sandbox::peer_name(name)?);
    let of = |found: Found| (found.peer.name.as_str() == name).then_some(found.peer.status?.audit_file?);
    Ok(places::list(global)?.into_iter().find_map(of).unwrap_or(usual))
}

fn tail(path: &Path, lines: usize, denied: bool, format: Format) -> Result<ExitCode, Failure> {
    let fail = |error: &dyn std::error::Error| {
        Failure::new(Kind::Input, format!("{}: {}", path.display(), chain(error)))
    };
    let mut last = VecDeque::new();
    for entry in lattice_audit::read(path).map_err(|error| unreadable(path, &error))? {
        let entry = match entry {
            Ok(entry) => entry,
            // What is whole is shown all the same.
            Err(error) if matches!(error.why, Fault::Torn) => {
                output::warn(&format!("{}: {error}", path.display()));
                break;
            }
            Err(error) => return Err(fail(&error)),
        };
        if denied && matches!(&entry, Entry::Flow(flow) if flow.action == Action::Allow) {
            continue;
        }
        last.push_back(entry);
        if last.len() > lines {
            last.pop_front();
        }
    }
    if format == Format::Json {
        for entry in &last {
            let text = match entry {
                Entry::Flow(flow) => serde_json::to_string(flow),
                Entry::Gap(gap) => serde_json::to_string(gap),
            };
            output::print(&text.map_err(|error| fail(&error))?);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let row = |entry: &Entry| match entry {
        Entry::Flow(flow) => vec![
            flow.timestamp.to_string(),
            word(&flow.action),
            word(&flow.direction),
            flow.proto.clone(),
            flow.src_ip.to_string(),
            match (&flow.name, flow.dst_port) {
                (Some(name), _) => name.clone(),
                (None, 0) => flow.dst_ip.to_string(),
                (None, port) => std::net::SocketAddr::new(flow.dst_ip, port).to_string(),
            },
            flow.rule.clone().unwrap_or_else(|| word(&flow.reason)),
        ],
        Entry::Gap(gap) => {
            let mut cells = vec![gap.timestamp.to_string(), "GAP".into()];
            cells.resize(6, String::new());
            cells.push(format!("{} records lost: {}", gap.lost, gap.why));
            cells
        }
    };
    output::table(
        &["TIME", "VERDICT", "DIRECTION", "PROTO", "FROM", "TO", "RULE OR REASON"],
        &last.iter().map(row).collect::<Vec<_>>(),
    );
    Ok(ExitCode::SUCCESS)
}

fn unreadable(path: &Path, error: &VerifyError) -> Failure {
    let text = match &error.why {
        Fault::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            format!(
                "no audit file {}: check --name, or give --file if it was started with --audit-file",
                path.display()
            )
        }
        why => format!("{}: {why}", path.display()),
    };
    Failure::new(Kind::Input, text)
}

/// The word that the record itself uses.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}
