package relational

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
)

// A reservation holds its name and is not visible yet.
const (
	published = "COALESCE(op, '') <> 'register'"
	visible   = "deleted_at IS NULL AND " + published
)

// The columns that an operation writes, in the order of profileValues and
// credentialsValues.
var (
	profileColumns = []string{
		"name", "auth_type", "auth_header", "auth_url", "token_url", "issuer", "enable_discovery", "scopes",
		"api_base_url", "user_info_endpoint", "revocation_url", "params", "description", "category",
		"created_at", "updated_at",
	}
	credentialsColumns = []string{
		"secret_backend", "secret_key", "secret_managed", "secret_public", "secret_optional",
		"credentials_state", "credentials_generation", "client_id_reference", "client_secret_reference",
	}
	writtenColumns = slices.Concat(profileColumns, credentialsColumns)
)

const healthColumns = "health_status, health_message, last_health_check_at"

// providerColumns are the columns that scanProvider reads.
var (
	providerColumns = "id, " + strings.Join(writtenColumns, ", ") + ", " + healthColumns + ", deleted_at, " + pairInRow
	selectProvider  = "SELECT " + providerColumns + " FROM provider_profiles"
)

func readProvider(scan Scan) (broker.Provider, error) { return scanProvider(scan) }

func scanProvider(scan Scan, more ...any) (broker.Provider, error) {
	var p broker.Provider
	var params []byte
	var inRow bool
	f, c, h := &p.Profile, &p.Credentials, &p.Health
	err := scan(append([]any{
		&p.ID,
		text(&f.Name), text(&f.AuthType), text(&f.AuthHeader), text(&f.AuthURL), text(&f.TokenURL), text(&f.Issuer),
		&f.EnableDiscovery, &f.Scopes, text(&f.APIBaseURL), text(&f.UserInfoEndpoint), text(&f.RevocationURL),
		&params, text(&f.Description), text(&f.Category), instant(&p.CreatedAt), instant(&p.UpdatedAt),
		text(&c.Backend), text(&c.Key), &c.Managed, &c.Public, &c.Optional, text(&c.State), &c.Generation,
		text(&c.ClientIDReference), text(&c.ClientSecretReference),
		text(&h.Status), text(&h.Message), instant(&h.CheckedAt),
		instant(&p.DeletedAt), &inRow,
	}, more...)...)
	f.Params = broker.Params(params)
	if f.AuthType == "" {
		f.AuthType = broker.AuthOAuth2
	}
	if h.Status == "" {
		h.Status = broker.HealthUnknown
	}
	switch {
	case !c.IsZero():
		c.ProviderID = p.ID
	case inRow:
		p.Credentials = broker.PairInRow(p)
	}
	return p, err
}

func profileValues(p broker.Provider) []any {
	f := p.Profile
	var params any
	if f.Params != nil {
		params = string(f.Params)
	}
	return []any{
		f.Name, f.AuthType, textOrNull(f.AuthHeader), textOrNull(f.AuthURL), textOrNull(f.TokenURL), textOrNull(f.Issuer),
		f.EnableDiscovery, f.Scopes, textOrNull(f.APIBaseURL), textOrNull(f.UserInfoEndpoint), textOrNull(f.RevocationURL),
		params, textOrNull(f.Description), textOrNull(f.Category), at(p.CreatedAt), at(p.UpdatedAt),
	}
}

func credentialsValues(p broker.Provider) []any {
	c := p.Credentials
	if c.InRow() { // the row of a program that does not know these columns says the same
		c = credentials.Ref{State: c.State, Generation: c.Generation}
	}
	return []any{
		textOrNull(c.Backend), textOrNull(c.Key), c.Managed, c.Public, c.Optional, string(c.State), c.Generation,
		textOrNull(c.ClientIDReference), textOrNull(c.ClientSecretReference),
	}
}

func writtenValues(p broker.Provider) []any {
	return slices.Concat(profileValues(p), credentialsValues(p))
}

func storableProvider(p broker.Provider) error {
	f := p.Profile
	err := storable(
		limited{"name", f.Name, maxName}, limited{"auth_type", f.AuthType, 0}, limited{"auth_header", f.AuthHeader, 0},
		limited{"auth_url", f.AuthURL, 0}, limited{"token_url", f.TokenURL, 0}, limited{"issuer", f.Issuer, 0},
		limited{"api_base_url", f.APIBaseURL, 0}, limited{"user_info_endpoint", f.UserInfoEndpoint, 0},
		limited{"revocation_url", f.RevocationURL, 0}, limited{"description", f.Description, 0},
		limited{"category", f.Category, maxCategory}, limited{"credentials key", p.Credentials.Key, 0},
		limited{"reference", p.Credentials.ClientIDReference, 0}, limited{"reference", p.Credentials.ClientSecretReference, 0},
	)
	if err == nil {
		err = storableList("scopes", f.Scopes)
	}
	if err == nil {
		err = storableJSON("params", f.Params)
	}
	return err
}

func (s *Store) insertProvider() string {
	return "INSERT INTO provider_profiles (id, op, op_id, op_until, health_status, " + strings.Join(writtenColumns, ", ") +
		") VALUES ($1, $2, $3, " + s.dialect.FromNow("$4") + ", " + placeholders(5, 1+len(writtenColumns)) + ")"
}

// ReserveProvider inserts p as a reservation under op.
func (s *Store) ReserveProvider(ctx context.Context, p broker.Provider, op broker.Op) error {
	if err := storableProvider(p); err != nil {
		return err
	}
	health := p.Health.Status
	if health == "" {
		health = broker.HealthUnknown
	}
	args := append([]any{p.ID, string(broker.OpRegister), op.ID, op.TTL.Microseconds(), string(health)}, writtenValues(p)...)
	_, err := s.db.Exec(ctx, s.insertProvider(), args...)
	return err
}

