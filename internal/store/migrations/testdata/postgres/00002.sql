-- What a broker leaves behind that knows no references: a managed pair, an external one, and a reservation.
INSERT INTO provider_profiles (id, name, auth_url, token_url, secret_backend, secret_key, secret_managed, credentials_state, credentials_generation)
VALUES ('00000000-0000-4000-8000-000000000021', 'managed', 'https://a', 'https://t', 'hashicorp-vault', 'managed', true, 'ready', 3),
       ('00000000-0000-4000-8000-000000000022', 'external', 'https://a', 'https://t', 'hashicorp-vault', 'external', false, 'ready', 1);
INSERT INTO provider_profiles (id, name, op, op_id, op_until)
VALUES ('00000000-0000-4000-8000-000000000023', 'reserved', 'register', '00000000-0000-4000-8000-000000000024', now());
