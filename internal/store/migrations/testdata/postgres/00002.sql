-- A broker in use: providers in every state of their credentials, connections in every status.
INSERT INTO provider_profiles (id, name, secret_backend, secret_key, secret_managed, credentials_state, credentials_generation)
VALUES ('00000000-0000-4000-8000-000000000101', 'vault', 'hashicorp-vault', 'vault', true, 'ready', 3);
INSERT INTO connections (id, workspace_id, provider_id, status, code_verifier, scopes, return_url, expires_at, claimed_at)
SELECT gen_random_uuid(), 'ws', '00000000-0000-4000-8000-000000000101', status, NULL, '{a,b}', 'https://r', now(), now()
FROM unnest(ARRAY['pending', 'active', 'failed', 'attention', 'revoked']) status;
INSERT INTO tokens (connection_id, encrypted_data, expires_at) SELECT id, 'sealed', now() FROM connections WHERE status = 'active'
ON CONFLICT DO NOTHING;
INSERT INTO leases (name, holder, held_until) VALUES ('sweep', 'somebody', now());
