package servers

// ExistingTables makes what the broker that came before keeps in PostgreSQL. Its newer
// versions have the columns of [NewerColumns] too.
const ExistingTables = `
CREATE TABLE provider_profiles (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name varchar(255) NOT NULL,
	client_id varchar(255), client_secret text, auth_url text, token_url text, scopes text[],
	created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now(), issuer text,
	enable_discovery boolean NOT NULL DEFAULT false, deleted_at timestamptz, auth_type text NOT NULL DEFAULT 'oauth2',
	auth_header text, params jsonb, api_base_url text, user_info_endpoint text, description text, category varchar(100));
CREATE UNIQUE INDEX idx_provider_profiles_name ON provider_profiles (name) WHERE deleted_at IS NULL;
CREATE TABLE connections (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), workspace_id varchar(255) NOT NULL,
	provider_id uuid REFERENCES provider_profiles (id), status varchar(50) DEFAULT 'pending', code_verifier text,
	scopes text[], return_url text, created_at timestamptz DEFAULT now(), expires_at timestamptz, updated_at timestamptz DEFAULT now());
CREATE TABLE tokens (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), connection_id uuid UNIQUE REFERENCES connections (id),
	encrypted_data text NOT NULL, expires_at timestamptz, created_at timestamptz DEFAULT now());
CREATE TABLE audit_events (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), connection_id uuid REFERENCES connections (id),
	event_type varchar(100) NOT NULL, event_data jsonb, ip_address inet, user_agent text, created_at timestamptz DEFAULT now());
CREATE TABLE provider_aliases (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), provider_id uuid REFERENCES provider_profiles (id),
	alias text NOT NULL, alias_norm text NOT NULL UNIQUE, created_at timestamptz DEFAULT now());
CREATE FUNCTION touch() RETURNS trigger AS $$ BEGIN NEW.updated_at = now(); RETURN NEW; END; $$ LANGUAGE plpgsql;
CREATE TRIGGER touch BEFORE UPDATE ON provider_profiles FOR EACH ROW EXECUTE FUNCTION touch();`

// NewerColumns adds to [ExistingTables] what the newer versions have.
const NewerColumns = `
ALTER TABLE provider_profiles ADD last_health_check_at timestamptz, ADD health_status varchar(50) DEFAULT 'unknown', ADD health_message text;
ALTER TABLE connections ADD last_health_check_at timestamptz, ADD health_status varchar(50) DEFAULT 'unknown',
	ADD revoked_at timestamptz, ADD revocation_reason text;`
