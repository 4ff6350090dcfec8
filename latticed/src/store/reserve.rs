//! Peers that are made for somebody else: reserved ones, whose agent comes later with a token of its own, and static ones, which never
//! speak to NATS. And the one place where a peer is inserted.

use lattice_wire::{PeerId, PeerName, Token, WgPublicKey, WorkspaceId, message::PeerKind, netmap::MAX_PEERS};
use sqlx::AnyConnection;

use super::{
    Store, StoreError,
    columns::{self, Endpoints, Kind, Labels, text},
    enroll::{self, Admitted, EnrollRefused, NewPeer},
    leases,
    repeat::{self, Repeat},
    tokens::{self, NewToken, TokenRefused, TokenRow},
    workspaces::{self, Change},
};

/// A reservation without a time of its own is kept so long, in seconds.
const RESERVED_SECS: i64 = 86_400;

/// A peer to be reserved.
#[derive(Debug, Clone)]
pub struct NewReservation {
    /// A fresh id.
    pub id: PeerId,
    /// Its workspace.
    pub workspace: WorkspaceId,
    /// Its name.
    pub name: PeerName,
    /// What it will be.
    pub kind: PeerKind,
    /// Its preset.
    pub preset: Option<String>,
    /// Its labels.
    pub labels: Labels,
    /// What kind of agent will run in it.
    pub agent_type: Option<String>,
    /// Seconds that it lives: as a reservation from now on, and again from its admission on. A reservation without it is kept for a day,
    /// and who is admitted by it lives without an end.
    pub ttl: Option<i64>,
}

/// A peer with a WireGuard key and without NATS.
#[derive(Debug, Clone)]
pub struct NewStatic {
    /// What it shares with a reservation.
    pub peer: NewReservation,
    /// Its WireGuard key.
    pub wireguard_public_key: WgPublicKey,
    /// Where it may be reached.
    pub endpoints: Endpoints,
}

/// A row of peers that is about to be inserted.
pub(super) struct Entry<'a> {
    id: &'a PeerId,
    workspace: &'a WorkspaceId,
    name: &'a PeerName,
    kind: PeerKind,
    wireguard_public_key: Option<WgPublicKey>,
    nats_public_key: Option<&'a str>,
    endpoints: &'a Endpoints,
    preset: Option<&'a str>,
    labels: &'a Labels,
    agent_type: Option<&'a str>,
    ttl: Option<i64>,
    expires_at: Option<i64>,
    token: Option<&'a str>,
    jwt_expires_at: Option<i64>,
}

/// The token that belongs to such a peer: a bearer for what concerns that peer, and what admits a reserved one, once.
#[derive(Debug, Clone)]
pub struct OwnToken {
    /// A fresh one.
    pub token: Token,
    /// Unix seconds.
    pub expires_at: i64,
    /// Who made it.
    pub created_by: String,
}

impl Store {
    /// Reserves a name and an address for a peer that comes later, with a use of `token` as [`Store::admit_static`] does. It is in
    /// no map until it comes with `own`. With `repeat`, an earlier request that was the same is granted its peer again, takes no use
    /// of `token`, and `own` takes the place of the token that was shown then.
    ///
    /// # Errors
    /// When the database fails. A refusal is in the inner result and leaves everything as it was.
    pub async fn reserve(
        &self,
        new: &NewReservation,
        token: Option<&Token>,
        own: OwnToken,
        repeat: Option<&Repeat>,
        now: i64,
    ) -> Result<Result<Admitted, EnrollRefused>, StoreError> {
        self.admit(new.clone(), None, token, own, repeat, now).await
    }

    /// Admits a peer that never speaks to NATS, with a use of `token` when the caller has no other right. What the token says of
    /// those that it admits (preset, labels, time) goes before what the caller says.
    ///
    /// # Errors
    /// When the database fails. A refusal is in the inner result and leaves everything as it was.
    pub async fn admit_static(
        &self,
        new: &NewStatic,
        token: Option<&Token>,
        own: OwnToken,
        repeat: Option<&Repeat>,
        now: i64,
    ) -> Result<Result<Admitted, EnrollRefused>, StoreError> {
        let device = (new.wireguard_public_key, &new.endpoints);
        self.admit(new.peer.clone(), Some(device), token, own, repeat, now).await
    }

