package broker_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/secret"
)

// slowAPI is an API at which captured credentials are tried out, and that takes its time
// for one of the requests.
type slowAPI struct {
	broker.ProfileInput
	slow    atomic.Bool
	arrived chan (chan<- struct{}) // the slow request; it is answered when what comes is closed
}

func newSlowAPI(t *testing.T) *slowAPI {
	t.Helper()
	a := &slowAPI{arrived: make(chan (chan<- struct{}))}
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if a.slow.CompareAndSwap(true, false) {
			answer := make(chan struct{})
			a.arrived <- answer
			<-answer
		}
	}))
	t.Cleanup(server.Close)
	a.ProfileInput = broker.ProfileInput{AuthType: broker.Given("api_key"),
		APIBaseURL: broker.Given(server.URL), UserInfoEndpoint: broker.Given("/me")}
	return a
}

// enterDuring posts a key to the form of a consent and lets something happen while it is
// tried out.
func (h *house) enterDuring(api *slowAPI, c broker.Consent, key string, meanwhile func()) error {
	h.t.Helper()
	api.slow.Store(true)
	result := make(chan error, 1)
	go func() {
		_, err := h.Capture(h.t.Context(), c.State, map[string]json.RawMessage{"api_key": json.RawMessage(strconv.Quote(key))})
		result <- err
	}()
	select {
	case err := <-result:
		require.FailNow(h.t, "the key was not tried out", "%v", err)
	case answer := <-api.arrived:
		func() {
			defer close(answer)
			meanwhile()
		}()
	}
	return <-result
}

// enter posts a key to the form of a consent.
func (h *house) enter(c broker.Consent, key string) (uuid.UUID, error) {
	h.t.Helper()
	to, err := h.Capture(h.t.Context(), c.State, entered(h.t, `{"api_key":`+strconv.Quote(key)+`}`))
	if err != nil {
		return uuid.Nil, err
	}
	return connectionIn(h.t, to.URL), nil
}

func (h *house) key(connection uuid.UUID) string {
	h.t.Helper()
	a, err := h.Token(h.t.Context(), connection)
	require.NoError(h.t, err)
	return field(h.t, a, "api_key")
}

// While the credentials of one post are tried out another one with the same state ends:
// only that one has stored anything, and only that one is told so.
func TestOneCaptureOfTwoCounts(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		h, api := newHouse(t, o), newSlowAPI(t)
		id := h.static("acme", api.ProfileInput)
		for _, first := range []string{"other-key", "the-key"} { // also where a button is pressed twice
			c := h.begin(id)
			var connection uuid.UUID
			err := h.enterDuring(api, c, first, func() {
				var err error
				connection, err = h.enter(c, "the-key")
				require.NoError(t, err)
			})
			code(t, broker.CodeConnectionNotFound, err)
			require.Equal(t, "the-key", h.key(connection))
		}
		require.Len(t, h.events(audit.CredentialCaptured), 2)
	})
}

// While the credentials of a new consent are tried out the next one begins, and takes
// its place: what was entered for the first is not stored, and its user is told so.
func TestACaptureWhoseConsentWasReplaced(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		h, api := newHouse(t, o), newSlowAPI(t)
		id := h.static("acme", api.ProfileInput)
		connection, err := h.enter(h.begin(id), "old-key")
		require.NoError(t, err)
		first := h.again(id, connection)
		var latest broker.Consent
		err = h.enterDuring(api, first, "first-key", func() { latest = h.again(id, connection) })
		code(t, broker.CodeConnectionNotFound, err)
		require.Equal(t, "old-key", h.key(connection))
		_, err = h.enter(latest, "latest-key")
		require.NoError(t, err)
		require.Equal(t, "latest-key", h.key(connection))
	})
}

// failingOnce is a store at which the next completion of a consent fails, without having
// taken place, after something has happened meanwhile.
type failingOnce struct {
	broker.Store
	meanwhile func()
}

