// Package keyrotation brings everything that is sealed in the broker's database under
// the first key of the ring, while brokers serve from that database, and tells under
// which keys it is.
//
// What is sealed under the first key is left alone without being opened, so that a
// rotation that was interrupted, in whatever way, goes on when it is run again. An
// envelope is replaced only where it still is the one that was opened: what a broker
// writes meanwhile, under the first key, stays.
package keyrotation

import (
	"context"
	"time"
)

// Place is a column that holds envelopes, by the name of its table.
type Place string

// The places.
const (
	Tokens      Place = "tokens"         // by connection
	Credentials Place = "sealed_secrets" // by key
	Consents    Place = "connections"    // code verifiers of first consents, by connection
	Reconsents  Place = "reconsents"     // code verifiers of the others, by connection
)

// Places returns every place, in the order in which they are rotated. Consents are last:
// what they hold ends by itself.
func Places() []Place { return []Place{Tokens, Credentials, Consents, Reconsents} }

// Envelope is a sealed value of a place.
type Envelope struct {
	Row     string // which row of the place: an id, or a key
	Purpose string // what it was sealed for
	Sealed  string
	// Until is when it is of no use any more; zero: never.
	Until time.Time
}

// Change replaces an envelope.
type Change struct {
	Envelope Envelope // as it was read
	Sealed   string   // the new envelope of the same value; "": the value is erased
}

// Rows is the part of the broker's store that keeps envelopes. Its methods are safe for
// concurrent use, by several processes too, and honour ctx.
type Rows interface {
	// CountEnvelopes returns how many envelopes a place holds.
	CountEnvelopes(ctx context.Context, place Place) (int, error)
	// Envelopes returns at most limit envelopes of a place that follow the row after, in
	// the order of the rows; "" is before the first.
	Envelopes(ctx context.Context, place Place, after string, limit int) ([]Envelope, error)
	// ReplaceEnvelopes makes each change whose row still holds its envelope, all in one
	// transaction, and returns how many it has made. Nothing else of a row changes: no
	// version, no time. Only an envelope with Until can be erased.
	ReplaceEnvelopes(ctx context.Context, place Place, changes []Change) (int, error)
}
