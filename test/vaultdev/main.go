// Command vaultdev is a real HashiCorp Vault for tests: Vault's own core and HTTP
// handler, version 1.13.2 (the last line under the MPL-2.0 that builds as a
// library), on storage in memory and with only the plugins that the tests need.
//
// It is initialised with one unseal key, unsealed, and has KV version 2 mounted at
// secret/. When it is ready it prints one line of JSON:
//
//	{"addr":"127.0.0.1:43210","root_token":"root","unseal_key":"…"}
//
// What it cannot prove: namespaces (it ignores their header), standbys, performance
// and disaster recovery replication, which only several nodes or the Enterprise
// edition have, and the wording of other versions' errors. Tests play those at the
// wire; with VAULT_BIN set they run on another server.
//
// SIGINT or SIGTERM ends it. It is a module of its own, so that Vault's several
// hundred modules stay out of the broker's go.mod.
package main

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	hclog "github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/audit"
	auditfile "github.com/hashicorp/vault/builtin/audit/file"
	"github.com/hashicorp/vault/helper/namespace"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

// leaseTTL is the default and the longest lifetime of a token, Vault's own default.
const leaseTTL = 32 * 24 * time.Hour

type flags struct {
	listen, rootToken, tlsCert, tlsKey, logLevel string
}

func main() {
	var f flags
	flag.StringVar(&f.listen, "listen", "127.0.0.1:0", "address to listen on")
	flag.StringVar(&f.rootToken, "root-token", "root", "id of the root token")
	flag.StringVar(&f.tlsCert, "tls-cert", "", "certificate file; plain HTTP without it")
	flag.StringVar(&f.tlsKey, "tls-key", "", "key file of the certificate")
	flag.StringVar(&f.logLevel, "log-level", "warn", "level of the log on standard error")
	flag.Parse()
	if err := run(f); err != nil {
		fmt.Fprintln(os.Stderr, "vaultdev:", err)
		os.Exit(1)
	}
}

func run(f flags) error {
	core, err := newCore(f.logLevel)
	if err != nil {
		return err
	}
	unsealKey, err := prepare(core, f.rootToken)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", f.listen)
	if err != nil {
		return err
	}
	srv, err := newServer(core, ln, f)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- serve(srv, ln) }()

	err = json.NewEncoder(os.Stdout).Encode(map[string]string{
		"addr": ln.Addr().String(), "root_token": f.rootToken, "unseal_key": unsealKey,
	})
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	select {
	case err = <-ended:
	case <-stop:
		err = srv.Close()
	}
	return errors.Join(err, core.Shutdown())
}

func newCore(logLevel string) (*vault.Core, error) {
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.LevelFromString(logLevel), Output: os.Stderr})
	storage, err := inmem.NewInmem(nil, logger)
	if err != nil {
		return nil, err
	}
	return vault.NewCore(&vault.CoreConfig{
		Physical: storage, StorageType: "inmem", Logger: logger, LogLevel: logLevel, DisableMlock: true,
		LogicalBackends: secretsEngines, CredentialBackends: authMethods, BuiltinRegistry: registry{},
		AuditBackends:   map[string]audit.Factory{"file": auditfile.Factory},
		DefaultLeaseTTL: leaseTTL, MaxLeaseTTL: leaseTTL,
	})
}

// prepare initialises and unseals the core, creates the root token under its chosen
// id and mounts KV version 2. It returns the unseal key in hexadecimal.
func prepare(core *vault.Core, rootToken string) (unsealKey string, err error) {
	ctx := namespace.RootContext(context.Background())
	init, err := core.Initialize(ctx, &vault.InitParams{BarrierConfig: &vault.SealConfig{SecretShares: 1, SecretThreshold: 1}})
	if err != nil {
		return "", fmt.Errorf("initialising: %w", err)
	}
	if ok, err := core.Unseal(init.SecretShares[0]); err != nil || !ok {
		return "", fmt.Errorf("unsealing: %w", errors.Join(err, errors.New("still sealed")))
	}
	write := func(token, path string, data map[string]any) error {
		resp, err := core.HandleRequest(ctx, &logical.Request{
			ID: path, Operation: logical.UpdateOperation, ClientToken: token, Path: path, Data: data,
		})
		if err == nil && resp != nil {
			err = resp.Error()
		}
		if err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
		return nil
	}
	err = write(init.RootToken, "auth/token/create", map[string]any{
		"id": rootToken, "policies": []string{"root"}, "no_parent": true, "no_default_policy": true,
	})
	if err != nil {
		return "", err
	}
	err = write(rootToken, "sys/mounts/secret", map[string]any{"type": "kv", "options": map[string]string{"version": "2"}})
	return hex.EncodeToString(init.SecretShares[0]), err
}

func newServer(core *vault.Core, ln net.Listener, f flags) (*http.Server, error) {
	srv := &http.Server{
		Handler: vaulthttp.Handler.Handler(&vault.HandlerProperties{
			Core:           core,
			ListenerConfig: &configutil.Listener{Type: "tcp", Address: ln.Addr().String(), TLSDisable: f.tlsCert == ""},
		}),
		ReadHeaderTimeout: 10 * time.Second,
	}
	if f.tlsCert == "" {
		return srv, nil
	}
	pair, err := tls.LoadX509KeyPair(f.tlsCert, f.tlsKey)
	if err != nil {
		return nil, err
	}
	// Asked for and not verified: the cert auth method does that.
	srv.TLSConfig = &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12,
	}
	return srv, nil
}

func serve(srv *http.Server, ln net.Listener) error {
	if srv.TLSConfig != nil {
		return srv.ServeTLS(ln, "", "")
	}
	return srv.Serve(ln)
}
