package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/nexus-broker/nexus-broker/internal/config"
	"github.com/nexus-broker/nexus-broker/internal/store/migrations"
)

func newMigrateCommand(p program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Look at the database's schema, or bring it up to date",
		Long: `Looks at the schema of the database that DATABASE_URL names, or brings it up to
date. Of the configuration only the variables of the database are needed.`,
		Example: `  nexus-broker migrate status
  nexus-broker migrate up --dry-run
  nexus-broker migrate up`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newMigrateStatusCommand(p),
		newMigrateUpCommand(p),
		newMigrateFinishCommand(p),
	)
	return cmd
}

func newMigrateStatusCommand(p program) *cobra.Command {
	var o config.Options
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Say where the schema stands, and change nothing",
		Example: "  DATABASE_URL=sqlite:/var/lib/nexus/nexus.db nexus-broker migrate status",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return printPending(cmd.Context(), p, o)
		},
	}
	addDevFlag(cmd, &o)
	return cmd
}

func newMigrateUpCommand(p program) *cobra.Command {
	var o config.Options
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Apply the pending migrations",
		Long: `Applies the pending migrations, each in a transaction of its own. Of several
processes that do so at once one works and the others wait for it.

The database of an earlier broker is brought up to date in one transaction, and needs
ENCRYPTION_KEY: some of its tokens must open. That broker can go on using the database,
until "nexus-broker migrate finish". With --dry-run the same is done and rolled back.`,
		Example: "  nexus-broker migrate up --dry-run",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dryRun {
				return rehearseUp(cmd.Context(), p, o)
			}
			return migrateUp(cmd.Context(), p, o)
		},
	}
	addDevFlag(cmd, &o)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be applied, and change nothing")
	return cmd
}

// printPending says where the schema stands. It changes nothing.
func printPending(ctx context.Context, p program, o config.Options) error {
	status, err := readStatus(ctx, p, o)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "schema %d of %d\n", status.Version, status.Latest)
	if status.Existing {
		fmt.Fprintln(p.stdout, "the database of an earlier broker, not upgraded yet")
	}
	if len(status.Pending) == 0 {
		fmt.Fprintln(p.stdout, "up to date")
	}
	for _, m := range status.Pending {
		fmt.Fprintf(p.stdout, "pending: %d %s\n", m.Version, m.Name)
	}
	if status.Unfinished {
		fmt.Fprintf(p.stdout, "warning: %s; %s\n", unfinishedUpgrade(status), adviseFinish)
	}
	return nil
}

func migrateUp(ctx context.Context, p program, o config.Options) error {
	c, err := config.LoadMigration(p.environ, o)
	if err != nil {
		return err
	}
	return withMigrator(ctx, c.Database, func(m *migrations.Migrator) error {
		applied, err := m.WithKeys(c.Keys.Encryption).Up(ctx)
		if err != nil {
			return err
		}
		for _, step := range applied {
			fmt.Fprintf(p.stdout, "applied: %d %s\n", step.Version, step.Name)
		}
		fmt.Fprintln(p.stdout, "up to date")
		return nil
	})
}

func readStatus(ctx context.Context, p program, o config.Options) (status migrations.Status, err error) {
	o.Inspect = true
	c, err := config.LoadDatabase(p.environ, o)
	if err != nil {
		return status, err
	}
	// Opening an SQLite file would create it.
	if c.Database.Driver == config.SQLite {
		if _, err := os.Stat(c.Database.Path); errors.Is(err, fs.ErrNotExist) {
			return status, fmt.Errorf("there is no database at %s yet: \"nexus-broker migrate up\" creates it", c.Database.Path)
		}
	}
	err = withMigrator(ctx, c.Database, func(m *migrations.Migrator) (err error) {
		status, err = m.Status(ctx)
		return err
	})
	return status, err
}

// withMigrator connects to the configured database, whatever its schema, for as
// long as f runs.
func withMigrator(ctx context.Context, c config.Database, f func(*migrations.Migrator) error) error {
	db, err := connectDatabase(ctx, c)
	if err != nil {
		return err
	}
	m, err := db.Migrator()
	if err == nil {
		err = f(m)
	}
	return errors.Join(err, db.Close())
}
