-- The tables of the existing broker, in the shape that its newest version gives
-- them, so that what is added from 00002 on is the same for a new database and for
-- one that is upgraded.

-- +goose Up
CREATE TABLE provider_profiles (
    id                   uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name                 varchar(255) NOT NULL,
    client_id            varchar(255),
    client_secret        text,
    auth_url             text,
    token_url            text,
    scopes               text[],
    created_at           timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT now(),
    issuer               text,
    enable_discovery     boolean NOT NULL DEFAULT false,
    deleted_at           timestamptz,
    auth_type            text NOT NULL DEFAULT 'oauth2',
    auth_header          text,
    params               jsonb,
    api_base_url         text,
    user_info_endpoint   text,
    description          text,
    category             varchar(100),
    last_health_check_at timestamptz,
    health_status        varchar(50) DEFAULT 'unknown',
    health_message       text
);

CREATE UNIQUE INDEX provider_profiles_name_active ON provider_profiles (name) WHERE deleted_at IS NULL;

CREATE TABLE connections (
    id                   uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_id         varchar(255) NOT NULL,
    provider_id          uuid NOT NULL REFERENCES provider_profiles (id),
    status               varchar(50) DEFAULT 'pending',
    code_verifier        text,
    scopes               text[],
    return_url           text,
    created_at           timestamptz NOT NULL DEFAULT now(),
    expires_at           timestamptz,
    updated_at           timestamptz NOT NULL DEFAULT now(),
    last_health_check_at timestamptz,
    health_status        varchar(50) DEFAULT 'unknown',
    revoked_at           timestamptz,
    revocation_reason    text
);

CREATE TABLE tokens (
    id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    connection_id  uuid NOT NULL UNIQUE REFERENCES connections (id),
    encrypted_data text NOT NULL,
    expires_at     timestamptz,
    created_at     timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE audit_events (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    connection_id uuid REFERENCES connections (id),
    event_type    varchar(100) NOT NULL,
    event_data    jsonb,
    ip_address    inet,
    user_agent    text,
    created_at    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE provider_aliases (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    provider_id uuid NOT NULL REFERENCES provider_profiles (id),
    alias       text NOT NULL,
    alias_norm  text NOT NULL UNIQUE,
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- +goose StatementBegin
CREATE FUNCTION provider_profiles_touch() RETURNS trigger AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END;
$$ LANGUAGE plpgsql;
-- +goose StatementEnd

CREATE TRIGGER provider_profiles_touch BEFORE UPDATE ON provider_profiles
    FOR EACH ROW EXECUTE FUNCTION provider_profiles_touch();
