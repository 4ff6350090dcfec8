//! What network maps are made of, read from one snapshot: the version always belongs to the peers and policies beside it.

use ipnet::{IpNet, Ipv4Net};
use lattice_policy::Overlay;
use lattice_wire::{MapPeer, MapVersion, PeerId, PeerName, WorkspaceId};
use sqlx::{AnyConnection, FromRow, Row as _, any::AnyRow};

use super::{
    Store, StoreError,
    columns::{Address, text},
    peers::PeerRow,
    policies::{self, PolicyRow},
};

/// More peers that are gone are not told one by one: who needs them reads all.
const MAX_REMOVED: i64 = 10_000;
/// Generations before the newest in which who is gone is told to those who read all.
const LATELY: u64 = 256;

/// Members and policies of a workspace.
#[derive(Debug)]
pub struct Snapshot {
    generation: u64,
    overlay: Overlay,
    members: Vec<PeerRow>,
    policies: Vec<PolicyRow>,
}

/// What has changed in a workspace since some generation; or all there is.
#[derive(Debug)]
pub struct Changes {
    /// What it leads to.
    pub version: MapVersion,
    /// The workspace's name.
    pub name: PeerName,
    /// Where its addresses lie.
    pub overlay: Overlay,
    /// Every change after this generation is in here.
    pub since: u64,
    /// Whether it is all there is.
    pub whole: bool,
    /// The policies, when they or labels may be others than before.
    pub policies: Option<Vec<PolicyRow>>,
    /// Members that are new or different, and the generation that made them so. In the whole, also those that `removed` names.
    pub changed: Vec<(PeerRow, u64)>,
    /// Peers that are gone, and the generation that removed them, in its order.
    pub removed: Vec<(PeerId, u64)>,
}

/// Where a living peer belongs.
#[derive(Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its workspace.
    pub workspace: WorkspaceId,
    /// Of its map.
    pub version: MapVersion,
    /// Unix seconds from which on it is no member any more.
    pub not_after: Option<i64>,
}

impl Store {
    /// What has changed in `workspace` after `have`; all there is without it, when it is of another epoch, or when too much has.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn changes(
        &self,
        workspace: &WorkspaceId,
        have: Option<MapVersion>,
        now: i64,
    ) -> Result<Changes, StoreError> {
        let mut transaction = self.begin_read().await?;
        let select = "SELECT epoch, generation, rules, name, prefix FROM workspaces, epoch WHERE id = $1";
        let row = sqlx::query(select).bind(workspace.as_str()).fetch_one(&mut *transaction).await?;
        let version = version(row.try_get("epoch")?, row.try_get("generation")?);
        let (rules, name): (i64, _) = (row.try_get("rules")?, text(&row, "name")?);
        let overlay = self.overlay(text(&row, "prefix")?)?;
        let have = have.filter(|have| have.epoch == version.epoch && have.generation <= version.generation);
        let since = have.map(|have| have.generation);
        let changes = match since {
            Some(since) => since_then(&mut transaction, workspace, since).await?,
            None => None,
        };
        let whole = changes.is_none();
        let (since, changed, removed) = match (since, changes) {
            (Some(since), Some((changed, removed))) => (since, changed, removed),
            _ => {
                let since = version.generation.saturating_sub(LATELY);
                let (changed, removed) = all(&mut transaction, workspace, since).await?;
                (since, changed, removed)
            }
        };
        let policies = match whole || rules.cast_unsigned() > since {
            true => Some(policies::in_force(&mut transaction, workspace, now).await?),
            false => None,
        };
        transaction.commit().await?;
        Ok(Changes { version, name, overlay, since, whole, policies, changed, removed })
    }

    /// Where a peer belongs; `None` when there is no such peer, or its time is over.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn standing(&self, id: &PeerId, now: i64) -> Result<Option<Standing>, StoreError> {
        let row = sqlx::query(
            "SELECT workspaces.id AS workspace, epoch, generation, expires_at FROM members \
               JOIN workspaces ON workspaces.id = members.workspace CROSS JOIN epoch \
             WHERE members.id = $1 AND (expires_at IS NULL OR expires_at > $2)",
        )
        .bind(id.as_str())
        .bind(now)
        .fetch_optional(&self.read)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Standing {
            workspace: text(&row, "workspace")?,
            version: version(row.try_get("epoch")?, row.try_get("generation")?),
            not_after: row.try_get("expires_at")?,
        }))
    }

    /// The workspace as it is now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn snapshot(&self, workspace: &WorkspaceId, now: i64) -> Result<Snapshot, StoreError> {
        let mut transaction = self.begin_read().await?;
        let row = sqlx::query("SELECT generation, prefix FROM workspaces WHERE id = $1")
            .bind(workspace.as_str())
            .fetch_one(&mut *transaction)
            .await?;
        let generation: i64 = row.try_get("generation")?;
        let overlay = self.overlay(text(&row, "prefix")?)?;
        let members: Vec<PeerRow> = sqlx::query_as(
            "SELECT * FROM members WHERE workspace = $1 AND (expires_at IS NULL OR expires_at > $2) \
             ORDER BY address",
        )
        .bind(workspace.as_str())
        .bind(now)
        .fetch_all(&mut *transaction)
        .await?;
        let policies = policies::in_force(&mut transaction, workspace, now).await?;
        transaction.commit().await?;
        Ok(Snapshot { generation: generation.cast_unsigned(), overlay, members, policies })
    }
}

