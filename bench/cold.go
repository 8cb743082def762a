package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/backend"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/hashicorpvault"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// network is the time that a Vault on another machine may be away.
const network = 5 * time.Millisecond

// coldCredentials compares reading a pair past the cache with one plain HTTP request
// for one of the two values, on loopback and with some network in between.
func coldCredentials(ctx context.Context, l *lab) ([]row, error) {
	token := l.vaultEnv()["VAULT_TOKEN"]
	ref := credentials.Ref{Backend: "hashicorp-vault", Key: "cold", Managed: true}
	l.vault.Write("secret/data/nexus/providers/"+ref.ClientIDAt(), kvValue(clientID))
	l.vault.Write("secret/data/nexus/providers/"+ref.ClientSecretAt(), kvValue(clientSecret))

	pair, raw, err := l.compareReads(ctx, l.vault.Addr, token, ref, l.reads)
	if err != nil {
		return nil, err
	}
	far := servers.NewFaultProxy(l, l.vault.Addr)
	far.Inject(servers.Latency(network))
	farPair, farRaw, err := l.compareReads(ctx, far.URL, token, ref, l.reads/4)
	if err != nil {
		return nil, err
	}
	ratio := float64(pair) / float64(raw)
	return []row{{"credentials, cold: both keys in parallel", "≤ 1.3 × one raw HTTP read", fmt.Sprintf(
		"%.2f × (%s against %s, medians of %s on loopback); with %s to the server %.2f × (%s against %s)",
		ratio, millis(pair), millis(raw), number(l.reads), network, float64(farPair)/float64(farRaw), millis(farPair), millis(farRaw)),
		metIf(ratio <= 1.3)}}, nil
}

func kvValue(value string) map[string]any {
	return map[string]any{"data": map[string]any{"value": value}}
}

// compareReads returns the median times of reading the pair and of one plain
// request, done by turns.
func (l *lab) compareReads(ctx context.Context, address, token string, ref credentials.Ref, n int) (pair, raw time.Duration, err error) {
	vault, err := hashicorpvault.New(hashicorpvault.Config{
		Address: address, PathPrefix: "nexus/providers", Login: hashicorpvault.TokenLogin{Token: secret.NewValue(token)},
	}, hashicorpvault.Options{})
	if err != nil {
		return 0, 0, err
	}
	defer vault.Close()
	service, err := credentials.New(credentials.Options{
		Backends: []credentials.Backend{{
			Name: ref.Backend, External: true, Store: backend.Decorate(vault, backend.Options{Name: ref.Backend, Timeout: 5 * time.Second}),
		}},
		WriteTo: ref.Backend, CacheTTL: 0, Audit: unrecorded{},
	})
	if err != nil {
		return 0, 0, err
	}
	defer service.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	plain := rawRead{&http.Client{Transport: transport, Timeout: 5 * time.Second}, address + "/v1/secret/data/nexus/providers/" + ref.ClientIDAt(), token}

	const warmUp = 20
	var pairs, raws []time.Duration
	for i := range n + warmUp {
		took1, err1 := timed(func() error { return plain.get(ctx) })
		took2, err2 := timed(func() error { _, err := service.Get(ctx, ref); return err })
		if err := errors.Join(err1, err2); err != nil {
			return 0, 0, fmt.Errorf("reading from Vault: %w", err)
		}
		if i >= warmUp {
			raws, pairs = append(raws, took1), append(pairs, took2)
		}
	}
	return median(pairs), median(raws), nil
}

func timed(f func() error) (time.Duration, error) {
	began := time.Now()
	err := f()
	return time.Since(began), err
}

// rawRead is what a program does that has no more than an HTTP client.
type rawRead struct {
	client     *http.Client
	url, token string
}

func (r rawRead) get(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("X-Vault-Token", r.token)
	_, status, err := exchange(r.client, request)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%w %d", errStatus, status)
	}
	return err
}

// unrecorded is an audit log that takes no time.
type unrecorded struct{}

// Record implements audit.Recorder.
func (unrecorded) Record(context.Context, ...audit.Event) error { return nil }
