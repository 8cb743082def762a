-- A broker in use: a provider, connections in every status, a token, a lease.
INSERT INTO provider_profiles (id, name, created_at, updated_at) VALUES ('00000000-0000-4000-8000-000000000101', 'vault', 1, 1);
INSERT INTO connections (id, workspace_id, provider_id, status, scopes, return_url, created_at, updated_at, expires_at)
SELECT '00000000-0000-4000-9000-00000000000' || value, 'ws', '00000000-0000-4000-8000-000000000101',
       json_extract('["pending","active","failed","attention","revoked"]', '$[' || value || ']'), '["a","b"]', 'https://r', 1, 1, 1
FROM json_each('[0,1,2,3,4]');
INSERT INTO tokens (id, connection_id, encrypted_data, expires_at, created_at)
VALUES ('00000000-0000-4000-a000-000000000001', '00000000-0000-4000-9000-000000000001', 'sealed', 1, 1);
INSERT INTO leases (name, holder, held_until) VALUES ('sweep', 'somebody', 1);
