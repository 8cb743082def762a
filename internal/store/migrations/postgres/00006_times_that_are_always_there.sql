-- The tables of the existing broker allow a row without created_at or updated_at, and a
-- listing that goes by age, page by page, would not come to it. Where that broker may use
-- the database still nothing changes: "migrate finish" does the same then.

-- +goose Up
-- +goose StatementBegin
DO $do$
BEGIN
    IF EXISTS (SELECT FROM existing_broker WHERE finished_at IS NULL) THEN
        RETURN;
    END IF;
    UPDATE provider_profiles SET created_at = COALESCE(created_at, now()), updated_at = COALESCE(updated_at, now())
        WHERE created_at IS NULL OR updated_at IS NULL;
    UPDATE connections SET created_at = COALESCE(created_at, now()), updated_at = COALESCE(updated_at, now())
        WHERE created_at IS NULL OR updated_at IS NULL;
    UPDATE tokens SET created_at = now() WHERE created_at IS NULL;
    UPDATE audit_events SET created_at = now() WHERE created_at IS NULL;
    ALTER TABLE provider_profiles ALTER created_at SET NOT NULL, ALTER updated_at SET NOT NULL;
    ALTER TABLE connections ALTER created_at SET NOT NULL, ALTER updated_at SET NOT NULL;
    ALTER TABLE tokens ALTER created_at SET NOT NULL;
END;
$do$;
-- +goose StatementEnd
