package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/nexus-broker/nexus-broker/internal/config"
	"github.com/nexus-broker/nexus-broker/internal/seal"
)

// sealedSamples is how many tokens, and how many credentials, are opened.
const sealedSamples = 100

// sample is what has come of opening some of what is sealed in a database.
type sample struct {
	looked int
	closed int // opened by no key
	old    int // opened by a later key than the first
}

// openSealed opens some of what is sealed in the database.
func openSealed(ctx context.Context, db database, keys *seal.Keyring) (s sample, err error) {
	all, err := db.SealedSamples(ctx, sealedSamples)
	if err != nil {
		return s, err
	}
	s.looked = len(all)
	first := keys.First() // an envelope of an earlier broker names no key
	for _, each := range all {
		if _, err := keys.Open(each.Purpose, each.Sealed); err != nil {
			s.closed++
		} else if _, err := first.Open(each.Purpose, each.Sealed); err != nil {
			s.old++
		}
	}
	return s, nil
}

// total counts what was looked at.
func (s sample) total() string {
	return counted(s.looked, "sealed value that was looked at", "sealed values that were looked at")
}

// adviseKey is what to do where ENCRYPTION_KEY does not open something.
const adviseKey = "add the key that they were sealed under to the end of the list"

// checkKey refuses to start with a key that opens nothing of what is in the database: such
// a broker could hand out no token, and would seal what no other replica can open. Where
// the key opens only some, it says so, and returns that for GET /health/ready.
func checkKey(ctx context.Context, db database, keys *seal.Keyring, log *slog.Logger) (fault string, err error) {
	s, err := openSealed(ctx, db, keys)
	if err != nil || s.closed == 0 {
		return "", err
	}
	wrong := fmt.Sprintf("does not open %d of %s", s.closed, s.total())
	if s.closed == s.looked {
		return "", config.Problems{{Variable: "ENCRYPTION_KEY", Wrong: wrong,
			Want: "it must be the key of the brokers that use this database, or have it in its list"}}
	}
	fault = "ENCRYPTION_KEY " + wrong
	log.WarnContext(ctx, fault+"; "+adviseKey)
	return fault, nil
}