func (f *failingOnce) CompleteConnection(ctx context.Context, c broker.Connection, t broker.StoredToken, now time.Time, e ...audit.Event) error {
	if meanwhile := f.meanwhile; meanwhile != nil {
		f.meanwhile = nil
		meanwhile()
		return errReset
	}
	return f.Store.CompleteConnection(ctx, c, t, now, e...)
}

// The database takes the credentials only when it is asked again, and by then the state is
// used up: what it holds is somebody else's.
func TestACaptureThatWasOvertakenDuringAnOutage(t *testing.T) {
	t.Parallel()
	f := &failingOnce{}
	h := newHouse(t, options{wrap: func(s broker.Store) broker.Store { f.Store = s; return f }})
	c := h.begin(h.static("acme", broker.ProfileInput{AuthType: broker.Given("api_key")}))
	var connection uuid.UUID
	f.meanwhile = func() {
		var err error
		connection, err = h.enter(c, "the-key")
		require.NoError(t, err)
	}
	_, err := h.enter(c, "other-key")
	code(t, broker.CodeConnectionNotFound, err)
	require.Equal(t, "the-key", h.key(connection))
}

// The provider is deleted while the credentials of a first or a new consent are tried out:
// no connection of a deleted provider comes to life, and none gets another key.
func TestCaptureAgainstDeletionOfTheProvider(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		h, api := newHouse(t, o), newSlowAPI(t)
		for _, again := range []bool{false, true} {
			id := h.static("acme", api.ProfileInput)
			connection, err := h.enter(h.begin(id), "old-key")
			require.NoError(t, err)
			c := h.begin(id)
			if again {
				c = h.again(id, connection)
			}
			err = h.enterDuring(api, c, "late-key", func() { require.NoError(t, h.DeleteProvider(t.Context(), id)) })
			code(t, broker.CodeProviderNotFound, err)
			require.Equal(t, "old-key", h.key(connection), "what was active stays so")
			if !again {
				require.Equal(t, broker.StatusPending, h.status(pendingOf(t, c)))
			}
		}
		require.Len(t, h.events(audit.ProviderNotFound), 2)
		require.Len(t, h.events(audit.CredentialCaptured), 2)
	})
}

// The consent expires while the credentials are tried out.
func TestCaptureAgainstExpiry(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		var ahead atomic.Int64
		o.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		h, api := newHouse(t, o), newSlowAPI(t)
		id := h.static("acme", api.ProfileInput)
		connection, err := h.enter(h.begin(id), "old-key")
		require.NoError(t, err)
		first, again := h.begin(id), h.again(id, connection)
		for _, c := range []broker.Consent{first, again} {
			err := h.enterDuring(api, c, "late-key", func() { ahead.Store(int64(10 * time.Minute)) })
			code(t, broker.CodeConnectionNotFound, err)
			ahead.Store(0)
		}
		require.Equal(t, broker.StatusPending, h.status(pendingOf(t, first)))
		require.Equal(t, "old-key", h.key(connection))
	})
}

// The state of a form is no state of an authorization: there is no code to exchange, and
// the consent goes on.
func TestTheStateOfAFormAtTheCallback(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.static("acme", broker.ProfileInput{AuthType: broker.Given("api_key")})
	connection, err := h.enter(h.begin(id), "old-key")
	require.NoError(t, err)
	for _, c := range []broker.Consent{h.begin(id), h.again(id, connection)} {
		_, err := h.Complete(t.Context(), broker.Callback{Code: secret.NewValue("x"), State: c.State})
		e := code(t, broker.CodeInvalidState, err)
		require.Equal(t, "invalid_state", query(t, e.ReturnURL).Get("error"))
		connection, err := h.enter(c, "the-key")
		require.NoError(t, err)
		require.Equal(t, "the-key", h.key(connection))
	}
	require.Empty(t, h.events(audit.TokenExchangeFailed))
}
