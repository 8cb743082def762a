package relational

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
)

// pairInRow tells a row whose credentials lie in the row itself. Empty texts count as
// absent, and a row that names a backend says where its credentials are.
const pairInRow = "(secret_backend IS NULL AND (COALESCE(client_id, '') <> '' OR COALESCE(client_secret, '') <> ''))"

const maxClientID = 255

// Unfinished reports whether the existing broker may use the database too. It never uses
// one unless a store says otherwise.
func (s *Store) Unfinished(context.Context) (bool, error) { return false, nil }

func storablePair(p credentials.Pair) error {
	return storable(limited{"client_id", p.ClientID.Reveal(), maxClientID}, limited{"client_secret", p.ClientSecret.Reveal(), 0})
}

func pairValues(p credentials.Pair) []any {
	return []any{textOrNull(p.ClientID.Reveal()), textOrNull(p.ClientSecret.Reveal())}
}

var insertProviderInRow = "INSERT INTO provider_profiles (id, client_id, client_secret, " +
	strings.Join(writtenColumns, ", ") + ") VALUES (" + placeholders(1, 3+len(writtenColumns)) + ")"

// InsertProviderInRow inserts p with its pair.
func (s *Store) InsertProviderInRow(ctx context.Context, p broker.Provider, pair credentials.Pair, events ...audit.Event) error {
	err := storableProvider(p)
	if err == nil {
		err = storablePair(pair)
	}
	if err != nil {
		return err
	}
	args := append(append([]any{p.ID}, pairValues(pair)...), writtenValues(p)...)
	_, err = s.db.Change(ctx, insertProviderInRow, args, events)
	return err
}

var updateProviderInRow = fmt.Sprintf(`UPDATE provider_profiles SET op = NULL, op_id = NULL, op_until = NULL,
	client_id = $%d, client_secret = $%d, `, 3+len(writtenColumns), 4+len(writtenColumns)) +
	assignments(3, writtenColumns) + " WHERE id = $1 AND op_id = $2 AND " + published

// UpdateProviderInRow stores p with its pair and ends op.
func (s *Store) UpdateProviderInRow(
	ctx context.Context, p broker.Provider, op broker.Op, pair credentials.Pair, add []broker.Cleanup, events ...audit.Event,
) error {
	err := storableProvider(p)
	if err == nil {
		err = storablePair(pair)
	}
	if err != nil {
		return err
	}
	args := append(append([]any{p.ID, op.ID}, writtenValues(p)...), pairValues(pair)...)
	return s.finishOp(ctx, updateProviderInRow, args, add, nil, events)
}

// Plain implements internalbackend.PlainRows.
func (s *Store) Plain(key string) bool {
	_, _, ok := credentials.ParseInRow(key)
	return ok
}

// PlainValues implements internalbackend.PlainRows.
func (s *Store) PlainValues(ctx context.Context, keys []string) ([]string, error) {
	pairs := map[uuid.UUID]map[string]string{}
	values := make([]string, len(keys))
	for i, key := range keys {
		id, value, ok := credentials.ParseInRow(key)
		if !ok {
			return nil, fmt.Errorf("%q is no key of a value in a row", key)
		}
		if pairs[id] == nil {
			pair, err := s.pairInRow(ctx, id)
			if err != nil {
				return nil, err
			}
			pairs[id] = pair
		}
		values[i] = pairs[id][value]
	}
	return values, nil
}

func (s *Store) pairInRow(ctx context.Context, id uuid.UUID) (map[string]string, error) {
	pair := map[string]string{}
	err := s.db.Query(ctx, "SELECT client_id, client_secret FROM provider_profiles WHERE id = $1", []any{id}, func(scan Scan) error {
		var clientID, clientSecret string
		err := scan(text(&clientID), text(&clientSecret))
		pair[credentials.ClientIDKey], pair[credentials.ClientSecretKey] = clientID, clientSecret
		return err
	})
	return pair, err
}
