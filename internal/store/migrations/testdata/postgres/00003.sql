-- What a broker leaves behind that knows references: a provider with one, and a connection of it.
INSERT INTO provider_profiles (id, name, secret_backend, secret_key, secret_managed, credentials_state, credentials_generation,
                               client_id_reference, client_secret_reference)
VALUES ('00000000-0000-4000-8000-000000000031', 'referenced', 'hashicorp-vault', 'referenced', false, 'ready', 1,
        'team-a/client#id', 'team-a/client@2#secret');
INSERT INTO connections (id, workspace_id, provider_id, status, return_url)
VALUES ('00000000-0000-4000-8000-000000000032', 'ws', '00000000-0000-4000-8000-000000000031', 'active', 'https://r');
