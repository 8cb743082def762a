package e2e_test

import (
	"errors"
	"net/http"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// registerAt registers the client of a scriptable provider.
func (p *process) registerAt(op *oauthtest.Server, name string) (id string) {
	p.t.Helper()
	return p.call("POST", "/providers", map[string]any{"profile": map[string]any{
		"name": name, "issuer": op.Issuer(), "enable_discovery": true,
		"client_id": "test-client", "client_secret": "test-secret",
	}}).want(201).text("id")
}

// gate lets the provider's next n token answers wait until open is called.
func gate(op *oauthtest.Server, n int) (open func()) {
	release := make(chan struct{})
	for range n {
		op.Next(oauthtest.Token, oauthtest.When(release, oauthtest.Ordinary()))
	}
	return func() { close(release) }
}

// answering is an answer that is still to come.
type answering chan answer

// later makes the call in the background.
func later(call func() answer) answering {
	a := make(answering, 1)
	go func() {
		defer close(a) // also if the call has failed
		a <- call()
	}()
	return a
}

func (a answering) wait(t *testing.T) answer {
	t.Helper()
	got, ok := <-a
	require.True(t, ok, "there is no answer")
	return got
}

// TestShutdownUnderLoad: at SIGTERM nothing new is taken, what is in flight finishes,
// and the process ends well.
func TestShutdownUnderLoad(t *testing.T) {
	t.Parallel()
	op := oauthtest.Start(t, oauthtest.Options{})
	e := base().with(env{"DATABASE_URL": servers.Postgres(t)})
	b := startDetecting(t, e)
	provider := b.registerAt(op, "flow")
	var connections []string
	for range 4 {
		connections = append(connections, b.connect(provider))
	}
	open := gate(op, len(connections))
	var refreshed []answering
	for _, c := range connections {
		refreshed = append(refreshed, later(func() answer { return b.refresh(c) }))
	}
	eventually(t, "the refreshes are in flight", func() bool { return op.CountGrant("refresh_token") == len(connections) })

	// Each request of the load has a connection of its own: it is refused, or answered.
	var answered, ended atomic.Int32
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	for _, c := range connections {
		go func() {
			defer ended.Add(1)
			for {
				resp, err := client.Do(b.request("GET", "/connections/"+c+"/token", nil, http.Header{"X-Api-Key": {apiKey}}))
				if err != nil {
					if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("a request that was taken was not answered: %v", err)
					}
					return
				}
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					t.Errorf("under load the broker answers %s", resp.Status)
				}
				answered.Add(1)
			}
		}()
	}
	eventually(t, "there is load", func() bool { return answered.Load() > 50 })
	require.NoError(t, b.cmd.Process.Signal(syscall.SIGTERM))
	eventually(t, "nothing new is taken", func() bool { return ended.Load() == int32(len(connections)) })
	time.Sleep(500 * time.Millisecond) // the server waits half as long for the headers of connections that were just made
	open()
	tokens := map[string]bool{}
	for _, r := range refreshed {
		tokens[r.wait(t).want(200).text("access_token")] = true
	}
	require.Len(t, tokens, len(connections))
	<-b.done
	require.NoError(t, b.err)

	b = startDetecting(t, e)
	for _, c := range connections {
		require.True(t, tokens[b.token(c).want(200).text("access_token")], "what was answered is stored")
	}
}

// TestShutdownDoesNotWaitForEver: after the grace period the process ends, whatever a
// provider does.
func TestShutdownDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	op := oauthtest.Start(t, oauthtest.Options{})
	b := startDetecting(t, base().with(env{"DATABASE_URL": servers.Postgres(t), "SHUTDOWN_GRACE": "1s"}))
	connection := b.connect(b.registerAt(op, "flow"))
	op.Next(oauthtest.Token, oauthtest.Hang())
	go b.try("POST", "/connections/"+connection+"/refresh", nil)
	eventually(t, "the refresh is in flight", func() bool { return op.CountGrant("refresh_token") == 1 })
	require.NoError(t, b.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-b.done:
		require.Equal(t, 1, b.cmd.ProcessState.ExitCode(), "what was cut off is told")
	case <-time.After(40 * time.Second):
		t.Fatal("the process does not end")
	}
}
