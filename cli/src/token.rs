//! `lattice token`.

use std::{collections::BTreeMap, process::ExitCode};

use lattice_bootstrap::{Failure, Kind};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    admin::{Client, segment},
    args::{Format, TokenCommand, TokenCreate},
    output,
};

const HEADINGS: [&str; 6] = ["ID", "WORKSPACE", "USED", "PRESET", "EXPIRES", "STATE"];

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Token {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    workspace: String,
    uses: u32,
    #[serde(default)]
    used: u32,
    expires_at: String,
    #[serde(default)]
    revoked: bool,
    preset: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    name_prefix: Option<String>,
    peer_ttl_seconds: Option<i64>,
    peer: Option<String>,
}

pub(crate) fn run(command: TokenCommand) -> Result<ExitCode, Failure> {
    match command {
        TokenCommand::Create(args) => create(&args)?,
        TokenCommand::List { workspace, admin } => {
            let client = Client::new(&admin)?;
            client.show_list(admin.output, "/api/v1/tokens", workspace.as_deref(), &HEADINGS, row)?;
        }
        TokenCommand::Show { id, admin } => {
            let token: Token = Client::new(&admin)?.get(&format!("/api/v1/tokens/{}", segment(&id)?))?;
            match admin.output {
                Format::Json => output::print(&json!(token).to_string()),
                Format::Table => output::table(&HEADINGS, &[row(&token)]),
            }
        }
        TokenCommand::Revoke { id, admin } => {
            Client::new(&admin)?.delete(&format!("/api/v1/tokens/{}", segment(&id)?))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn create(args: &TokenCreate) -> Result<(), Failure> {
    let body = json!({
        "workspace": args.workspace,
        "uses": args.uses,
        "ttlSeconds": seconds(&args.ttl)?,
        "preset": args.preset,
        "labels": labels(&args.labels)?,
        "namePrefix": args.name_prefix,
        "peerTtl": args.peer_ttl,
    });
    let made: Token = Client::new(&args.admin)?.post("/api/v1/tokens", &body)?;
    match (args.admin.output, &made.token) {
        // Alone on stdout, so that it can be piped into --token-file -.
        (Format::Table, Some(token)) => output::print(token),
        _ => output::print(&json!(made).to_string()),
    }
    Ok(())
}

fn row(token: &Token) -> Vec<String> {
    let state = if token.revoked {
        "revoked"
    } else if token.used >= token.uses {
        "used"
    } else {
        "open"
    };
    vec![
        token.id.clone(),
        token.workspace.clone(),
        format!("{}/{}", token.used, token.uses),
        token.preset.clone().unwrap_or_else(|| "-".into()),
        token.expires_at.clone(),
        state.into(),
    ]
}

/// Labels as flags give them.
pub(crate) fn labels(texts: &[String]) -> Result<lattice_policy::Labels, Failure> {
    let mut labels = lattice_policy::Labels::default();
    for text in texts {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| Failure::new(Kind::Usage, format!("{text:?} is no label: write key=value")))?;
        labels.insert(key, value).map_err(|error| Failure::new(Kind::Usage, error))?;
    }
    Ok(labels)
}

fn seconds(text: &str) -> Result<u64, Failure> {
    let wrong = || {
        Failure::new(Kind::Usage, format!("--ttl {text:?}: expected seconds, or a number with s, m, h or d"))
    };
    let (number, factor) = match text.strip_suffix(['s', 'm', 'h', 'd']) {
        Some(number) if text.ends_with('d') => (number, 86400),
        Some(number) if text.ends_with('h') => (number, 3600),
        Some(number) if text.ends_with('m') => (number, 60),
        Some(number) => (number, 1),
        None => (text, 1),
    };
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).filter(|n| *n > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(seconds("90").unwrap(), 90);
        assert_eq!(seconds("2h").unwrap(), 7200);
        for bad in ["", "h", "0", "-1", "1w", "1.5h", "99999999999999999999d"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
