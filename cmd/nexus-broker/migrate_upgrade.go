package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nexus-broker/nexus-broker/internal/config"
	"github.com/nexus-broker/nexus-broker/internal/store/migrations"
)

func newMigrateFinishCommand(p program) *cobra.Command {
	var o config.Options
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "finish",
		Short: "Complete the upgrade of an earlier broker's database",
		Long: `Completes the upgrade of a database that an earlier broker created: it seals the
client credentials that lie in plaintext, empties their columns, and seals the code
verifiers of pending consents, in one transaction. Nobody is served as long as it takes.

Afterwards the earlier broker cannot use the database any more: stop every replica of it
before. With --dry-run the same is done and rolled back. On any other database there is
nothing to do.`,
		Example: "  nexus-broker migrate finish --dry-run",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return finishUpgrade(cmd.Context(), p, o, dryRun)
		},
	}
	addDevFlag(cmd, &o)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "do it, say what was done, and roll it back")
	return cmd
}

// rehearseUp says what "migrate up" would do. It changes nothing.
func rehearseUp(ctx context.Context, p program, o config.Options) error {
	status, err := readStatus(ctx, p, o)
	if err != nil || !status.Existing {
		if err != nil {
			return err
		}
		return printPending(ctx, p, o)
	}
	c, err := config.LoadMigration(p.environ, o)
	if err != nil {
		return err
	}
	return withMigrator(ctx, c.Database, func(m *migrations.Migrator) error {
		found, err := m.WithKeys(c.Keys.Encryption).Rehearse(ctx)
		if err != nil {
			return err
		}
		columns := "without the newer columns"
		if found.Newer {
			columns = "with the newer columns"
		}
		fmt.Fprintf(p.stdout, "recognised: the database of an earlier broker, %s\n", columns)
		fmt.Fprintf(p.stdout, "providers: %d, and %d deleted; %d with client credentials in plaintext\n", found.Providers, found.Deleted, found.Plaintext)
		fmt.Fprintf(p.stdout, "connections: %d, tokens: %d\n", found.Connections, found.Tokens)
		fmt.Fprintln(p.stdout, keyChecked(found.Sampled))
		for _, step := range status.Pending {
			fmt.Fprintf(p.stdout, "would apply: %d %s\n", step.Version, step.Name)
		}
		fmt.Fprintln(p.stdout, "rehearsed and rolled back: nothing has changed")
		return nil
	})
}

func finishUpgrade(ctx context.Context, p program, o config.Options, dryRun bool) error {
	if _, err := readStatus(ctx, p, o); err != nil { // creates no SQLite file
		return err
	}
	c, err := config.LoadMigration(p.environ, o)
	if err != nil {
		return err
	}
	return withMigrator(ctx, c.Database, func(m *migrations.Migrator) error {
		done, err := m.WithKeys(c.Keys.Encryption).Finish(ctx, !dryRun)
		switch {
		case err != nil:
			return err
		case done.New:
			fmt.Fprintln(p.stdout, "Nothing to finish: no earlier broker has used this database.")
			return nil
		case done.Already:
			fmt.Fprintln(p.stdout, "Nothing to finish: the upgrade is finished already.")
			return nil
		}
		fmt.Fprintln(p.stdout, keyChecked(done.Sampled))
		if done.Sampled == 0 && done.Pairs+done.Sealed > 0 {
			fmt.Fprintf(p.stdout, "what was sealed now is under the key %s: every replica must have it first in ENCRYPTION_KEY\n", c.Keys.Encryption.CurrentID())
		}
		printFinished(p, done)
		if dryRun {
			fmt.Fprintln(p.stdout, "rehearsed and rolled back: nothing has changed")
			return nil
		}
		fmt.Fprint(p.stdout, afterFinish)
		return nil
	})
}

// keyChecked says what is known of ENCRYPTION_KEY from the tokens that were opened.
func keyChecked(tokens int) string {
	switch tokens {
	case 0:
		return "warning: there is no token in the database, so it could not be checked whether ENCRYPTION_KEY is the earlier broker's"
	case 1:
		return "ENCRYPTION_KEY opens the 1 token that was looked at"
	}
	return fmt.Sprintf("ENCRYPTION_KEY opens all of %d tokens that were looked at", tokens)
}

func printFinished(p program, done migrations.Finished) {
	for _, line := range []struct {
		n         int
		one, many string
	}{
		{done.Pairs, "pair of client credentials sealed", "pairs of client credentials sealed"},
		{done.OfDeleted, "of them of a deleted provider that active connections need", "of them of deleted providers that active connections need"},
		{done.Dropped, "pair of a deleted provider dropped, which no active connection needs", "pairs of deleted providers dropped, which no active connection needs"},
		{done.Superseded, "pair dropped that lay beside a newer one in a secret backend", "pairs dropped that lay beside a newer one in a secret backend"},
		{done.Sealed, "code verifier of a pending consent sealed", "code verifiers of pending consents sealed"},
		{done.Erased, "code verifier of an ended consent erased", "code verifiers of ended consents erased"},
		{done.Tokens, "token in the earlier broker's format: it opens, and is rewritten when it is refreshed",
			"tokens in the earlier broker's format: they open, and are rewritten when they are refreshed"},
	} {
		what := line.many
		if line.n == 1 {
			what = line.one
		}
		fmt.Fprintf(p.stdout, "%6d %s\n", line.n, what)
	}
}

const afterFinish = `The upgrade is finished. An earlier broker cannot use this database any more: leave none running.
The plaintext is in no row any more, but for some time still in the files of the database:
- in dead rows, until they are overwritten: run VACUUM FULL provider_profiles; VACUUM FULL connections;
- in the write-ahead log and its archive, until they are recycled or deleted;
- in backups from before: keep them as you keep secrets, and delete them in time.
Whoever could read one of these could read the client credentials: rotate them at the providers if that matters.
`
