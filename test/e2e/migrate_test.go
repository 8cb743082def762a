package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
)

// moving is a pair of backends between which the credentials of many providers are moved,
// with one database and one authorization server.
type moving struct {
	from, to  *fragile
	shared    *fragile // whose database it is
	env       env      // the variables of both backends
	op        *oauthtest.Server
	clients   []oauthtest.Client
	providers []string
	printed   bytes.Buffer // by the commands
}

const movedProviders = 40

// Each backend is the source once and the target once. Replicas serve all the while, one
// that writes to the source and one that writes to the target, and no flow fails; the
// process that moves is killed again and again, and another goes on.
func TestCredentialsMoveWhileBrokersServe(t *testing.T) {
	t.Parallel()
	for from, to := range map[string]string{"internal": "Vault", "Vault": "AWS", "AWS": "GCP", "GCP": "internal"} {
		t.Run(from+" to "+to, func(t *testing.T) {
			t.Parallel()
			m := newMoving(t, fragileWorlds()[from](t), fragileWorlds()[to](t))
			source, target := start(t, m.servingIn(m.from)), start(t, m.servingIn(m.to))
			m.register(source)
			stop := m.flow(t, source, target)

			m.migrateKilled(t)
			m.claimsRunOut(t)
			m.run(t, "migrate", "--json")
			m.run(t, "verify")
			m.run(t, "migrate", "--dry-run")
			for i, c := range m.clients {
				require.Equal(t, c.ID, m.to.look(t, nameOf(i)+"/client_id"))
				require.Equal(t, c.Secret, m.to.look(t, nameOf(i)+"/client_secret"))
			}
			m.run(t, "scrub", "--yes")
			stop()

			require.Equal(t, m.theirs(), m.from.keys(t), "nothing of the broker's is in the source")
			require.Len(t, m.to.keys(t), 2*movedProviders)
			require.Empty(t, m.shared.unfinished(t))
			m.searchOutput(t)
			source.stop()
			target.stop()
			m.requireServedByTarget(t)
		})
	}
}

func newMoving(t *testing.T, from, to *fragile) *moving {
	t.Helper()
	m := &moving{from: from, to: to, shared: from}
	if to.set == nil { // the internal one needs its own
		m.shared = to
	}
	m.env = from.env.with(to.env).with(env{"DATABASE_URL": m.shared.env["DATABASE_URL"], "SECRET_BACKEND": ""})
	for i := range movedProviders {
		m.clients = append(m.clients, oauthtest.Client{
			ID: fmt.Sprintf("CANARY-moved-id-%d", i), Secret: fmt.Sprintf("CANARY-moved-secret-%d", i),
			RedirectURIs: []string{publicURL + "/auth/callback"},
		})
	}
	m.op = oauthtest.Start(t, oauthtest.Options{Clients: m.clients, StaticRefreshTokens: true})
	if from.set != nil {
		from.set(t, m.theirs()[0], "somebody else's")
	}
	return m
}

// theirs are the keys of the source that are not the broker's.
func (m *moving) theirs() []string {
	if m.from.set == nil {
		return nil
	}
	return []string{"another-program/client_secret"}
}

func nameOf(i int) string { return fmt.Sprintf("moved-%d", i) }

// servingIn is the environment of a replica that writes to a backend. It waits longer for
// its backends than the process that moves, which is killed and leaves its claims.
func (m *moving) servingIn(f *fragile) env {
	return m.env.with(env{"SECRET_BACKEND": f.env["SECRET_BACKEND"], "SECRET_TIMEOUT": "15s"})
}

func (m *moving) register(b *process) {
	for i, c := range m.clients {
		m.providers = append(m.providers, b.call("POST", "/providers", map[string]any{"profile": map[string]any{
			"name": nameOf(i), "issuer": m.op.Issuer(), "enable_discovery": true, "client_id": c.ID, "client_secret": c.Secret,
		}}).want(201).text("id"))
	}
}

// flow keeps beginning consents and refreshing tokens at both brokers; the authorization
// server tells whether the client that they refresh as is the right one. The function that
// it returns ends that and fails the test if anything was refused.
func (m *moving) flow(t *testing.T, brokers ...*process) (stop func()) {
	t.Helper()
	var connections []string
	for i := range 8 {
		connections = append(connections, brokers[0].connect(m.providers[i*movedProviders/8]))
	}
	done, ended := make(chan struct{}), make(chan error, 1)
	var flows atomic.Int64
	go func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				ended <- nil
				return
			default:
			}
			b, n := brokers[i%len(brokers)], i/len(brokers)
			err := m.consent(b, n%movedProviders)
			if err == nil {
				_, err = b.post("/connections/"+connections[n%len(connections)]+"/refresh", nil)
			}
			if err != nil {
				ended <- fmt.Errorf("flow %d: %w", i, err)
				return
			}
			flows.Add(1)
		}
	}()
	return func() {
		t.Helper()
		close(done)
		require.NoError(t, <-ended)
		require.Greater(t, flows.Load(), int64(movedProviders), "flows were served")
	}
}

