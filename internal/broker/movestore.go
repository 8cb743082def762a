package broker

import (
	"context"

	"github.com/google/uuid"
)

// NamedBackend is a secret backend that is named by rows, with how many of them do.
type NamedBackend struct {
	Name      string
	Providers int // whose credentials it holds
	Managed   int // of them, those whose credentials the broker wrote
	Due       int // cleanups that a sweep carries out
	Kept      int // cleanups that wait for a person
}

// MoveStore is what moving credentials between backends needs beside the rest.
type MoveStore interface {
	// ProvidersByAge returns the visible providers, and deleted ones whose credentials
	// are still needed, oldest first: what is registered meanwhile comes at the end.
	ProvidersByAge(ctx context.Context, page Page) ([]Provider, error)
	// CountProviders returns how many ProvidersByAge has in all.
	CountProviders(ctx context.Context) (int, error)
	// KeptCleanups returns the kept cleanups of a backend in the order of their ids, the
	// page's After being one of these.
	KeptCleanups(ctx context.Context, backend string, page Page) ([]Cleanup, error)
	// NamedBackends counts, for each secret backend that is named by a provider's row or by a
	// cleanup, what names it, in the order of the names. What it counts of providers are those
	// of ProvidersByAge.
	NamedBackends(ctx context.Context) ([]NamedBackend, error)
	// ReleaseCleanups ends the claims on cleanups and leaves them as they were. Not an
	// error if one is gone.
	ReleaseCleanups(ctx context.Context, ids ...uuid.UUID) error
}
