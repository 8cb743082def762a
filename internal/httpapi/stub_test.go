package httpapi_test

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
)

// stub answers every method with what the test has put into it, and remembers what
// it was asked. It stands in for the domain where a test is about the HTTP side of
// an answer that the domain gives rarely: each error, a panic, an awkward value.
type stub struct {
	err   error
	panic any

	id        uuid.UUID
	deleted   int
	view      broker.ProviderView
	providers []broker.Provider
	consent   broker.Consent
	redirect  broker.Redirect
	form      broker.CaptureForm
	formErr   error // of CaptureForm, where it differs from err
	token     broker.TokenAnswer

	connections []broker.ConnectionSummary
	revocation  broker.Revocation

	events []audit.Event
	ready  broker.Readiness

	mu    sync.Mutex
	asked []any // the arguments, in the order of the calls
	from  audit.Request
}

func (s *stub) called(ctx context.Context, args ...any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, args...)
	s.from = audit.RequestFrom(ctx)
	if s.panic != nil {
		panic(s.panic)
	}
	return s.err
}

// last returns the last argument that the domain was given.
func (s *stub) last() any {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.asked) == 0 {
		return nil
	}
	return s.asked[len(s.asked)-1]
}

// calls returns how many arguments the domain was given.
func (s *stub) calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

func (s *stub) request() audit.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.from
}

func (s *stub) Register(ctx context.Context, in broker.ProfileInput) (uuid.UUID, error) {
	return s.id, s.called(ctx, in)
}

func (s *stub) ReplaceProvider(ctx context.Context, id uuid.UUID, in broker.ProfileInput) error {
	return s.called(ctx, id, in)
}

func (s *stub) PatchProvider(ctx context.Context, id uuid.UUID, in broker.ProfileInput) error {
	return s.called(ctx, id, in)
}

func (s *stub) DeleteProvider(ctx context.Context, id uuid.UUID) error { return s.called(ctx, id) }

func (s *stub) DeleteProvidersByName(ctx context.Context, name string) (int, error) {
	return s.deleted, s.called(ctx, name)
}

func (s *stub) Provider(ctx context.Context, id uuid.UUID) (broker.ProviderView, error) {
	return s.view, s.called(ctx, id)
}

func (s *stub) ProviderWithoutValues(ctx context.Context, id uuid.UUID) (broker.ProviderView, error) {
	return s.view, s.called(ctx, id)
}

func (s *stub) ProviderIDByName(ctx context.Context, name string) (uuid.UUID, error) {
	return s.id, s.called(ctx, name)
}

func (s *stub) Providers(ctx context.Context, p broker.Page) broker.Listing[broker.Provider] {
	return listed(s.providers, s.called(ctx, p))
}

func (s *stub) Begin(ctx context.Context, r broker.ConsentRequest) (broker.Consent, error) {
	return s.consent, s.called(ctx, r)
}

func (s *stub) Complete(ctx context.Context, c broker.Callback) (broker.Redirect, error) {
	return s.redirect, s.called(ctx, c)
}

func (s *stub) CaptureForm(ctx context.Context, state string) (broker.CaptureForm, error) {
	if s.formErr != nil || s.form.Schema != nil {
		return s.form, s.formErr
	}
	return s.form, s.called(ctx, state)
}

func (s *stub) Capture(ctx context.Context, state string, credentials map[string]json.RawMessage) (broker.Redirect, error) {
	return s.redirect, s.called(ctx, state, credentials)
}

func (s *stub) Token(ctx context.Context, id uuid.UUID) (broker.TokenAnswer, error) {
	return s.token, s.called(ctx, id)
}

func (s *stub) Refresh(ctx context.Context, id uuid.UUID) (broker.TokenAnswer, error) {
	return s.token, s.called(ctx, id)
}

func (s *stub) TokenLasting(ctx context.Context, id uuid.UUID, atLeast time.Duration) (broker.TokenAnswer, error) {
	return s.token, s.called(ctx, id, atLeast)
}

func (s *stub) Connections(ctx context.Context, workspaceID string, p broker.Page) broker.Listing[broker.ConnectionSummary] {
	return listed(s.connections, s.called(ctx, workspaceID, p))
}

func (s *stub) Revoke(ctx context.Context, r broker.RevokeRequest) (broker.Revocation, error) {
	return s.revocation, s.called(ctx, r)
}

func (s *stub) AuditEvents(ctx context.Context, f audit.Filter) broker.Listing[audit.Event] {
	return listed(s.events, s.called(ctx, f))
}

// listed gives rows, and then the error if there is one.
func listed[T any](rows []T, err error) broker.Listing[T] {
	return func(yield func(T, error) bool) {
		for _, row := range rows {
			if !yield(row, nil) {
				return
			}
		}
		if err != nil {
			var none T
			yield(none, err)
		}
	}
}

func (s *stub) Ready(ctx context.Context) broker.Readiness {
	_ = s.called(ctx)
	return s.ready
}
