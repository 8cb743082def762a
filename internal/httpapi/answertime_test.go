package httpapi_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/httpapi"
	"github.com/nexus-broker/nexus-broker/internal/httpserver"
)

// slow is a domain that takes a while.
type slow struct {
	*stub
	takes time.Duration
}

func (s slow) DeleteProvider(ctx context.Context, id uuid.UUID) error {
	time.Sleep(s.takes)
	return s.stub.DeleteProvider(ctx, id)
}

func (s slow) Capture(ctx context.Context, state string, credentials map[string]json.RawMessage) (broker.Redirect, error) {
	time.Sleep(s.takes)
	return s.stub.Capture(ctx, state, credentials)
}

// What a slow secret backend holds up beyond the server's limit is answered all the same.
// Whom anybody could be, gets no more time than the server gives.
func TestASlowChangeIsAnswered(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	const limit = 100 * time.Millisecond
	domain := slow{&stub{redirect: broker.Redirect{URL: "https://app.example/"}}, 3 * limit}
	go func() {
		done <- httpserver.Serve(ctx, ln, httpserver.Options{
			Handler: handler(t, httpapi.Options{Broker: domain, AnswerTime: time.Minute}), Logger: slog.New(slog.DiscardHandler),
			WriteTimeout: limit, Grace: 10 * time.Second,
		})
	}()
	resp, body := send(t, ln.Addr().String(), "DELETE /providers/"+someID+" HTTP/1.1\r\nHost: x\r\nX-API-Key: "+adminKey+"\r\n\r\n")
	require.Equal(t, 200, resp.StatusCode, body)

	client := http.Client{Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	_, err = client.Post("http://"+ln.Addr().String()+"/auth/capture-credential", "application/json",
		strings.NewReader(`{"state":"s","credentials":{"api_key":"k"}}`))
	require.Error(t, err)
	cancel()
	require.NoError(t, <-done)
}
