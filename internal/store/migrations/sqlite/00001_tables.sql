-- The same tables as in PostgreSQL. Ids are UUIDs in lower-case text; times are
-- microseconds since 1970 in UTC, so that they sort; lists and objects are JSON.

-- +goose Up
CREATE TABLE provider_profiles (
    id                     TEXT PRIMARY KEY,
    name                   TEXT NOT NULL,
    client_id              TEXT,
    client_secret          TEXT,
    auth_url               TEXT,
    token_url              TEXT,
    scopes                 TEXT,
    created_at             INTEGER NOT NULL,
    updated_at             INTEGER NOT NULL,
    issuer                 TEXT,
    enable_discovery       INTEGER NOT NULL DEFAULT 0,
    deleted_at             INTEGER,
    auth_type              TEXT NOT NULL DEFAULT 'oauth2',
    auth_header            TEXT,
    params                 TEXT,
    api_base_url           TEXT,
    user_info_endpoint     TEXT,
    description            TEXT,
    category               TEXT,
    last_health_check_at   INTEGER,
    health_status          TEXT DEFAULT 'unknown',
    health_message         TEXT,
    revocation_url         TEXT,
    secret_backend         TEXT,
    secret_key             TEXT,
    secret_managed         INTEGER NOT NULL DEFAULT 0,
    secret_public          INTEGER NOT NULL DEFAULT 0,
    secret_optional        INTEGER NOT NULL DEFAULT 0,
    credentials_state      TEXT NOT NULL DEFAULT 'unknown',
    credentials_generation INTEGER NOT NULL DEFAULT 0,
    -- The operation that holds the row: 'register' makes it a reservation of the name.
    op                     TEXT,
    op_id                  TEXT,
    op_until               INTEGER
) STRICT;

CREATE UNIQUE INDEX provider_profiles_name_active ON provider_profiles (name) WHERE deleted_at IS NULL;
CREATE INDEX provider_profiles_by_age ON provider_profiles (created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX provider_profiles_by_lower_name ON provider_profiles (lower(name)) WHERE deleted_at IS NULL;
CREATE INDEX provider_profiles_in_operation ON provider_profiles (op_until) WHERE op_until IS NOT NULL;
CREATE INDEX provider_profiles_orphans ON provider_profiles (secret_backend, deleted_at)
    WHERE deleted_at IS NOT NULL AND secret_managed;

CREATE TABLE connections (
    id                   TEXT PRIMARY KEY,
    workspace_id         TEXT NOT NULL,
    provider_id          TEXT NOT NULL REFERENCES provider_profiles (id),
    status               TEXT DEFAULT 'pending',
    code_verifier        TEXT,
    scopes               TEXT,
    return_url           TEXT,
    created_at           INTEGER NOT NULL,
    expires_at           INTEGER,
    updated_at           INTEGER NOT NULL,
    last_health_check_at INTEGER,
    health_status        TEXT DEFAULT 'unknown',
    revoked_at           INTEGER,
    revocation_reason    TEXT,
    -- When the state of a pending connection was used: it works once.
    claimed_at           INTEGER
) STRICT;

CREATE INDEX connections_by_provider ON connections (provider_id, status);

CREATE TABLE tokens (
    id             TEXT PRIMARY KEY,
    connection_id  TEXT NOT NULL UNIQUE REFERENCES connections (id),
    encrypted_data TEXT NOT NULL,
    expires_at     INTEGER,
    created_at     INTEGER NOT NULL
) STRICT;

CREATE TABLE audit_events (
    id            TEXT PRIMARY KEY,
    connection_id TEXT REFERENCES connections (id),
    event_type    TEXT NOT NULL,
    event_data    TEXT,
    ip_address    TEXT,
    user_agent    TEXT,
    created_at    INTEGER NOT NULL
) STRICT;

CREATE INDEX audit_events_by_age ON audit_events (created_at, id);
CREATE INDEX audit_events_by_type ON audit_events (event_type, created_at, id);
CREATE INDEX audit_events_by_connection ON audit_events (connection_id, created_at, id);

-- Pairs of credentials that are to be deleted from a backend.
CREATE TABLE credential_cleanups (
    id            TEXT PRIMARY KEY,
    backend       TEXT NOT NULL,
    secret_key    TEXT NOT NULL,
    provider_id   TEXT NOT NULL,
    generation    INTEGER NOT NULL,
    published     INTEGER NOT NULL,
    due_at        INTEGER NOT NULL,
    attempts      INTEGER NOT NULL DEFAULT 0,
    last_error    TEXT,
    claimed_until INTEGER,
    created_at    INTEGER NOT NULL
) STRICT;

CREATE INDEX credential_cleanups_due ON credential_cleanups (due_at, id);
CREATE INDEX credential_cleanups_by_place ON credential_cleanups (backend, secret_key);

-- The internal backend's values, sealed for the purpose 'secret/<key>'.
CREATE TABLE sealed_secrets (
    key        TEXT PRIMARY KEY,
    sealed     TEXT NOT NULL,
    owner      TEXT,
    version    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- Work that one replica at a time does.
CREATE TABLE leases (
    name       TEXT PRIMARY KEY,
    holder     TEXT NOT NULL,
    held_until INTEGER NOT NULL
) STRICT;
