-- Times are Unix seconds; addresses are IPv4 as an integer, host order; booleans are 0 or 1; maps are JSON.
-- ../postgres says the same in the words of Postgres: whoever changes one changes the other.

CREATE TABLE workspaces (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    -- Its IPv6 addresses, a random /48 (RFC 4193).
    prefix     TEXT NOT NULL UNIQUE,
    -- Of the network map. Grows in the same transaction as every change that a map shows.
    generation INTEGER NOT NULL DEFAULT 1,
    -- The generation of the last change of policies or labels.
    rules      INTEGER NOT NULL DEFAULT 1,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE tokens (
    id          TEXT PRIMARY KEY,
    workspace   TEXT NOT NULL REFERENCES workspaces (id),
    secret_hash BLOB NOT NULL CHECK (length(secret_hash) = 32),
    max_uses    INTEGER NOT NULL CHECK (max_uses >= 0),
    uses        INTEGER NOT NULL DEFAULT 0 CHECK (uses BETWEEN 0 AND max_uses),
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    revoked_at  INTEGER,
    preset      TEXT,
    labels      TEXT NOT NULL DEFAULT '{}',
    name_prefix TEXT,
    -- How long a peer lives that it admits.
    peer_ttl    INTEGER CHECK (peer_ttl > 0),
    -- The one reserved peer that it admits.
    peer        TEXT,
    created_by  TEXT NOT NULL
) STRICT;

CREATE INDEX tokens_by_workspace ON tokens (workspace);
CREATE INDEX tokens_by_peer ON tokens (peer) WHERE peer IS NOT NULL;

-- A removed peer keeps its row for a while (--keep-removed): NATS must be told to refuse it, and people ask who it was. Its id, 80 random
-- bits, may appear in records for ever.
-- A peer without a WireGuard key is reserved: it has a name and an address, and is in no map yet.
CREATE TABLE peers (
    id                   TEXT PRIMARY KEY,
    workspace            TEXT NOT NULL REFERENCES workspaces (id),
    name                 TEXT NOT NULL,
    kind                 TEXT NOT NULL CHECK (kind IN ('sandbox', 'node')),
    wireguard_public_key TEXT,
    nats_public_key      TEXT,
    endpoints            TEXT NOT NULL,
    online               INTEGER NOT NULL CHECK (online IN (0, 1)),
    last_seen            INTEGER NOT NULL,
    created_at           INTEGER NOT NULL,
    removed_at           INTEGER,
    preset               TEXT,
    labels               TEXT NOT NULL DEFAULT '{}',
    agent_type           TEXT,
    ttl                  INTEGER CHECK (ttl > 0),
    expires_at           INTEGER,
    -- Which one admitted it.
    token                TEXT REFERENCES tokens (id),
    -- No JWT of it is valid after this.
    jwt_expires_at       INTEGER,
    -- The generation at which others last saw it change. NULL only within the transaction that changes it.
    changed              INTEGER
) STRICT;

CREATE UNIQUE INDEX peers_live_name ON peers (workspace, name) WHERE removed_at IS NULL;

-- Public keys are not secret: were they not unique, a newcomer could enrol with the key of another peer and take over
-- its entry in every device, or its subjects in NATS.
CREATE UNIQUE INDEX peers_live_wireguard_key ON peers (wireguard_public_key) WHERE removed_at IS NULL;
CREATE UNIQUE INDEX peers_live_nats_key ON peers (nats_public_key) WHERE removed_at IS NULL;

CREATE INDEX peers_changed ON peers (workspace, changed);
-- Finds those who are there among all that ever were. Not by last_seen: it would be rewritten with every heartbeat.
CREATE INDEX peers_online ON peers (id) WHERE online = 1;
CREATE INDEX peers_expiring ON peers (expires_at) WHERE removed_at IS NULL;
CREATE INDEX peers_revoked ON peers (jwt_expires_at) WHERE removed_at IS NOT NULL;
CREATE INDEX peers_removed ON peers (removed_at) WHERE removed_at IS NOT NULL;

-- A removed peer keeps its lease until free_at: packets and firewalls still know its address.
CREATE TABLE leases (
    address INTEGER PRIMARY KEY CHECK (address BETWEEN 0 AND 4294967295),
    peer    TEXT NOT NULL UNIQUE REFERENCES peers (id),
    free_at INTEGER
) STRICT;

CREATE INDEX leases_quarantined ON leases (free_at) WHERE free_at IS NOT NULL;

CREATE TABLE policies (
    id         TEXT PRIMARY KEY,
    workspace  TEXT NOT NULL REFERENCES workspaces (id),
    name       TEXT NOT NULL,
    spec       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    UNIQUE (workspace, name)
) STRICT;

CREATE TABLE admin_tokens (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    secret_hash BLOB NOT NULL CHECK (length(secret_hash) = 32),
    role        TEXT NOT NULL CHECK (role IN ('admin', 'operator', 'viewer')),
    -- The only one that it may touch; NULL: all of them.
    workspace   TEXT REFERENCES workspaces (id),
    one_time    INTEGER NOT NULL CHECK (one_time IN (0, 1)),
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER,
    revoked_at  INTEGER,
    created_by  TEXT NOT NULL
) STRICT;

-- Enrolments over HTTP that their clients may ask for again, by the key that they chose. Each caller has keys of its own.
CREATE TABLE repeatable (
    workspace    TEXT NOT NULL REFERENCES workspaces (id),
    caller       TEXT NOT NULL,
    key          TEXT NOT NULL,
    request_hash BLOB NOT NULL CHECK (length(request_hash) = 32),
    peer         TEXT NOT NULL,
    -- The token that belongs to the peer and that the last answer showed.
    token        TEXT NOT NULL,
    ends_at      INTEGER NOT NULL,
    PRIMARY KEY (workspace, caller, key)
) STRICT;

CREATE INDEX repeatable_ending ON repeatable (ends_at);

-- Security events, oldest dropped first. Not tied to the rows that they speak of, which may be gone.
CREATE TABLE events (
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    at        INTEGER NOT NULL,
    workspace TEXT,
    kind      TEXT NOT NULL,
    actor     TEXT NOT NULL,
    detail    TEXT NOT NULL
) STRICT;

-- One row: what every latticed of this database must have in common. The keys are public halves, the authority is the SHA-256 of its
-- certificate.
CREATE TABLE cluster (
    one            INTEGER PRIMARY KEY CHECK (one = 1),
    operator       TEXT NOT NULL,
    system_account TEXT NOT NULL,
    account        TEXT NOT NULL,
    authority      TEXT NOT NULL,
    pool           TEXT NOT NULL
) STRICT;

-- One row: a random number, made when a database is opened that has none. A backup is made without it: see epoch.
CREATE TABLE lineage (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    born INTEGER NOT NULL CHECK (born >= 0)
) STRICT;

-- The history that generations count in. It must be another one after a restore.
CREATE VIEW epoch AS SELECT born AS epoch FROM lineage;

CREATE VIEW members AS
    SELECT peers.*, leases.address, workspaces.prefix FROM peers
      JOIN leases ON leases.peer = peers.id JOIN workspaces ON workspaces.id = peers.workspace
    WHERE peers.removed_at IS NULL AND peers.wireguard_public_key IS NOT NULL;