// The statements that store a provider end the operation that holds it. A pair in the row
// stays, or goes with the switch to another place.
var storeProvider = fmt.Sprintf(`UPDATE provider_profiles SET op = NULL, op_id = NULL, op_until = NULL,
	client_id = CASE WHEN $%[1]d THEN client_id END, client_secret = CASE WHEN $%[1]d THEN client_secret END, `,
	3+len(writtenColumns)) + assignments(3, writtenColumns) + " WHERE id = $1 AND op_id = $2 AND "

func storedValues(p broker.Provider, op broker.Op) []any {
	return append(append([]any{p.ID, op.ID}, writtenValues(p)...), p.Credentials.InRow())
}

// PublishProvider makes the reservation visible.
func (s *Store) PublishProvider(ctx context.Context, p broker.Provider, op broker.Op, events ...audit.Event) error {
	if err := storableProvider(p); err != nil {
		return err
	}
	args := storedValues(p, op)
	n, err := s.db.Change(ctx, storeProvider+"op = 'register'", args, events)
	return unless(n, err, broker.ErrLostOp)
}

// AbandonProvider deletes the reservation for good.
func (s *Store) AbandonProvider(ctx context.Context, id uuid.UUID, op broker.Op) error {
	_, err := s.db.Exec(ctx, "DELETE FROM provider_profiles WHERE id = $1 AND op_id = $2 AND op = 'register'", id, op.ID)
	return err
}

// UpdateProvider stores the profile, credentials and times of p and ends op.
func (s *Store) UpdateProvider(
	ctx context.Context, p broker.Provider, op broker.Op, add []broker.Cleanup, drop []uuid.UUID, events ...audit.Event,
) error {
	if err := storableProvider(p); err != nil {
		return err
	}
	args := storedValues(p, op)
	return s.finishOp(ctx, storeProvider+published, args, add, drop, events)
}

var deleteProvider = "UPDATE provider_profiles SET op = NULL, op_id = NULL, op_until = NULL, " +
	"deleted_at = $3, updated_at = $3, " + assignments(4, credentialsColumns) +
	" WHERE id = $1 AND op_id = $2 AND " + published

// DeleteProvider marks the provider deleted at p.DeletedAt with p's credentials.
func (s *Store) DeleteProvider(
	ctx context.Context, p broker.Provider, op broker.Op, add []broker.Cleanup, drop []uuid.UUID, events ...audit.Event,
) error {
	if err := storable(limited{"credentials key", p.Credentials.Key, 0}); err != nil {
		return err
	}
	args := append([]any{p.ID, op.ID, at(p.DeletedAt)}, credentialsValues(p)...)
	return s.finishOp(ctx, deleteProvider, args, add, drop, events, s.keptBecomeDue(p.ID))
}

// statement is one more thing to do in a transaction.
type statement struct {
	sql  string
	args []any
}

// finishOp stores the result of an operation with what belongs to it.
func (s *Store) finishOp(
	ctx context.Context, end string, args []any, add []broker.Cleanup, drop []uuid.UUID, events []audit.Event, more ...statement,
) error {
	return s.db.Atomically(ctx, func(ctx context.Context, tx Tx) error {
		n, err := tx.Exec(ctx, end, args...)
		if err := unless(n, err, broker.ErrLostOp); err != nil {
			return err
		}
		for _, m := range more {
			if _, err := tx.Exec(ctx, m.sql, m.args...); err != nil {
				return err
			}
		}
		for _, id := range drop {
			if _, err := tx.Exec(ctx, deleteCleanup, id); err != nil {
				return err
			}
		}
		if err := s.insertCleanups(ctx, tx, add); err != nil {
			return err
		}
		return RecordEvents(ctx, tx, events)
	})
}

// Provider returns a published provider, also a deleted one.
func (s *Store) Provider(ctx context.Context, id uuid.UUID) (broker.Provider, error) {
	return first(ctx, s.db, selectProvider+" WHERE id = $1 AND "+published, []any{id}, readProvider)
}

// ProvidersByName returns the visible providers whose name is name without regard to
// case.
func (s *Store) ProvidersByName(ctx context.Context, name string) ([]broker.Provider, error) {
	if storable(limited{value: name}) != nil {
		return nil, nil // no provider has such a name
	}
	end := " WHERE lower(name) = lower($1) AND " + visible + " ORDER BY created_at DESC, id DESC"
	return all(ctx, s.db, selectProvider+end, []any{name}, readProvider)
}

// Providers gives the visible providers, newest first.
func (s *Store) Providers(ctx context.Context, page broker.Page) broker.Listing[broker.Provider] {
	sel := selection{conditions: []string{visible}}
	if page.After != uuid.Nil {
		sel.where("(created_at, id) < ((SELECT created_at FROM provider_profiles WHERE id = ?), ?)", page.After)
	}
	return listing(ctx, s.db, selectProvider+sel.end("created_at DESC, id DESC", page.Limit), sel.args, readProvider)
}

// SetHealth stores what a flow learned.
func (s *Store) SetHealth(ctx context.Context, id uuid.UUID, h broker.Health) error {
	_, err := s.db.Exec(ctx, "UPDATE provider_profiles SET ("+healthColumns+") = ($2, $3, $4) WHERE id = $1",
		id, string(h.Status), textOrNull(recordable(h.Message)), at(h.CheckedAt))
	return err
}
