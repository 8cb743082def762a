package main

import (
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nexus-broker/nexus-broker/internal/config"
	"github.com/nexus-broker/nexus-broker/internal/demo"
	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
)

func newDemoCommand(p program) *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the main job on one screen, on this machine only",
		Long: `Starts a broker on SQLite and a small authorization server on the loopback
interface, registers a provider, walks through a user's consent, fetches and refreshes
a token, shows where the client credentials are, and ends. Each step is printed as the
curl that does the same.

It uses SECRET_BACKEND and the variables of that backend where they are set.`,
		Example: `  nexus-broker demo
  nexus-broker demo --keep
  SECRET_BACKEND=hashicorp-vault VAULT_ADDR=http://127.0.0.1:8200 VAULT_TOKEN=… nexus-broker demo`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDemo(cmd.Context(), p, keep) },
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the broker and the authorization server running until interrupted")
	return cmd
}

func runDemo(ctx context.Context, p program, keep bool) (err error) {
	dir, err := os.MkdirTemp("", "nexus-broker-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c, err := config.Load(demoEnviron(p.environ), config.Options{Dev: true, DataDir: dir})
	if err != nil {
		return err
	}
	a, err := newApp(ctx, c, p.environ, newLogger(p.stderr, config.Log{Level: slog.LevelWarn, Format: "text"}))
	if err != nil {
		return err
	}
	// The broker outlives an interrupt by what the demo does last.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan error, 1)
	go func() { served <- a.run(serving) }()
	defer func() {
		stop()
		if serveErr := <-served; err == nil {
			err = serveErr
		}
	}()

	client := oauthtest.Client{ID: "demo-client", Secret: "demo-secret-" + rand.Text(), Auth: oauthtest.ClientSecretBasic}
	provider, err := oauthtest.New(oauthtest.Options{Clients: []oauthtest.Client{client}})
	if err != nil {
		return err
	}
	defer func() { _ = provider.Close() }()

	o := demo.Options{
		Out: p.stdout, BrokerURL: a.url(), APIKey: c.Dev.APIKey.Reveal(),
		Backend: c.Secrets.Backend, DataDir: dir, SealedRow: a.sealedRow, Provider: provider,
		ProviderName: "demo-" + strings.ToLower(rand.Text()[:6]),
		ClientID:     client.ID, ClientSecret: client.Secret, Keep: keep,
	}
	return demo.Run(ctx, o)
}

// demoEnviron is what the demo takes from the environment: the secret backend, and
// nothing that would make it touch somebody's database or port.
func demoEnviron(environ []string) []string {
	kept := slices.DeleteFunc(slices.Clone(environ), func(v string) bool {
		return !strings.HasPrefix(v, "SECRET_") && !strings.HasPrefix(v, "VAULT_")
	})
	return append(kept, "LISTEN_ADDR=127.0.0.1:0")
}

// sealedRow returns what the internal backend stores under key, for people to see.
func (a *app) sealedRow(ctx context.Context, key string) (string, error) {
	row, _, err := a.db.SealedRow(ctx, key)
	return row.Sealed, err
}
