package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nexus-broker/nexus-broker/internal/apiclient"
	"github.com/nexus-broker/nexus-broker/internal/config"
)

func newProvidersCommand(p program) *cobra.Command {
	b := &remote{program: p}
	cmd := &cobra.Command{
		Use:   "providers",
		Short: "Manage the providers of a running broker",
		Long: `Manages the providers of a running broker over its HTTP API. The broker is named by
BROKER_BASE_URL or --url, and the API key, with the role admin, by API_KEY or
API_KEY_FILE. Nothing else of the broker's configuration is needed.`,
		Example: `  export BROKER_BASE_URL=https://broker.example.com API_KEY_FILE=/run/secrets/broker-key
  nexus-broker providers export >providers.yaml
  nexus-broker providers plan -f providers.yaml
  nexus-broker providers apply -f providers.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringVar(&b.url, "url", "", "the broker's address, instead of BROKER_BASE_URL")
	for _, add := range providersCommands() {
		cmd.AddCommand(add(b))
	}
	return cmd
}

// providersCommands make the commands below "providers".
func providersCommands() []func(*remote) *cobra.Command {
	return []func(*remote) *cobra.Command{
		newPlanCommand,
		newApplyCommand,
		newExportCommand,
		newSchemaCommand,
		newPresetsCommand,
		newAddCommand,
	}
}

// remote is the broker that the commands below "providers" work on.
type remote struct {
	program
	url string // --url
}

// client returns a client of the configured broker. What is worth a warning is
// printed to stderr.
func (b *remote) client() (*apiclient.Client, error) {
	c, err := config.LoadClient(b.environ, b.url)
	if err != nil {
		return nil, err
	}
	for _, warning := range c.Warnings {
		fmt.Fprintln(b.stderr, "warning:", warning)
	}
	return apiclient.New(apiclient.Options{
		BaseURL: c.Client.BaseURL, APIKey: c.Client.APIKey, UserAgent: "nexus-broker/" + readBuild().Version,
	}), nil
}
