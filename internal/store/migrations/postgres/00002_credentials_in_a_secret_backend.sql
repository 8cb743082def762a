-- What a broker needs whose credentials lie in a secret backend. Everything here
-- only adds: a row written by a program that does not know these columns is a
-- published provider whose credentials are in client_id and client_secret.

-- +goose Up
ALTER TABLE provider_profiles
    ADD COLUMN revocation_url         text,
    ADD COLUMN secret_backend         text,
    ADD COLUMN secret_key             text,
    ADD COLUMN secret_managed         boolean NOT NULL DEFAULT false,
    ADD COLUMN secret_public          boolean NOT NULL DEFAULT false,
    ADD COLUMN secret_optional        boolean NOT NULL DEFAULT false,
    ADD COLUMN credentials_state      text NOT NULL DEFAULT 'unknown',
    ADD COLUMN credentials_generation bigint NOT NULL DEFAULT 0,
    -- The operation that holds the row: 'register' makes it a reservation of the name.
    ADD COLUMN op                     text,
    ADD COLUMN op_id                  uuid,
    ADD COLUMN op_until               timestamptz;

-- Who changes a profile without an operation does not know to say when: it gets the
-- server's time. What an operation stores is kept as it is given, and to note the
-- health or the state of the credentials is no change of the profile.
DROP TRIGGER provider_profiles_touch ON provider_profiles;
CREATE TRIGGER provider_profiles_touch
    BEFORE UPDATE OF name, client_id, client_secret, auth_url, token_url, scopes, issuer, enable_discovery,
        deleted_at, auth_type, auth_header, params, api_base_url, user_info_endpoint, description, category
    ON provider_profiles
    FOR EACH ROW WHEN (NEW.op_id IS NOT DISTINCT FROM OLD.op_id AND NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at)
    EXECUTE FUNCTION provider_profiles_touch();

CREATE INDEX provider_profiles_by_age ON provider_profiles (created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX provider_profiles_by_lower_name ON provider_profiles (lower(name)) WHERE deleted_at IS NULL;
CREATE INDEX provider_profiles_in_operation ON provider_profiles (op_until) WHERE op_until IS NOT NULL;
CREATE INDEX provider_profiles_orphans ON provider_profiles (secret_backend, deleted_at)
    WHERE deleted_at IS NOT NULL AND secret_managed;

-- When the state of a pending connection was used: it works once.
ALTER TABLE connections ADD COLUMN claimed_at timestamptz;

CREATE INDEX connections_by_provider ON connections (provider_id, status);

CREATE INDEX audit_events_by_age ON audit_events (created_at, id);
CREATE INDEX audit_events_by_type ON audit_events (event_type, created_at, id);
CREATE INDEX audit_events_by_connection ON audit_events (connection_id, created_at, id);

-- Pairs of credentials that are to be deleted from a backend.
CREATE TABLE credential_cleanups (
    id            uuid PRIMARY KEY,
    backend       text NOT NULL,
    secret_key    text NOT NULL,
    provider_id   uuid NOT NULL,
    generation    bigint NOT NULL,
    published     boolean NOT NULL,
    due_at        timestamptz NOT NULL,
    attempts      integer NOT NULL DEFAULT 0,
    last_error    text,
    claimed_until timestamptz,
    created_at    timestamptz NOT NULL
);

CREATE INDEX credential_cleanups_due ON credential_cleanups (due_at, id);
CREATE INDEX credential_cleanups_by_place ON credential_cleanups (backend, secret_key);

-- The internal backend's values, sealed for the purpose 'secret/<key>'.
CREATE TABLE sealed_secrets (
    key        text PRIMARY KEY,
    sealed     text NOT NULL,
    owner      text,
    version    bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

-- Work that one replica at a time does.
CREATE TABLE leases (
    name       text PRIMARY KEY,
    holder     text NOT NULL,
    held_until timestamptz NOT NULL
);
