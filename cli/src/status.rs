//! `lattice status`: what runs on this host, and what is in force there.

use std::{process::ExitCode, thread};

use lattice_bootstrap::{
    Failure, Kind, Listed, Role, Status,
    control::{self, Report},
};
use serde_json::{Value, json};

use crate::{
    args::{Format, Global, StatusArgs},
    output, peers,
    places::{self, Found},
    rules,
};

/// What a running one says of itself, or why it does not; none where nobody is asked.
type InForce = Option<Result<Report, Failure>>;

pub(crate) fn run(global: &Global, args: &StatusArgs) -> Result<ExitCode, Failure> {
    let mut all = places::list(global)?;
    if let Some(name) = &args.name {
        all.retain(|found| found.peer.name.as_str() == name);
        if all.is_empty() {
            let text = format!("no {name:?} runs on this host; `lattice status` lists those that do");
            return Err(Failure::new(Kind::Input, text));
        }
    }
    let all: Vec<_> = in_force(&all).into_iter().zip(all.into_iter().map(|found| found.peer)).collect();
    if args.output == Format::Json {
        let items: Vec<_> = all
            .iter()
            .map(|(in_force, Listed { role, name, status, alive })| {
                let policy = if *role == Role::Sandbox { policy(in_force) } else { Value::Null };
                let overlay = in_force.as_ref().and_then(|answer| answer.as_ref().ok()).map(|report| &report.overlay);
                json!({ "name": name, "role": role, "alive": alive, "status": status, "policy": policy, "overlay": overlay })
            })
            .collect();
        output::print(&json!({ "version": 1, "peers": items }).to_string());
        return Ok(ExitCode::SUCCESS);
    }
    if all.is_empty() {
        output::print(if nix::unistd::geteuid().is_root() {
            "nothing runs on this host"
        } else {
            "nothing of this user runs on this host; what root runs only root is shown"
        });
        return Ok(ExitCode::SUCCESS);
    }
    let row = |(in_force, Listed { role, name, status, alive }): &(InForce, Listed)| {
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
            of(|s| s.address6.clone()),
            of(|s| s.backend.clone()),
            of(|s| s.enforcement.clone()),
            match in_force {
                Some(Ok(_)) if role == "node" => "-".into(),
                None => "-".into(),
                Some(Ok(report)) => format!("{} (generation {})", rules::layers(report), report.generation),
                Some(Err(_)) => "does not answer".into(),
            },
            of(|s| s.audit_file.as_ref().map_or_else(|| "-".into(), |path| path.display().to_string())),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    output::table(
        &[
            "NAME",
            "ROLE",
            "STATE",
            "PID",
            "ADDRESS",
            "IPV6",
            "WIREGUARD",
            "ENFORCED BY",
            "LAYERS",
            "AUDIT FILE",
        ],
        &rows,
    );
    if args.name.is_some() {
        for (in_force, _) in &all {
            if let Some(Ok(report)) = in_force {
                peers::table(&report.overlay);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks all that run at once: one that does not answer costs two seconds, however many there are.
fn in_force(all: &[Found]) -> Vec<InForce> {
    let runs = |peer: &Listed| peer.alive && peer.status.is_some();
    thread::scope(|scope| {
        let asked: Vec<_> = all
            .iter()
            .map(|Found { root, peer }| {
                runs(peer).then(|| scope.spawn(|| control::report(root, peer.role, &peer.name)))
            })
            .collect();
        asked.into_iter().map(|asked| asked.and_then(|thread| thread.join().ok())).collect()
    })
}

fn policy(in_force: &InForce) -> Value {
    match in_force {
        None => Value::Null,
        Some(Err(failure)) => json!({ "error": failure.message }),
        Some(Ok(Report { enforcement, generation, layers, lost, .. })) => {
            json!({ "enforcement": enforcement, "generation": generation, "layers": layers, "lost": lost })
        }
    }
}