impl Snapshot {
    /// Of the maps that it leads to.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Where all its addresses lie.
    pub fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// Its members, by address.
    pub fn members(&self) -> impl Iterator<Item = &PeerRow> {
        self.members.iter()
    }

    /// Its policies that are in force, by name.
    pub fn policies(&self) -> &[PolicyRow] {
        &self.policies
    }
}

type Rows = (Vec<(PeerRow, u64)>, Vec<(PeerId, u64)>);

/// A row, and the generation that made it what it is.
struct Marked(PeerRow, u64);

/// `None` when too many are gone.
async fn since_then(
    connection: &mut AnyConnection,
    workspace: &WorkspaceId,
    since: u64,
) -> Result<Option<Rows>, sqlx::Error> {
    let changed: Vec<Marked> = sqlx::query_as("SELECT * FROM members WHERE workspace = $1 AND changed > $2")
        .bind(workspace.as_str())
        .bind(since.cast_signed())
        .fetch_all(&mut *connection)
        .await?;
    // A place that was only reserved was in no map.
    let select = "SELECT id, changed FROM peers WHERE workspace = $1 AND changed > $2 AND removed_at IS NOT NULL \
                    AND wireguard_public_key IS NOT NULL ORDER BY changed LIMIT $3";
    let removed = sqlx::query(select)
        .bind(workspace.as_str())
        .bind(since.cast_signed())
        .bind(MAX_REMOVED + 1)
        .fetch_all(connection)
        .await?;
    if i64::try_from(removed.len()).is_ok_and(|count| count > MAX_REMOVED) {
        return Ok(None);
    }
    let removed = removed.iter().map(|row| Ok((text(row, "id")?, generation(row)?)));
    Ok(Some((pairs(changed), removed.collect::<Result<_, sqlx::Error>>()?)))
}

async fn all(
    connection: &mut AnyConnection,
    workspace: &WorkspaceId,
    since: u64,
) -> Result<Rows, sqlx::Error> {
    let members: Vec<Marked> = sqlx::query_as("SELECT * FROM members WHERE workspace = $1")
        .bind(workspace.as_str())
        .fetch_all(&mut *connection)
        .await?;
    // Whose address is leased again already is not worth remembering.
    let select = "SELECT peers.*, leases.address, workspaces.prefix FROM peers \
                    JOIN leases ON leases.peer = peers.id JOIN workspaces ON workspaces.id = peers.workspace \
                  WHERE peers.workspace = $1 AND changed > $2 AND removed_at IS NOT NULL ORDER BY changed LIMIT $3";
    let gone: Vec<Marked> = sqlx::query_as(select)
        .bind(workspace.as_str())
        .bind(since.cast_signed())
        .bind(MAX_REMOVED)
        .fetch_all(connection)
        .await?;
    let removed = gone.iter().map(|Marked(row, at)| (row.id.clone(), *at)).collect();
    Ok((pairs(members.into_iter().chain(gone).collect()), removed))
}

fn pairs(rows: Vec<Marked>) -> Vec<(PeerRow, u64)> {
    rows.into_iter().map(|Marked(row, at)| (row, at)).collect()
}

fn generation(row: &AnyRow) -> Result<u64, sqlx::Error> {
    row.try_get::<i64, _>("changed").map(i64::cast_unsigned)
}

fn version(epoch: i64, generation: i64) -> MapVersion {
    MapVersion { epoch: epoch.cast_unsigned(), generation: generation.cast_unsigned() }
}

/// What others are told of a peer. `None` for one that is only reserved, which is no member.
pub fn map_peer(row: &PeerRow) -> Option<MapPeer> {
    Some(MapPeer {
        id: row.id.clone(),
        name: row.name.clone(),
        public_key: row.wireguard_public_key?,
        allowed_ips: vec![IpNet::V4(host(row.address))],
        endpoints: row.endpoints.0.clone(),
        online: row.online,
        not_after: row.expires_at,
    })
}

/// The /32 of one address.
pub fn host(address: Address) -> Ipv4Net {
    address.0.into()
}

impl FromRow<'_, AnyRow> for Marked {
    fn from_row(row: &AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self(PeerRow::from_row(row)?, generation(row)?))
    }
}
