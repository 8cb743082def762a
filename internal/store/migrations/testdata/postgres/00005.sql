-- What a broker leaves behind in a database whose upgrade is not finished: a row that the existing broker
-- has written since.
INSERT INTO provider_profiles (id, name, client_id, client_secret)
VALUES ('00000000-0000-4000-8000-000000000051', 'written by the other', 'id', 'secret');
INSERT INTO connections (id, workspace_id, provider_id, status, code_verifier, return_url, expires_at)
VALUES ('00000000-0000-4000-8000-000000000052', 'ws', '00000000-0000-4000-8000-000000000051', 'pending', 'plain', 'https://r', now());
