package main

import (
	"cmp"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/nexus-broker/nexus-broker/internal/config"
)

func newConfigCommand(p program) *cobra.Command {
	var o config.Options
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show the effective configuration",
		Long: `Shows every variable that has a say, its value and where the value comes from
(env, file, default or dev). Of a secret it says only whether it is set.

Exits with 2 and a line for each problem if the configuration is wrong.`,
		Example: `  SECRET_BACKEND=hashicorp-vault VAULT_ADDR=https://vault:8200 nexus-broker config
  nexus-broker config --dev`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			o.Inspect = true
			c, wrong := config.Load(p.environ, o)
			if err := printConfig(p.stdout, c); err != nil {
				return err
			}
			return wrong
		},
	}
	addDevFlag(cmd, &o)
	return cmd
}

// addDevFlag adds the flag --dev to a command that reads the configuration.
func addDevFlag(cmd *cobra.Command, o *config.Options) {
	cmd.Flags().BoolVar(&o.Dev, "dev", false,
		"for a laptop: SQLite and generated keys in ./nexus-data, loopback only")
}

func printConfig(w io.Writer, c config.Config) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range c.Settings {
		fmt.Fprintf(table, "%s\t%s\t%s\n", s.Name, cmp.Or(s.Value, "-"), s.Source)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, warning := range c.Warnings {
		if _, err := fmt.Fprintln(w, "warning:", warning); err != nil {
			return err
		}
	}
	return nil
}
