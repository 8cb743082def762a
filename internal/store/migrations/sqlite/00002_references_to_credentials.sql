-- Credentials at a path of somebody else's: where each value lies, as path[@version][#field].
-- Null for a pair under secret_key, which every row until now has.

-- +goose Up
ALTER TABLE provider_profiles ADD COLUMN client_id_reference text;
ALTER TABLE provider_profiles ADD COLUMN client_secret_reference text;
