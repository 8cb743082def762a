-- What a broker leaves behind that knows no references: a managed pair, an external one, and a reservation.
INSERT INTO provider_profiles (id, name, created_at, updated_at, auth_url, token_url, secret_backend, secret_key, secret_managed, credentials_state, credentials_generation)
VALUES ('00000000-0000-4000-8000-000000000021', 'managed', 1, 1, 'https://a', 'https://t', 'hashicorp-vault', 'managed', 1, 'ready', 3),
       ('00000000-0000-4000-8000-000000000022', 'external', 1, 1, 'https://a', 'https://t', 'hashicorp-vault', 'external', 0, 'ready', 1);
INSERT INTO provider_profiles (id, name, created_at, updated_at, op, op_id, op_until)
VALUES ('00000000-0000-4000-8000-000000000023', 'reserved', 1, 1, 'register', '00000000-0000-4000-8000-000000000024', 1);
