package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// stampede starts a great many consent flows at once on a provider whose credentials
// the broker has not read yet, and counts the reads at the wire. Vault answers none
// before all callers have asked, so that none can profit from another's read by
// coming later.
func stampede(ctx context.Context, l *lab) ([]row, error) {
	proxy := servers.NewFaultProxy(l, l.vault.Addr)
	e := l.vaultEnv().with(env{
		"DATABASE_URL": l.cluster.Database(l), "VAULT_ADDR": proxy.URL, "SECRET_TIMEOUT": "60s",
	})
	provider, err := l.registerAndLeave(ctx, e, "stampede")
	if err != nil {
		return nil, err
	}
	b, err := l.start(ctx, e) // with an empty cache
	if err != nil {
		return nil, err
	}
	defer b.stop()
	callers := newCrowd(l.flows)
	proxy.Forget()
	proxy.Inject(func(w http.ResponseWriter, r *http.Request, pass http.HandlerFunc) {
		callers.waiting(ctx, 30*time.Second)
		pass(w, r)
	}, isRead)
	began := time.Now()
	statuses := callers.send(ctx, l.flows, func(ctx context.Context, _ int) (*http.Request, error) {
		return b.request(ctx, http.MethodPost, "/auth/consent-spec", consentRequest(provider))
	})
	took := time.Since(began)

	ids, secrets := countReads(proxy, credentials.ClientIDKey), countReads(proxy, credentials.ClientSecretKey)
	return []row{{number(l.flows) + " consent flows at once on one cold provider", "exactly one read of each key", fmt.Sprintf(
		"%d of `client_id`, %d of `client_secret`; answers: %s, all within %.1f s over %s sockets",
		ids, secrets, statusCounts(statuses), took.Seconds(), number(callers.sockets)),
		metIf(ids == 1 && secrets == 1 && statuses[http.StatusOK] == l.flows)}}, nil
}

// registerAndLeave registers a provider with a broker that ends then, and returns
// its id.
func (l *lab) registerAndLeave(ctx context.Context, e env, name string) (id string, err error) {
	b, err := l.start(ctx, e)
	if err != nil {
		return "", err
	}
	defer b.stop()
	return b.register(ctx, providerProfile(name, "https://login.example.com/authorize", "https://login.example.com/token"))
}

func isRead(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/v1/secret/data/")
}

func countReads(p *servers.FaultProxy, key string) int {
	return len(p.Requests(isRead, func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/"+key) }))
}

// statusCounts writes how often each status was answered, the most frequent first.
func statusCounts(statuses map[int]int) string {
	order := slices.SortedFunc(maps.Keys(statuses), func(a, b int) int { return statuses[b] - statuses[a] })
	return strings.Join(each(order, func(status int) string {
		if status == 0 {
			return number(statuses[status]) + " × none"
		}
		return fmt.Sprintf("%s × %d", number(statuses[status]), status)
	}), ", ")
}
