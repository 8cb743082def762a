-- A database of the existing broker is upgraded in two steps. Until the second, "migrate
-- finish", both brokers use it: pairs of credentials lie in client_id and client_secret,
-- and pending code verifiers are plaintext. A new database is born finished.

-- +goose Up

-- One row where the existing broker has used the database, none in a new one.
CREATE TABLE IF NOT EXISTS existing_broker (
    adopted_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz                         -- NULL: the existing broker may use it still
);

-- +goose StatementBegin
DO $do$
BEGIN
    IF NOT EXISTS (SELECT FROM existing_broker) AND (
        EXISTS (SELECT FROM provider_profiles WHERE client_id <> '' OR client_secret <> '')
        OR EXISTS (SELECT FROM connections WHERE code_verifier NOT LIKE 'nb1.%')
    ) THEN
        INSERT INTO existing_broker DEFAULT VALUES;
    END IF;
    IF EXISTS (SELECT FROM existing_broker WHERE finished_at IS NULL) THEN
        -- The existing broker knows no generation: without one no cache would notice that it
        -- has changed a pair. It grows with every change of a pair that lies in the row, and
        -- two programs that change a row at once cannot take it back.
        CREATE FUNCTION provider_profiles_pair_in_row() RETURNS trigger AS $$
        BEGIN
            IF (NEW.client_id, NEW.client_secret) IS DISTINCT FROM (OLD.client_id, OLD.client_secret) THEN
                IF NEW.credentials_generation <= OLD.credentials_generation THEN
                    NEW.credentials_generation := OLD.credentials_generation + 1;
                END IF;
                IF NEW.secret_backend IS NULL THEN
                    NEW.credentials_state := 'unknown';
                END IF;
            ELSIF NEW.credentials_generation < OLD.credentials_generation THEN
                NEW.credentials_generation := OLD.credentials_generation;
            END IF;
            RETURN NEW;
        END;
        $$ LANGUAGE plpgsql;
        CREATE TRIGGER provider_profiles_pair_in_row BEFORE UPDATE ON provider_profiles
            FOR EACH ROW EXECUTE FUNCTION provider_profiles_pair_in_row();
    ELSE
        ALTER TABLE provider_profiles ADD CONSTRAINT provider_profiles_no_plaintext
            CHECK (COALESCE(client_id, '') = '' AND COALESCE(client_secret, '') = '');
        ALTER TABLE connections ADD CONSTRAINT connections_no_plaintext
            CHECK (code_verifier LIKE 'nb1.%');
    END IF;
END;
$do$;
-- +goose StatementEnd
