package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

const (
	replicas      = 3
	apiKey        = "key-of-the-soak-test"
	encryptionKey = "encryption-key-of-this-soak-test"
	stateKey      = "-state--key-of---this-soak-test-"
	prefix        = "nexus/providers"
	clientID      = "post" // of servers.DefaultOIDCClients
	firstSecret   = "post-secret"
)

// stand is everything that runs.
type stand struct {
	cluster  *servers.Cluster
	database string
	vault    *servers.VaultServer
	oidc     *servers.OIDCServer
	recorder *recorder
	brokers  []*replica
	proxy    *proxy
	flow     string // id of the provider that users connect to
}

// build starts everything and registers the provider of the flows.
func (s *soak) build(ctx context.Context) (*stand, error) {
	st := &stand{cluster: servers.PostgresCluster(s, "fsync=on"), vault: servers.Vault(s), oidc: servers.OIDC(s, servers.OIDCOptions{})}
	st.database = st.cluster.Database(s)
	st.recorder = newRecorder(s.tokens, st.oidc.Issuer, st.owner)
	if err := st.recorder.listen(); err != nil {
		return nil, err
	}
	s.Cleanup(st.recorder.close)
	st.proxy = newProxy()
	for range replicas {
		address, err := freeAddress()
		if err != nil {
			return nil, err
		}
		st.proxy.backends = append(st.proxy.backends, address)
	}
	if err := st.proxy.listen(); err != nil {
		return nil, err
	}
	s.Cleanup(st.proxy.close)
	for i, address := range st.proxy.backends {
		b := &replica{binary: s.binary, dir: s.TempDir(), name: fmt.Sprintf("replica %d", i+1), address: address, env: st.environment(address)}
		s.Cleanup(b.kill)
		st.brokers = append(st.brokers, b)
		if err := b.start(ctx); err != nil {
			return nil, err
		}
	}
	c := newClient(st.proxy.address, s.ledger)
	profile := map[string]any{
		"name": "flow", "auth_url": st.oidc.Issuer + "/auth", "token_url": st.recorder.url() + "/token",
		"client_id": clientID, "client_secret": firstSecret, "scopes": []string{"email"},
	}
	a := c.call(ctx, "register", http.MethodPost, "/providers", map[string]any{"profile": profile})
	if a.status != http.StatusCreated {
		return nil, fmt.Errorf("registering: %s", a.class())
	}
	st.flow = a.text("id")
	return st, nil
}

// environment is a replica's. A short time limit for the vault lets the claims of a
// killed replica end within the run.
func (st *stand) environment(address string) []string {
	encode := func(key string) string { return base64.StdEncoding.EncodeToString([]byte(key)) }
	return []string{
		"BASE_URL=http://" + st.proxy.address, "LISTEN_ADDR=" + address, "DATABASE_URL=" + st.database,
		"API_KEY=" + apiKey, "ENCRYPTION_KEY=" + encode(encryptionKey), "STATE_KEY=" + encode(stateKey),
		"SECRET_BACKEND=hashicorp-vault", "VAULT_ADDR=" + st.vault.Addr, "VAULT_TOKEN=" + st.vault.RootToken, "VAULT_PATH_PREFIX=" + prefix,
		"SECRET_TIMEOUT=1s", "SECRET_CACHE_TTL=5s",
	}
}

// owner returns the replica's process that has made a connection.
func (st *stand) owner(connection net.Conn) *incarnation {
	inode := socketInode(connection.RemoteAddr(), connection.LocalAddr())
	for _, b := range st.brokers {
		if one := b.current(); one != nil && inode != "" && one.owns(inode) {
			return one
		}
	}
	return nil
}

func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// awaitReady waits until every replica is ready.
func (st *stand) awaitReady(ctx context.Context) error {
	for _, b := range st.brokers {
		if err := b.awaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

const patience = time.Minute
