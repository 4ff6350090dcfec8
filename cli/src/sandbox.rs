//! `lattice sandbox start`: what its modes share.

mod auth;
mod gvisor;
mod health;
mod metrics;
mod pod;
pub(crate) mod private;
mod ready;

use std::{fs, io::Read as _, path::Path, process::ExitCode};

use lattice_bootstrap::{Failure, Join, Kind, Role, ServerUrl, StateDir, credentials, failure::chain};
use lattice_policy::{RuleSpec, parse_rule};
use lattice_wire::{PeerName, Token, message::PeerKind};
use zeroize::Zeroizing;

use crate::{
    args::{self, Global, Mode, Start},
    output, places,
};

/// More than any token file holds.
const MAX_TOKEN_FILE: u64 = 4096;

pub(crate) fn start(global: &Global, args: Start) -> Result<ExitCode, Failure> {
    match args.mode {
        Mode::Pod => pod::start(global, args),
        Mode::Gvisor => gvisor::start(global, args),
    }
}

/// Claims the name, after removing what a killed run of it left.
pub(crate) fn claim(global: &Global, role: Role, name: &PeerName) -> Result<StateDir, Failure> {
    claim_in(&places::state(global)?, role, name)
}

/// Likewise in this state directory.
pub(crate) fn claim_in(root: &Path, role: Role, name: &PeerName) -> Result<StateDir, Failure> {
    let state = StateDir::claim(root, role, name)?;
    // The agent first: as long as it may run, its policy must stay.
    lattice_runsc::sweep(&state.agent()).map_err(|error| Failure::new(Kind::Internal, chain(&error)))?;
    Ok(state)
}

pub(crate) fn peer_name(text: &str) -> Result<PeerName, Failure> {
    text.parse().map_err(|error| Failure::new(Kind::Usage, format!("--name: {error}")))
}

/// Who joins, by the flags that sandboxes and nodes share.
pub(crate) fn join(global: &Global, args: &args::Join, role: Role) -> Result<Join, Failure> {
    Ok(Join {
        name: peer_name(&args.name)?,
        kind: match role {
            Role::Sandbox => PeerKind::Sandbox,
            Role::Node => PeerKind::Node,
        },
        server: ServerUrl::parse(&args.server_url, args.server_ca.as_deref())?,
        token: token(args)?,
        credentials: credentials::path(&places::config(global, role)?, role),
        listen_port: args.listen_port,
        preset: None,
        for_good: false,
    })
}

/// The token from `--token-file`, `LATTICE_TOKEN` or, with a warning, `--token`.
fn token(join: &args::Join) -> Result<Option<Token>, Failure> {
    let (text, origin) = if let Some(text) = &join.token {
        output::warn("--token is visible to every user of this host; use --token-file or LATTICE_TOKEN");
        (Zeroizing::new(text.clone()), "--token")
    } else if let Some(path) = &join.token_file {
        let mut text = Zeroizing::new(String::new());
        let read = if path.as_os_str() == "-" {
            std::io::stdin().lock().take(MAX_TOKEN_FILE).read_to_string(&mut text)
        } else {
            fs::File::open(path).and_then(|file| file.take(MAX_TOKEN_FILE).read_to_string(&mut text))
        };
        read.map_err(|error| Failure::new(Kind::Usage, format!("--token-file {}: {error}", path.display())))?;
        (text, "--token-file")
    } else if let Some(text) = std::env::var("LATTICE_TOKEN").ok().filter(|text| !text.is_empty()) {
        (Zeroizing::new(text), "LATTICE_TOKEN")
    } else {
        return Ok(None);
    };
    text.trim().parse().map(Some).map_err(|error| Failure::new(Kind::Usage, format!("{origin}: {error}")))
}

pub(crate) fn egress(rules: &[String]) -> Result<Vec<RuleSpec>, Failure> {
    let parse = |text: &String| {
        parse_rule(text)
            .map_err(|error| Failure::new(Kind::Usage, format!("--egress-allow: {}", chain(&error))))
    };
    rules.iter().map(parse).collect()
}
