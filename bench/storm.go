package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
)

const (
	stormConnections = 10
	stormReplicas    = 3
)

// refreshStorm lets many callers refresh a few connections through several brokers on
// one database. The provider rotates refresh tokens and ends a grant whose token
// comes a second time; it answers no refresh before all callers wait for it.
func refreshStorm(ctx context.Context, l *lab) ([]row, error) {
	provider := oauthtest.Start(l, oauthtest.Options{Clients: []oauthtest.Client{{ID: clientID, Secret: clientSecret}}})
	e := env{"DATABASE_URL": l.cluster.Database(l)}
	replicas := make([]*instance, stormReplicas)
	for i := range replicas {
		var err error
		if replicas[i], err = l.start(ctx, e); err != nil {
			return nil, err
		}
		defer replicas[i].stop()
	}
	connections, err := connect(ctx, replicas[0], provider, stormConnections)
	if err != nil {
		return nil, err
	}
	callers, release := newCrowd(l.callers), make(chan struct{})
	provider.Always(oauthtest.Token, oauthtest.When(release, oauthtest.Ordinary()))
	go func() {
		defer close(release)
		awaitCallers(ctx, replicas, min(l.callers, callers.sockets))
	}()
	statuses := callers.send(ctx, l.callers, func(ctx context.Context, i int) (*http.Request, error) {
		path := "/connections/" + connections[i%stormConnections] + "/refresh"
		return replicas[i%stormReplicas].request(ctx, http.MethodPost, path, nil)
	})
	requests := provider.CountGrant("refresh_token")
	provider.Always(oauthtest.Token, nil)
	alive, err := refreshable(ctx, replicas[0], connections)
	if err != nil {
		return nil, err
	}
	return []row{{
		fmt.Sprintf("a refresh storm: %s callers, %d connections, %d replicas", number(l.callers), stormConnections, stormReplicas),
		fmt.Sprintf("exactly %d requests to the provider", stormConnections),
		fmt.Sprintf("%d requests; %d of %d connections can be refreshed afterwards; answers: %s",
			requests, alive, stormConnections, statusCounts(statuses)),
		metIf(requests == stormConnections && alive == stormConnections && statuses[http.StatusOK] == l.callers),
	}}, nil
}

// awaitCallers returns once n callers wait at the brokers for a refresh, as their
// metrics say, or while the brokers still wait for the provider.
func awaitCallers(ctx context.Context, brokers []*instance, n int) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		waiting := 0
		for _, b := range brokers {
			waiting += b.waiting(ctx)
		}
		if waiting == n {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// waiting returns how many callers wait for a refresh.
func (b *instance) waiting(ctx context.Context) (callers int) {
	r, err := b.request(ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return 0
	}
	metrics, _, _ := exchange(b.client, r)
	_, after, _ := strings.Cut(string(metrics), "\nnexus_token_refresh_waiting ")
	_, _ = fmt.Sscan(after, &callers)
	return callers
}

// connect registers the provider and takes n users through its consent.
func connect(ctx context.Context, b *instance, p *oauthtest.Server, n int) (connections []string, err error) {
	provider, err := b.register(ctx, providerProfile("storm", p.URL(oauthtest.Authorization), p.URL(oauthtest.Token)))
	if err != nil {
		return nil, err
	}
	for range n {
		id, err := b.connectOne(ctx, provider)
		if err != nil {
			return nil, fmt.Errorf("connecting: %w", err)
		}
		connections = append(connections, id)
	}
	return connections, nil
}

func (b *instance) connectOne(ctx context.Context, provider string) (connection string, err error) {
	var consent struct{ AuthURL string }
	err = b.must(ctx, http.StatusOK, http.MethodPost, "/auth/consent-spec", consentRequest(provider), &consent)
	if err != nil {
		return "", err
	}
	callback, err := b.redirected(ctx, consent.AuthURL)
	if err != nil {
		return "", err
	}
	back, err := b.redirected(ctx, b.url+callback.RequestURI())
	if err != nil {
		return "", err
	}
	q := back.Query()
	if q.Get("status") != "success" {
		return "", fmt.Errorf("the callback ended in %q", q.Get("error"))
	}
	return q.Get("connection_id"), nil
}

// redirected returns where a GET is redirected to.
func (b *instance) redirected(ctx context.Context, from string) (*url.URL, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	resp, err := b.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusFound {
		return nil, fmt.Errorf("%w %d of %s", errStatus, resp.StatusCode, r.URL.Path)
	}
	return resp.Location()
}

// refreshable counts the connections that another refresh succeeds for.
func refreshable(ctx context.Context, b *instance, connections []string) (n int, err error) {
	for _, id := range connections {
		status, err := b.call(ctx, http.MethodPost, "/connections/"+id+"/refresh", nil, nil)
		if err != nil {
			return n, err
		}
		if status == http.StatusOK {
			n++
		}
	}
	return n, nil
}
