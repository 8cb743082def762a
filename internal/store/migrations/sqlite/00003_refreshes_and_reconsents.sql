-- What replicas must agree on about a connection, in tables of its own.

-- +goose Up

-- Who may refresh a connection's token, and how the last refresh ended.
CREATE TABLE connection_refreshes (
    connection_id TEXT PRIMARY KEY REFERENCES connections (id) ON DELETE CASCADE,
    version       INTEGER NOT NULL,           -- of the newest lease; it fences the ones before
    held_until    INTEGER,                    -- by SQLite's clock; NULL: nobody holds it
    ended         INTEGER NOT NULL DEFAULT 0, -- the newest lease that was given back
    outcome       TEXT                        -- of that lease; NULL: a success
) STRICT;

-- A consent to a connection that is there already. Until it succeeds the connection
-- stays as it is.
CREATE TABLE reconsents (
    connection_id TEXT PRIMARY KEY REFERENCES connections (id) ON DELETE CASCADE,
    issued_at     INTEGER NOT NULL,           -- as the state says, which it belongs to
    code_verifier TEXT,
    scopes        TEXT,
    return_url    TEXT NOT NULL,
    expires_at    INTEGER NOT NULL,
    claimed_at    INTEGER
) STRICT;

CREATE INDEX connections_by_workspace ON connections (workspace_id, created_at, id) WHERE status <> 'pending';
