//! `lattice peer`.

use std::{collections::BTreeMap, process::ExitCode};

use lattice_bootstrap::{Failure, Kind};
use lattice_policy::Labels;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    admin::{Client, segment},
    args::{Admin, Format, PeerCommand},
    output,
};

const PATH: &str = "/api/v1/peers";
const HEADINGS: [&str; 9] =
    ["ID", "NAME", "KIND", "ADDRESS", "IPV6", "STATE", "PRESET", "LABELS", "LAST SEEN"];

/// A peer as the server shows it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Peer {
    id: String,
    name: String,
    kind: String,
    address: String,
    #[serde(default)]
    address6: String,
    online: bool,
    #[serde(default)]
    reserved: bool,
    #[serde(default)]
    last_seen: Option<String>,
    expires_at: Option<String>,
    preset: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    agent_type: Option<String>,
    token: Option<String>,
}

pub(crate) fn run(command: PeerCommand) -> Result<ExitCode, Failure> {
    match command {
        PeerCommand::List { workspace, admin } => {
            Client::new(&admin)?.show_list(admin.output, PATH, workspace.as_deref(), &HEADINGS, row)?;
        }
        PeerCommand::Show { id, admin } => {
            let peer: Peer = Client::new(&admin)?.get(&format!("{PATH}/{}", segment(&id)?))?;
            show(&admin, &peer);
        }
        PeerCommand::Label { id, labels, admin } => {
            let (client, path) = (Client::new(&admin)?, format!("{PATH}/{}", segment(&id)?));
            let peer: Peer = client.get(&path)?;
            let labels = changed(peer.labels, &labels)?;
            let peer: Peer = client.put(&format!("{path}/labels"), &json!({ "labels": labels }))?;
            show(&admin, &peer);
        }
        PeerCommand::Remove { id, admin } => {
            Client::new(&admin)?.delete(&format!("{PATH}/{}", segment(&id)?))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `KEY=VALUE` sets, `KEY-` removes.
fn changed(mut labels: BTreeMap<String, String>, changes: &[String]) -> Result<Labels, Failure> {
    for change in changes {
        if let Some((key, value)) = change.split_once('=') {
            labels.insert(key.to_owned(), value.to_owned());
        } else if let Some(key) = change.strip_suffix('-') {
            labels.remove(key);
        } else {
            let text = format!("{change:?} is no change of labels: write key=value, or key- to remove it");
            return Err(Failure::new(Kind::Usage, text));
        }
    }
    Labels::try_from(labels).map_err(|error| Failure::new(Kind::Usage, error))
}

fn show(admin: &Admin, peer: &Peer) {
    match admin.output {
        Format::Json => output::print(&json!(peer).to_string()),
        Format::Table => output::table(&HEADINGS, &[row(peer)]),
    }
}

fn row(peer: &Peer) -> Vec<String> {
    let state = match (peer.reserved, peer.online) {
        (true, _) => "reserved",
        (false, true) => "online",
        (false, false) => "offline",
    };
    let labels: Vec<String> = peer.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let or_dash = |text: String| if text.is_empty() { "-".into() } else { text };
    vec![
        peer.id.clone(),
        peer.name.clone(),
        peer.kind.clone(),
        peer.address.clone(),
        or_dash(peer.address6.clone()),
        state.into(),
        or_dash(peer.preset.clone().unwrap_or_default()),
        or_dash(labels.join(",")),
        peer.last_seen.clone().unwrap_or_else(|| "never".into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_set_and_removed() {
        let had = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        let texts = |changes: &[&str]| changes.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let labels = changed(had.clone(), &texts(&["a=3", "b-", "c=4", "none-"])).unwrap();
        assert_eq!(labels.to_string(), "a=3,c=4");
        for bad in ["a", "a=", "=1", "name=x", "a=b c"] {
            assert!(changed(had.clone(), &texts(&[bad])).is_err(), "{bad}");
        }
    }
}
