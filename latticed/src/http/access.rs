//! Who may do what: each route of the table names its [`Access`], and this is the one place that decides.
//!
//! What lies in a workspace is looked up through [`Caller::sees`]: a token of one workspace gets 404 for the things of all
//! others, so that it learns nothing about them.

use std::sync::Arc;

use axum::http::StatusCode;
use lattice_wire::{AdminToken, PeerId, Token, WorkspaceId};

use super::error::ApiError;
use crate::store::{
    admin_tokens::{AdminRow, Role},
    tokens::TokenRow,
};

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing.
    Open,
    /// Nothing, and it is never refused: whoever watches over latticed may have one address with strangers, behind a balancer or NAT,
    /// and must not take it for dead because of them.
    Probe,
    /// To be on this host, or a viewer's API token that is bound to no workspace.
    LocalOrViewer,
    /// The one-time token that a login consumes.
    OneTime,
    /// An API token of at least this role.
    Role(Role),
    /// The same, and bound to no workspace.
    Global(Role),
    /// An API token of at least this role, or an enrollment token that belongs to no peer.
    RoleOrEnrollment(Role),
    /// An API token of at least this role, or the token that belongs to the peer in the path.
    RoleOrPeer(Role),
}

/// Who asks: known, and alive.
#[derive(Debug, Clone)]
pub(super) enum Caller {
    /// Somebody without a token.
    Stranger,
    /// Somebody with an admin token that only a login can judge, because it consumes it.
    OneTime(Arc<AdminToken>),
    /// The holder of an API token.
    Admin(Arc<AdminRow>),
    /// The holder of an enrollment token, whether or not it has uses left.
    Enrollment(Arc<(Token, TokenRow)>),
}

impl Caller {
    /// Whether things of `workspace` exist for this caller.
    pub(super) fn sees(&self, workspace: &WorkspaceId) -> bool {
        match self {
            Self::Stranger | Self::OneTime(_) => false,
            Self::Admin(row) => row.workspace.as_ref().is_none_or(|own| own == workspace),
            Self::Enrollment(token) => token.1.workspace == *workspace,
        }
    }

    /// The only workspace that exists for this caller; `None`: all do.
    pub(super) fn scope(&self) -> Option<&WorkspaceId> {
        match self {
            Self::Stranger | Self::OneTime(_) => None,
            Self::Admin(row) => row.workspace.as_ref(),
            Self::Enrollment(token) => Some(&token.1.workspace),
        }
    }

    /// The name under which it is written down.
    pub(super) fn actor(&self) -> String {
        match self {
            Self::Stranger => "stranger".into(),
            Self::OneTime(token) => format!("la-{}", token.id()),
            Self::Admin(row) => format!("la-{}", row.id),
            Self::Enrollment(token) => format!("lt-{}", token.1.id),
        }
    }
}

impl Access {
    /// Whether `caller`, at `local` or remote, may use a route with `peer` in its path.
    pub(super) fn decide(self, caller: &Caller, local: bool, peer: Option<&str>) -> Result<(), ApiError> {
        match (self, caller) {
            (Self::Open | Self::Probe, _) => Ok(()),
            (Self::LocalOrViewer, _) if local => Ok(()),
            (_, Caller::Stranger) => Err(ApiError::unauthorized(MISSING)),
            (Self::OneTime, Caller::OneTime(_)) => Ok(()),
            (Self::OneTime, _) | (_, Caller::OneTime(_)) => Err(ApiError::unauthorized(ONE_TIME)),
            (
                Self::Role(role) | Self::RoleOrEnrollment(role) | Self::RoleOrPeer(role),
                Caller::Admin(row),
            ) => at_least(role, row.role),
            (Self::LocalOrViewer, Caller::Admin(row)) => global(Role::Viewer, row),
            (Self::Global(role), Caller::Admin(row)) => global(role, row),
            (Self::RoleOrEnrollment(_), Caller::Enrollment(token)) if token.1.peer.is_none() => Ok(()),
            (Self::RoleOrPeer(_), Caller::Enrollment(token)) => belongs(token.1.peer.as_ref(), peer),
            (_, Caller::Enrollment(_)) => {
                Err(ApiError::forbidden("this enrollment token does not open this route"))
            }
        }
    }

    /// Whether the number of requests is limited even for those who get in: it is where a secret is no API token.
    pub(super) fn counts_everybody(self) -> bool {
        matches!(self, Self::Open | Self::OneTime)
    }
}

const MISSING: &str =
    "this needs a token: log in with `lattice login`, or send `Authorization: Bearer <token>`";

const ONE_TIME: &str =
    "a login takes a one-time admin token, and nothing else does: make one with `latticed admin-token`";

fn at_least(wanted: Role, role: Role) -> Result<(), ApiError> {
    if role >= wanted {
        return Ok(());
    }
    Err(ApiError::forbidden(format!("this needs the role {}: ask an administrator", wanted.as_str())))
}

fn global(wanted: Role, row: &AdminRow) -> Result<(), ApiError> {
    at_least(wanted, row.role)?;
    if row.workspace.is_none() {
        return Ok(());
    }
    Err(ApiError::forbidden("this needs a token that is bound to no workspace: ask an administrator"))
}

fn belongs(own: Option<&PeerId>, asked: Option<&str>) -> Result<(), ApiError> {
    match own {
        None => Err(ApiError::forbidden("this enrollment token belongs to no peer: it only enrols")),
        Some(own) if Some(own.as_str()) == asked => Ok(()),
        Some(_) => Err(ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such peer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(role: Role, workspace: Option<WorkspaceId>) -> Caller {
        Caller::Admin(Arc::new(AdminRow {
            id: "a".into(),
            name: "a".into(),
            role,
            workspace,
            one_time: false,
            created_at: 0,
            expires_at: None,
            revoked_at: None,
            created_by: "a".into(),
        }))
    }

    /// What the tests with a real latticed cannot show: they are all on its host.
    #[test]
    fn metrics_are_for_this_host_and_for_viewers_of_everything() {
        let own = WorkspaceId::from_random([1; 10]);
        let may = |caller: &Caller, local| Access::LocalOrViewer.decide(caller, local, None).is_ok();
        assert!(may(&Caller::Stranger, true) && !may(&Caller::Stranger, false));
        assert!(may(&holder(Role::Viewer, None), false));
        assert!(!may(&holder(Role::Admin, Some(own)), false));
    }

    #[test]
    fn a_workspace_is_seen_by_its_own_and_by_those_of_all() {
        let (own, other) = (WorkspaceId::from_random([1; 10]), WorkspaceId::from_random([2; 10]));
        assert!(holder(Role::Viewer, None).sees(&own));
        let bound = holder(Role::Admin, Some(own.clone()));
        assert!(bound.sees(&own) && !bound.sees(&other));
        assert!(!Caller::Stranger.sees(&own));
    }
}