    /// The peer and its token are there together, or neither is.
    async fn admit(
        &self,
        mut peer: NewReservation,
        device: Option<(WgPublicKey, &Endpoints)>,
        token: Option<&Token>,
        own: OwnToken,
        repeat: Option<&Repeat>,
        now: i64,
    ) -> Result<Result<Admitted, EnrollRefused>, StoreError> {
        let mut transaction = self.begin().await?;
        if let Some(repeat) = repeat
            && let Some(admitted) =
                repeat::again(&mut transaction, &peer.workspace, repeat, &own, now).await?
        {
            if admitted.is_ok() {
                transaction.commit().await?;
            }
            return Ok(admitted);
        }
        let by = match permit(&mut transaction, &mut peer, token, now).await? {
            Ok(by) => by,
            Err(refused) => return Ok(Err(refused)),
        };
        let nowhere = Endpoints::default();
        let entry = Entry {
            wireguard_public_key: device.map(|(key, _)| key),
            token: by.as_deref(),
            ..Entry::reserving(&peer, device.map_or(&nowhere, |(_, endpoints)| endpoints), now)
        };
        let admitted = self.insert(&mut transaction, &entry, now).await?;
        if admitted.is_ok() {
            let new = NewToken::of_peer(&peer.workspace, &peer.id, &own, device.is_none());
            tokens::insert(&mut transaction, &own.token, new, now).await?;
        }
        if let (Ok(admitted), Some(repeat)) = (&admitted, repeat) {
            repeat::remember(&mut transaction, admitted, repeat, &own, now).await?;
        }
        if admitted.is_ok() {
            transaction.commit().await?;
        }
        Ok(admitted)
    }

    /// Inserts a peer, leases it an address and makes maps newer that show it.
    pub(super) async fn insert(
        &self,
        connection: &mut AnyConnection,
        entry: &Entry<'_>,
        now: i64,
    ) -> Result<Result<Admitted, EnrollRefused>, sqlx::Error> {
        self.remove_expired(connection, entry, now).await?;
        if let Some(refused) = conflict(connection, entry).await? {
            return Ok(Err(refused));
        }
        write(connection, entry, now).await?;
        let Some(address) = self.lease(connection, entry.id, now).await? else {
            let quarantined = leases::quarantined(connection, self.pool).await?;
            return Ok(Err(EnrollRefused::PoolExhausted { pool: self.pool.to_string(), quarantined }));
        };
        workspaces::bump(connection, entry.workspace, Change::Peers).await?;
        Ok(Ok(Admitted {
            peer: entry.id.clone(),
            workspace: entry.workspace.clone(),
            address,
            not_after: entry.end(now),
            again: false,
        }))
    }

    /// Whoever is over must not keep a successor from its name until the reconciler comes by.
    async fn remove_expired(
        &self,
        connection: &mut AnyConnection,
        entry: &Entry<'_>,
        now: i64,
    ) -> Result<(), sqlx::Error> {
        let removed = sqlx::query(
            "UPDATE peers SET changed = NULL, online = 0, endpoints = '[]', removed_at = $3 \
             WHERE workspace = $1 AND name = $2 AND removed_at IS NULL AND expires_at <= $3 RETURNING id",
        )
        .bind(entry.workspace.as_str())
        .bind(entry.name.as_str())
        .bind(now)
        .fetch_optional(&mut *connection)
        .await?;
        match removed {
            Some(row) => leases::release(connection, &text(&row, "id")?, now + self.quarantine).await,
            None => Ok(()),
        }
    }
}

/// Takes a use of `token`, if the caller needs one, and lets it limit the peer. Returns its id.
async fn permit(
    connection: &mut AnyConnection,
    peer: &mut NewReservation,
    token: Option<&Token>,
    now: i64,
) -> Result<Result<Option<String>, EnrollRefused>, sqlx::Error> {
    let Some(token) = token else { return Ok(Ok(None)) };
    let row = match tokens::known(connection, token).await? {
        Ok(row) if row.workspace == peer.workspace => row,
        Ok(_) => return Ok(Err(TokenRefused::Unknown.into())),
        Err(refused) => return Ok(Err(refused.into())),
    };
    // Such a token is for the agent of that peer, who brings a NATS key.
    if row.peer.is_some() {
        return Ok(Err(EnrollRefused::NotReserved));
    }
    if let Err(refused) = enroll::take(connection, &row, &peer.name, now).await? {
        return Ok(Err(refused));
    }
    limit(peer, &row);
    Ok(Ok(Some(row.id)))
}

