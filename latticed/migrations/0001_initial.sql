-- Times are Unix seconds; addresses are IPv4 as an integer, host order.

CREATE TABLE workspaces (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    -- Of the network map. Grows in the same transaction as every change that a map shows.
    generation INTEGER NOT NULL DEFAULT 1,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE tokens (
    id          TEXT PRIMARY KEY,
    workspace   TEXT NOT NULL REFERENCES workspaces (id),
    secret_hash BLOB NOT NULL CHECK (length(secret_hash) = 32),
    max_uses    INTEGER NOT NULL CHECK (max_uses > 0),
    uses        INTEGER NOT NULL DEFAULT 0 CHECK (uses BETWEEN 0 AND max_uses),
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    revoked_at  INTEGER
) STRICT;

CREATE INDEX tokens_by_workspace ON tokens (workspace);

-- A removed peer keeps its row, without a lease: its id may appear in records for ever, and must never be reused.
CREATE TABLE peers (
    id                   TEXT PRIMARY KEY,
    workspace            TEXT NOT NULL REFERENCES workspaces (id),
    name                 TEXT NOT NULL,
    kind                 TEXT NOT NULL CHECK (kind IN ('sandbox', 'node')),
    wireguard_public_key TEXT NOT NULL,
    nats_public_key      TEXT NOT NULL,
    endpoints            TEXT NOT NULL,
    online               INTEGER NOT NULL CHECK (online IN (0, 1)),
    last_seen            INTEGER NOT NULL,
    created_at           INTEGER NOT NULL,
    removed_at           INTEGER
) STRICT;

CREATE UNIQUE INDEX peers_live_name ON peers (workspace, name) WHERE removed_at IS NULL;

-- Public keys are not secret: were they not unique, a newcomer could enrol with the key of another peer and take over
-- its entry in every device.
CREATE UNIQUE INDEX peers_live_wireguard_key ON peers (wireguard_public_key) WHERE removed_at IS NULL;

CREATE INDEX peers_online ON peers (last_seen) WHERE online = 1;

CREATE TABLE leases (
    address INTEGER PRIMARY KEY CHECK (address BETWEEN 0 AND 4294967295),
    peer    TEXT NOT NULL UNIQUE REFERENCES peers (id)
) STRICT;

CREATE VIEW members AS
    SELECT peers.*, leases.address FROM peers JOIN leases ON leases.peer = peers.id WHERE peers.removed_at IS NULL;