// consent begins a consent of a provider, which must be as its client.
func (m *moving) consent(b *process, provider int) error {
	body, err := b.post("/auth/consent-spec", map[string]any{
		"workspace_id": "ws", "provider_id": m.providers[provider], "return_url": returnURL, "scopes": []string{"openid"},
	})
	if err != nil {
		return err
	}
	var answer struct {
		AuthURL string `json:"authUrl"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return err
	}
	u, err := url.Parse(answer.AuthURL)
	if err == nil && u.Query().Get("client_id") != m.clients[provider].ID {
		err = fmt.Errorf("%s is begun as another client: %s", nameOf(provider), answer.AuthURL)
	}
	return err
}

// post is call for a goroutine that is not the test's.
func (p *process) post(path string, body any) ([]byte, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequest(http.MethodPost, p.URL+path, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	req.Header = http.Header{"X-Api-Key": {apiKey}, "Content-Type": {"application/json"}}
	resp, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("POST %s: %d: %s", path, resp.StatusCode, answer)
	}
	return answer, err
}

// backend returns what the commands call a backend.
func (f *fragile) backend() string {
	if f.set == nil {
		return "internal"
	}
	return f.env["SECRET_BACKEND"]
}

func (m *moving) args(command string, more ...string) []string {
	args := []string{"secrets", command, "--from", m.from.backend()}
	if command != "scrub" {
		args = append(args, "--to", m.to.backend())
	}
	return append(args, more...)
}

// run runs a command to its end, which must be a good one.
func (m *moving) run(t *testing.T, command string, more ...string) {
	t.Helper()
	p := launch(t, m.env.with(env{"SECRET_TIMEOUT": "5s"}), m.args(command, more...)...)
	select {
	case <-p.done:
	case <-time.After(3 * time.Minute):
		t.Fatalf("%s does not end\n%s", command, p.log)
	}
	require.Zero(t, p.cmd.ProcessState.ExitCode(), "%s\n%s", command, p.log)
	m.printed.WriteString(p.log.String())
}

// migrateKilled runs the migration three times and kills it: when it has claimed its first
// providers, when some are moved, and when half of them are.
func (m *moving) migrateKilled(t *testing.T) {
	t.Helper()
	count := func(query string) (n int) {
		require.NoError(t, m.shared.db.QueryRowContext(t.Context(), query).Scan(&n))
		return n
	}
	moved := func() int {
		return count("SELECT count(*) FROM provider_profiles WHERE secret_backend = '" + m.to.backend() + "'")
	}
	interrupted := 0
	for _, reached := range []func() bool{
		func() bool { return count("SELECT count(*) FROM provider_profiles WHERE op IS NOT NULL") > 0 },
		func() bool { return moved() >= movedProviders/8 },
		func() bool { return moved() >= movedProviders/2 },
	} {
		p := launch(t, m.env.with(env{"SECRET_TIMEOUT": "1s"}), m.args("migrate")...)
		for deadline := time.Now().Add(time.Minute); !reached(); time.Sleep(time.Millisecond) {
			require.True(t, time.Now().Before(deadline), "it does not get there\n%s", p.log)
		}
		p.kill()
		m.printed.WriteString(p.log.String())
		if moved() < movedProviders {
			interrupted++
		}
	}
	require.Positive(t, interrupted, "none was killed in the middle")
}

// claimsRunOut lets the time pass for what the dead have claimed.
func (m *moving) claimsRunOut(t *testing.T) {
	t.Helper()
	for _, statement := range []string{
		"UPDATE provider_profiles SET op_until = op_until - interval '1 hour'",
		// Not of what waits for "secrets scrub", which is never due.
		"UPDATE credential_cleanups SET due_at = due_at - interval '1 hour', claimed_until = claimed_until - interval '1 hour' WHERE due_at < now() + interval '1 day'",
	} {
		_, err := m.shared.db.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
}

func (m *moving) searchOutput(t *testing.T) {
	t.Helper()
	require.Contains(t, m.printed.String(), `"outcome":"copied"`)
	c := newCanary()
	c.protect("a client id or secret", "CANARY-moved-")
	m.from.protectLogin(c)
	m.to.protectLogin(c)
	c.protect("encryption key", encryptionKey)
	c.search("output of the commands", m.printed.Bytes())
	c.check(t)
}

// requireServedByTarget: the source's variables can be taken away.
func (m *moving) requireServedByTarget(t *testing.T) {
	t.Helper()
	b := start(t, m.to.env.with(env{"DATABASE_URL": m.env["DATABASE_URL"], "SECRET_TIMEOUT": "15s"}))
	for i := range m.providers {
		require.NoError(t, m.consent(b, i))
	}
	b.connect(m.providers[0])
}
