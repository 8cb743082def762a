package main

import (
	"database/sql"

	"github.com/rogpeppe/go-internal/testscript"
	_ "modernc.org/sqlite" // the driver that the row is written with
)

// emptyProvider DATABASE NAME inserts a provider whose row says that its credentials are
// in the broker's own database, where nothing is.
func emptyProvider(ts *testscript.TestScript, _ bool, args []string) {
	db, err := sql.Open("sqlite", ts.MkAbs(args[0]))
	ts.Check(err)
	defer db.Close()
	_, err = db.Exec(`INSERT INTO provider_profiles (id, name, created_at, updated_at, secret_backend, secret_key, secret_managed, credentials_state, credentials_generation)
		VALUES ('6e2f6c1e-0f0e-4c53-9d3c-0f8f2f1e9a55', $1, 1, 1, 'internal', $1, 1, 'ready', 1)`, args[1])
	ts.Check(err)
}
