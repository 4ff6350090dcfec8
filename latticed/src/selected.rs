//! The store's rows in the words of the policy model.

use lattice_policy::{Labels, Member, MemberKind, NamedPolicy, Preset};
use lattice_wire::message::PeerKind;

use crate::store::{peers::PeerRow, policies::PolicyRow};

/// A row that this version cannot read.
#[derive(Debug, thiserror::Error)]
#[error(
    "{what} {name:?} in the database cannot be read: {reason}; it was written by another version of latticed"
)]
pub struct Unreadable {
    what: &'static str,
    name: String,
    reason: String,
}

/// A peer, as selectors see it.
///
/// # Errors
/// When its labels or its preset are none.
pub fn member(row: &PeerRow) -> Result<Member, Unreadable> {
    let unreadable = |reason: String| Unreadable { what: "peer", name: row.name.to_string(), reason };
    Ok(Member {
        name: row.name.to_string(),
        kind: match row.kind.0 {
            PeerKind::Sandbox => MemberKind::Sandbox,
            PeerKind::Node => MemberKind::Node,
        },
        address: row.address.0,
        labels: Labels::try_from(row.labels.clone()).map_err(|e| unreadable(e.to_string()))?,
        preset: match &row.preset {
            Some(preset) => Some(preset.parse::<Preset>().map_err(|e| unreadable(e.to_string()))?),
            None => None,
        },
    })
}

/// A named policy.
///
/// # Errors
/// When its JSON is none.
pub fn policy(row: &PolicyRow) -> Result<NamedPolicy, Unreadable> {
    serde_json::from_str(&row.spec).map_err(|e| Unreadable {
        what: "policy",
        name: row.name.clone(),
        reason: e.to_string(),
    })
}
