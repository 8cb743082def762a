package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// defaultCommand is run when the command line names none.
const defaultCommand = "serve"

func newRootCommand(p program) *cobra.Command {
	root := &cobra.Command{
		Use:   "nexus-broker",
		Short: "An OAuth broker for AI agents that keeps client credentials in your vault",
		Long: `nexus-broker connects users' accounts to providers and hands agents fresh tokens.
The providers' client credentials live in a secret backend and nowhere else.

Without a command it serves. It is configured by environment variables, which
"nexus-broker config" shows; docs/configuration.md explains each.`,
		Example: `  nexus-broker --dev      serve on this machine, with SQLite and generated keys
  nexus-broker config     show the effective configuration
  nexus-broker doctor     check the set-up
  nexus-broker migrate up bring the database up to date`,
		Version:       readBuild().Version,
		SilenceErrors: true, // main prints them
		SilenceUsage:  true,
	}
	root.AddCommand(
		newServeCommand(p),
		newDemoCommand(p),
		newConfigCommand(p),
		newMigrateCommand(p),
		newKeysCommand(p),
		newDoctorCommand(p),
		newSecretsCommand(p),
		newProvidersCommand(p),
		newVersionCommand(p),
	)
	return root
}

// withDefaultCommand puts the default command in front of flags that stand alone.
func withDefaultCommand(args []string) []string {
	if len(args) > 0 && (!strings.HasPrefix(args[0], "-") || slices.Contains([]string{"-h", "--help", "-v", "--version"}, args[0])) {
		return args
	}
	return append([]string{defaultCommand}, args...)
}
