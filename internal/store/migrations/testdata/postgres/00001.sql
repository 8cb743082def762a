-- What the existing broker leaves behind: rows with and without the newer values.
INSERT INTO provider_profiles (id, name, client_id, client_secret, auth_url, token_url, scopes, auth_type, params)
VALUES ('00000000-0000-4000-8000-000000000001', 'google', 'id', 'secret', 'https://a', 'https://t', '{openid,email}', 'oauth2', '{"prompt": "consent"}');
INSERT INTO provider_profiles (id, name, auth_type) VALUES ('00000000-0000-4000-8000-000000000002', 'New Provider Name', '');
INSERT INTO provider_profiles (id, name, deleted_at) VALUES ('00000000-0000-4000-8000-000000000003', 'google', now());
INSERT INTO connections (id, workspace_id, provider_id, status, code_verifier, scopes, return_url, expires_at)
VALUES ('00000000-0000-4000-8000-000000000011', 'ws', '00000000-0000-4000-8000-000000000001', 'active', 'plain', NULL, 'https://r', now());
INSERT INTO tokens (connection_id, encrypted_data) VALUES ('00000000-0000-4000-8000-000000000011', 'X+zr');
INSERT INTO audit_events (connection_id, event_type, event_data, ip_address)
VALUES ('00000000-0000-4000-8000-000000000011', 'token_retrieved', '"text"', '10.1.2.3'), (NULL, 'provider.created', NULL, NULL);
