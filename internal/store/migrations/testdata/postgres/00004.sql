-- What a broker leaves behind that knows re-consents: one under way, a refresh that is leased, and one that has ended.
INSERT INTO provider_profiles (id, name, secret_backend, secret_key, secret_managed, credentials_state, credentials_generation)
VALUES ('00000000-0000-4000-8000-000000000041', 'reconsented', 'internal', 'reconsented', true, 'ready', 2);
INSERT INTO sealed_secrets (key, sealed, owner, version, created_at, updated_at)
VALUES ('reconsented/client_id', 'nb1.sealed', NULL, 1, now(), now());
INSERT INTO connections (id, workspace_id, provider_id, status, return_url)
VALUES ('00000000-0000-4000-8000-000000000042', 'ws', '00000000-0000-4000-8000-000000000041', 'active', 'https://r'),
       ('00000000-0000-4000-8000-000000000043', 'ws', '00000000-0000-4000-8000-000000000041', 'active', 'https://r');
INSERT INTO connections (id, workspace_id, provider_id, status, code_verifier, return_url, expires_at)
VALUES ('00000000-0000-4000-8000-000000000044', 'ws', '00000000-0000-4000-8000-000000000041', 'pending', 'nb1.sealed', 'https://r', now());
INSERT INTO connection_refreshes (connection_id, version, held_until, ended, outcome)
VALUES ('00000000-0000-4000-8000-000000000042', 3, now(), 2, 'provider_rate_limited'),
       ('00000000-0000-4000-8000-000000000043', 1, NULL, 1, NULL);
INSERT INTO reconsents (connection_id, issued_at, code_verifier, scopes, return_url, expires_at)
VALUES ('00000000-0000-4000-8000-000000000042', now(), 'nb1.sealed', '{a}', 'https://r', now());
