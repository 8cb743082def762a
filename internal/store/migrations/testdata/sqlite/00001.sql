-- What a broker leaves behind that knows no references: a managed pair, an external one, and a reservation.
INSERT INTO provider_profiles (id, name, created_at, updated_at, auth_url, token_url, secret_backend, secret_key, secret_managed, credentials_state, credentials_generation)
VALUES ('00000000-0000-4000-8000-000000000021', 'managed', 1, 1, 'https://a', 'https://t', 'hashicorp-vault', 'managed', 1, 'ready', 3),
       ('00000000-0000-4000-8000-000000000022', 'external', 1, 1, 'https://a', 'https://t', 'hashicorp-vault', 'external', 0, 'ready', 1);
INSERT INTO provider_profiles (id, name, created_at, updated_at, op, op_id, op_until)
VALUES ('00000000-0000-4000-8000-000000000023', 'reserved', 1, 1, 'register', '00000000-0000-4000-8000-000000000024', 1);
-- A broker in use: a provider, connections in every status, a token, a lease.
INSERT INTO provider_profiles (id, name, created_at, updated_at) VALUES ('00000000-0000-4000-8000-000000000101', 'vault', 1, 1);
INSERT INTO connections (id, workspace_id, provider_id, status, scopes, return_url, created_at, updated_at, expires_at)
SELECT '00000000-0000-4000-9000-00000000000' || value, 'ws', '00000000-0000-4000-8000-000000000101',
       json_extract('["pending","active","failed","attention","revoked"]', '$[' || value || ']'), '["a","b"]', 'https://r', 1, 1, 1
FROM json_each('[0,1,2,3,4]');
INSERT INTO tokens (id, connection_id, encrypted_data, expires_at, created_at)
VALUES ('00000000-0000-4000-a000-000000000001', '00000000-0000-4000-9000-000000000001', 'sealed', 1, 1);
INSERT INTO leases (name, holder, held_until) VALUES ('sweep', 'somebody', 1);
