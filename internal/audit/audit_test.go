package audit_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
)

func TestAnEventSaysWhoAsked(t *testing.T) {
	ctx := audit.WithRequest(t.Context(), audit.Request{ID: "req-1", IPAddress: "192.0.2.1", UserAgent: "agent/1"})
	connection := uuid.New()
	before := time.Now()
	e := audit.New(ctx, audit.TokenRetrieved, connection, map[string]any{"provider": "google"})
	require.Equal(t, audit.TokenRetrieved, e.Type)
	require.Equal(t, connection, e.ConnectionID)
	require.Equal(t, "192.0.2.1", e.IPAddress)
	require.Equal(t, "agent/1", e.UserAgent)
	require.Equal(t, map[string]any{"provider": "google", "request_id": "req-1"}, e.Data)
	require.Equal(t, time.UTC, e.CreatedAt.Location())
	require.Zero(t, e.CreatedAt.Nanosecond()%1000, "what a database can hold")
	require.WithinDuration(t, before, e.CreatedAt, time.Minute)
}

func TestAnEventWithoutARequest(t *testing.T) {
	e := audit.New(context.Background(), audit.ProviderCreated, uuid.Nil, nil)
	require.Equal(t, uuid.Nil, e.ConnectionID)
	require.Empty(t, e.Data)
	require.Empty(t, e.IPAddress)
	require.Empty(t, e.UserAgent)
}

func TestAbsentDataIsLeftOut(t *testing.T) {
	given := map[string]any{"a": "", "b": nil, "c": 0, "d": false, "e": "x"}
	e := audit.New(t.Context(), audit.ProviderCreated, uuid.Nil, given)
	require.Equal(t, map[string]any{"c": 0, "d": false, "e": "x"}, e.Data)
	require.Len(t, given, 5, "the caller's map is left alone")
}

func TestIDsAreUniqueAndGrow(t *testing.T) {
	last := uuid.Nil
	for range 1000 {
		id := audit.New(t.Context(), audit.ProviderCreated, uuid.Nil, nil).ID
		require.Greater(t, id.String(), last.String(), "they order events of one microsecond")
		last = id
	}
}

func TestDataIsAnObject(t *testing.T) {
	text, err := audit.Event{}.DataJSON()
	require.NoError(t, err)
	require.Equal(t, "{}", text)
	text, err = audit.Event{Data: map[string]any{"k": `<"&">`}}.DataJSON()
	require.NoError(t, err)
	require.True(t, json.Valid([]byte(text)))
	require.JSONEq(t, `{"k": "<\"&\">"}`, text)
	_, err = audit.Event{Data: map[string]any{"f": func() {}}}.DataJSON()
	require.Error(t, err)
}