/// What a token says of those that it admits.
fn limit(peer: &mut NewReservation, token: &TokenRow) {
    peer.preset = token.preset.clone().or_else(|| peer.preset.take());
    peer.labels.extend(token.labels.clone());
    peer.ttl = [token.peer_ttl, peer.ttl].into_iter().flatten().min();
}

impl<'a> Entry<'a> {
    /// A reservation has an end in any case.
    fn end(&self, now: i64) -> Option<i64> {
        self.expires_at.or(self.wireguard_public_key.is_none().then_some(now + RESERVED_SECS))
    }

    pub(super) fn enrolling(peer: &'a NewPeer<'_>, token: &'a TokenRow, now: i64) -> Self {
        Self {
            id: peer.id,
            workspace: &token.workspace,
            name: peer.name,
            kind: peer.kind,
            wireguard_public_key: Some(peer.wireguard_public_key),
            nats_public_key: Some(peer.nats_public_key),
            endpoints: peer.endpoints,
            preset: token.preset.as_deref().or(peer.preset),
            labels: &token.labels,
            agent_type: None,
            ttl: token.peer_ttl,
            expires_at: token.peer_ttl.map(|ttl| now + ttl),
            token: Some(&token.id),
            jwt_expires_at: Some(peer.jwt_expires_at),
        }
    }

    fn reserving(new: &'a NewReservation, endpoints: &'a Endpoints, now: i64) -> Self {
        Self {
            id: &new.id,
            workspace: &new.workspace,
            name: &new.name,
            kind: new.kind,
            wireguard_public_key: None,
            nats_public_key: None,
            endpoints,
            preset: new.preset.as_deref(),
            labels: &new.labels,
            agent_type: new.agent_type.as_deref(),
            ttl: new.ttl,
            expires_at: new.ttl.map(|ttl| now + ttl),
            token: None,
            jwt_expires_at: None,
        }
    }
}

async fn conflict(
    connection: &mut AnyConnection,
    entry: &Entry<'_>,
) -> Result<Option<EnrollRefused>, sqlx::Error> {
    let namesake = "SELECT id FROM peers WHERE workspace = $1 AND name = $2 AND removed_at IS NULL";
    let namesake = sqlx::query(namesake)
        .bind(entry.workspace.as_str())
        .bind(entry.name.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    if namesake.is_some() {
        return Ok(Some(EnrollRefused::NameTaken(entry.name.to_string())));
    }
    if let Some(key) = &entry.wireguard_public_key
        && enroll::key_taken(connection, key, entry.nats_public_key).await?
    {
        return Ok(Some(EnrollRefused::KeyTaken));
    }
    let count = "SELECT count(*) FROM peers WHERE workspace = $1 AND removed_at IS NULL";
    let (count,): (i64,) = sqlx::query_as(count).bind(entry.workspace.as_str()).fetch_one(connection).await?;
    // A map holds the others: with one more than its limit in the workspace it is just full.
    let is_full = usize::try_from(count).is_ok_and(|count| count > MAX_PEERS);
    Ok(is_full.then_some(EnrollRefused::WorkspaceFull))
}

async fn write(connection: &mut AnyConnection, entry: &Entry<'_>, now: i64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO peers (id, workspace, name, kind, wireguard_public_key, nats_public_key, endpoints, \
                            online, last_seen, created_at, preset, labels, agent_type, ttl, expires_at, \
                            token, jwt_expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10, $11, $12, $13, $14, $15, $16)",
    )
    .bind(entry.id.as_str())
    .bind(entry.workspace.as_str())
    .bind(entry.name.as_str())
    .bind(Kind(entry.kind).as_str())
    .bind(entry.wireguard_public_key.map(|key| key.to_string()))
    .bind(entry.nats_public_key)
    .bind(entry.endpoints.to_json())
    .bind(i64::from(entry.wireguard_public_key.is_some()))
    .bind(now)
    .bind(entry.preset)
    .bind(columns::labels(entry.labels)?)
    .bind(entry.agent_type)
    .bind(entry.ttl)
    .bind(entry.end(now))
    .bind(entry.token)
    .bind(entry.jwt_expires_at)
    .execute(connection)
    .await
    .map(drop)
}
