package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/nexus-broker/nexus-broker/internal/config"
)

func newServeCommand(p program) *cobra.Command {
	var o config.Options
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the HTTP API (the default command)",
		Long: `Serves the HTTP API until it is interrupted; requests in flight finish.

With --dev it needs no configuration: it keeps a SQLite database and generated keys
in nexus-data/, listens on 127.0.0.1 only, and prints its API key.`,
		Example: `  nexus-broker serve --dev
  DATABASE_URL=postgres://broker@db/broker BASE_URL=https://broker.example.com \
    ENCRYPTION_KEY_FILE=/run/keys/enc STATE_KEY_FILE=/run/keys/state nexus-broker serve`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(p.environ, o)
			if err != nil {
				return err
			}
			log := newLogger(p.stderr, c.Log)
			logWarnings(log, c)
			a, err := newApp(cmd.Context(), c, p.environ, log)
			if err != nil {
				return err
			}
			if o.Dev {
				greet(p.stdout, a)
			}
			return a.run(cmd.Context())
		},
	}
	addDevFlag(cmd, &o)
	return cmd
}

// greet tells a person at the terminal how to call the broker.
func greet(w io.Writer, a *app) {
	url := a.url()
	fmt.Fprintf(w, "nexus-broker %s for development, data in %s\n", readBuild().Version, a.config.Dev.Dir)
	if key := a.config.Dev.APIKey; !key.IsZero() {
		fmt.Fprintf(w, "API key: %s\n", key.Reveal())
		fmt.Fprintf(w, "Try:     curl -H 'X-API-Key: %s' %s/providers\n", key.Reveal(), url)
		return
	}
	fmt.Fprintf(w, "Try:     curl -H \"X-API-Key: $API_KEY\" %s/providers\n", url)
}
