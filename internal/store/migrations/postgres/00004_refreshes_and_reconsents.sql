-- What replicas must agree on about a connection. Everything is in tables of its own,
-- so that a program that does not know them can go on using the others: it may also
-- delete a connection, and what is noted of it goes along.

-- +goose Up

-- Who may refresh a connection's token, and how the last refresh ended.
CREATE TABLE connection_refreshes (
    connection_id uuid PRIMARY KEY REFERENCES connections (id) ON DELETE CASCADE,
    version       bigint NOT NULL,           -- of the newest lease; it fences the ones before
    held_until    timestamptz,               -- by this server's clock; NULL: nobody holds it
    ended         bigint NOT NULL DEFAULT 0, -- the newest lease that was given back
    outcome       text                       -- of that lease; NULL: a success
);

-- A consent to a connection that is there already. Until it succeeds the connection
-- stays as it is.
CREATE TABLE reconsents (
    connection_id uuid PRIMARY KEY REFERENCES connections (id) ON DELETE CASCADE,
    issued_at     timestamptz NOT NULL,      -- as the state says, which it belongs to
    code_verifier text,
    scopes        text[],
    return_url    text NOT NULL,
    expires_at    timestamptz NOT NULL,
    claimed_at    timestamptz
);

CREATE INDEX connections_by_workspace ON connections (workspace_id, created_at, id) WHERE status <> 'pending';
