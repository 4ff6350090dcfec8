//! `lattice workspace`, `lattice token` and `lattice peer`.

use std::process::ExitCode;

use lattice_bootstrap::{Failure, Kind};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    admin::Client,
    args::{Admin, Format, PeerCommand, TokenCommand, WorkspaceCommand},
    output,
};

#[derive(Serialize, Deserialize)]
struct Workspace {
    id: String,
    name: String,
}

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
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Peer {
    id: String,
    name: String,
    kind: String,
    address: String,
    online: bool,
    #[serde(default)]
    last_seen: Option<String>,
}

pub(crate) fn workspace(command: WorkspaceCommand) -> Result<ExitCode, Failure> {
    match command {
        WorkspaceCommand::Create { name, admin } => {
            let made: Workspace =
                Client::new(&admin)?.post("/api/v1/workspaces", &json!({ "name": name }))?;
            show(&admin, &[made], &["ID", "NAME"], |w| vec![w.id.clone(), w.name.clone()])
        }
        WorkspaceCommand::List { admin } => {
            let all: Vec<Workspace> = Client::new(&admin)?.get("/api/v1/workspaces")?;
            show(&admin, &all, &["ID", "NAME"], |w| vec![w.id.clone(), w.name.clone()])
        }
    }
}

pub(crate) fn token(command: TokenCommand) -> Result<ExitCode, Failure> {
    match command {
        TokenCommand::Create { workspace, uses, ttl, admin } => {
            let seconds = seconds(&ttl)?;
            let body = json!({ "workspace": workspace, "uses": uses, "ttlSeconds": seconds });
            let made: Token = Client::new(&admin)?.post("/api/v1/tokens", &body)?;
            match (admin.output, &made.token) {
                // Alone on stdout, so that it can be piped into --token-file -.
                (Format::Table, Some(token)) => output::print(token),
                _ => output::print(&json!(made).to_string()),
            }
            Ok(ExitCode::SUCCESS)
        }
        TokenCommand::List { workspace, admin } => {
            let all: Vec<Token> =
                Client::new(&admin)?.get(&filtered("/api/v1/tokens", workspace.as_deref())?)?;
            show(&admin, &all, &["ID", "WORKSPACE", "USED", "EXPIRES", "STATE"], |t| {
                let state = if t.revoked {
                    "revoked"
                } else if t.used >= t.uses {
                    "used"
                } else {
                    "open"
                };
                vec![
                    t.id.clone(),
                    t.workspace.clone(),
                    format!("{}/{}", t.used, t.uses),
                    t.expires_at.clone(),
                    state.into(),
                ]
            })
        }
        TokenCommand::Revoke { id, admin } => {
            Client::new(&admin)?.delete(&format!("/api/v1/tokens/{}", segment(&id)?))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

pub(crate) fn peer(command: PeerCommand) -> Result<ExitCode, Failure> {
    match command {
        PeerCommand::List { workspace, admin } => {
            let all: Vec<Peer> =
                Client::new(&admin)?.get(&filtered("/api/v1/peers", workspace.as_deref())?)?;
            show(&admin, &all, &["ID", "NAME", "KIND", "ADDRESS", "STATE", "LAST SEEN"], |p| {
                let state = if p.online { "online" } else { "offline" };
                let seen = p.last_seen.clone().unwrap_or_else(|| "never".into());
                vec![p.id.clone(), p.name.clone(), p.kind.clone(), p.address.clone(), state.into(), seen]
            })
        }
        PeerCommand::Remove { id, admin } => {
            Client::new(&admin)?.delete(&format!("/api/v1/peers/{}", segment(&id)?))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn show<T: Serialize>(
    admin: &Admin,
    items: &[T],
    headings: &[&str],
    row: impl Fn(&T) -> Vec<String>,
) -> Result<ExitCode, Failure> {
    match admin.output {
        Format::Json => output::print(&json!(items).to_string()),
        Format::Table => output::table(headings, &items.iter().map(row).collect::<Vec<_>>()),
    }
    Ok(ExitCode::SUCCESS)
}

fn filtered(path: &str, workspace: Option<&str>) -> Result<String, Failure> {
    workspace.map_or(Ok(path.to_owned()), |name| Ok(format!("{path}?workspace={}", segment(name)?)))
}

/// Text that may stand in a URL as it is.
fn segment(text: &str) -> Result<&str, Failure> {
    let plain =
        !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'));
    if plain { Ok(text) } else { Err(Failure::new(Kind::Usage, format!("{text:?} is no name or id"))) }
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

    #[test]
    fn ids_cannot_leave_their_place_in_the_url() {
        for bad in ["", "a/b", "..", "a?b", "a b", "a%2f"] {
            assert!(segment(bad).is_err(), "{bad}");
        }
    }
}
