package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/config"
	"github.com/nexus-broker/nexus-broker/internal/keyrotation"
)

func newKeysCommand(p program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Rotate the encryption keys",
		Long: `Looks after ENCRYPTION_KEY, the ring of keys that seal what is in the database: the
first key seals, all open. docs/keys.md shows how a key is replaced.`,
		Example: `  nexus-broker keys rotate
  nexus-broker keys rotate --check`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeysRotateCommand(p))
	return cmd
}

// rotateFlags are what "keys rotate" can be told.
type rotateFlags struct {
	config              config.Options
	check, dryRun, json bool
}

func newKeysRotateCommand(p program) *cobra.Command {
	var f rotateFlags
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Seal everything in the database under the first key of ENCRYPTION_KEY",
		Long: `Opens what is sealed in the database, with whichever key of ENCRYPTION_KEY opens it,
and seals it under the first: tokens, also those in the old format, credentials of the
internal secret backend, and the code verifiers of consents under way. Those of consents
that ended more than an hour ago are erased instead.

Brokers may serve from the database all the while, if each of them has the first key as
its first, too. A rotation that was interrupted goes on when the command is run again. A
value that no key opens is named and left as it is, and the rest goes on.

With --check it changes nothing and says how many values are sealed under which key.

Of the configuration only DATABASE_URL, ENCRYPTION_KEY and the other variables of the
database are needed. Exits with 0 if everything is sealed under the first key (with
--dry-run: can be), so that the other keys can be dropped, and with 1 if not.`,
		Example: `  nexus-broker keys rotate --dry-run
  nexus-broker keys rotate
  nexus-broker keys rotate --check
  nexus-broker keys rotate --check --json | jq '.places[] | {place, keys}'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runRotate(cmd.Context(), p, f) },
	}
	addDevFlag(cmd, &f.config)
	cmd.Flags().BoolVar(&f.check, "check", false, "change nothing; say under which keys the values are sealed")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "change nothing; say what would be done")
	cmd.Flags().BoolVar(&f.json, "json", false, "machine-readable")
	cmd.MarkFlagsMutuallyExclusive("check", "dry-run")
	return cmd
}

func runRotate(ctx context.Context, p program, f rotateFlags) (err error) {
	f.config.Inspect = true // a key that is made up now would open nothing
	c, err := config.LoadSealed(p.environ, f.config)
	if err != nil {
		return err
	}
	db, err := openForRotation(ctx, c.Database)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if f.check {
		return checkKeys(ctx, p.stdout, db, c, f.json)
	}
	return rotateKeys(ctx, p, db, c, f)
}

// openForRotation connects to the database, which must be there and up to date: a
// rotation is no reason to migrate it.
func openForRotation(ctx context.Context, c config.Database) (database, error) {
	if c.Driver == config.SQLite {
		if _, err := os.Stat(c.Path); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("there is no database at %s", c.Path)
		}
	}
	db, err := connectDatabase(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := requireFinished(ctx, db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// rotateKeys rotates, says how it goes, and records what was done.
func rotateKeys(ctx context.Context, p program, db database, c config.Config, f rotateFlags) error {
	workers := 1 // SQLite has one writer
	if c.Database.Driver == config.Postgres {
		workers = 4
	}
	bar := newRotationProgress(p.stderr, f.json)
	r := keyrotation.Rotator{Rows: db, Keys: c.Keys.Encryption, Workers: workers, DryRun: f.dryRun, Progress: bar.show}
	done, err := r.Rotate(ctx)
	bar.end()
	if !f.dryRun {
		err = errors.Join(err, recordRotation(ctx, db, c, done, err))
	}
	if printErr := printRotation(p.stdout, c.Keys.Encryption.CurrentID(), done, f); printErr != nil {
		err = errors.Join(err, printErr)
	}
	switch n := done.Sum().Closed; {
	case err != nil:
		return fmt.Errorf("the rotation is not complete; run it again to go on: %w", err)
	case n > 0:
		return fmt.Errorf("%s with any key of ENCRYPTION_KEY: see docs/keys.md", counted(n, "value does not open", "values do not open"))
	}
	return nil
}

// recordRotation records a rotation that has changed something, or was cut off.
func recordRotation(ctx context.Context, db audit.Recorder, c config.Config, done keyrotation.Report, failed error) error {
	sum := done.Sum()
	if sum.Resealed+sum.Erased == 0 {
		return nil
	}
	return db.Record(context.WithoutCancel(ctx), audit.New(ctx, audit.KeysRotated, uuid.Nil, map[string]any{
		"key": c.Keys.Encryption.CurrentID(), "resealed": sum.Resealed, "erased": sum.Erased,
		"not_opened": sum.Closed, "complete": failed == nil && sum.Closed == 0,
	}))
}

// rotation is the form of --json.
type rotation struct {
	Key    string `json:"key"` // the id of the first key
	DryRun bool   `json:"dry_run,omitempty"`
	keyrotation.Report
}

func printRotation(w io.Writer, key string, done keyrotation.Report, f rotateFlags) error {
	if f.json {
		return printJSON(w, rotation{key, f.dryRun, done})
	}
	verb := "sealed"
	if f.dryRun {
		verb = "to seal"
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range done.Places {
		fmt.Fprintf(table, "%s\t%d %s under %s\t%d already\t%d erased\t%d changed by a broker\t%d not opened\n",
			r.Place, r.Resealed, verb, key, r.Current, r.Erased, r.Changed, r.Closed)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, row := range done.Rows {
		under := "names no key"
		if row.KeyID != "" {
			under = "was sealed under key " + row.KeyID
		}
		fmt.Fprintf(w, "not opened: %s %s, which %s\n", row.Place, row.Row, under)
	}
	if n := done.Sum().Closed - len(done.Rows); n > 0 {
		fmt.Fprintf(w, "and %d more\n", n)
	}
	return nil
}

// keyCheck is the form of --check --json.
type keyCheck struct {
	Key     string              `json:"key"`     // the id of the first key
	Current bool                `json:"current"` // everything is sealed under it
	Places  []keyrotation.Count `json:"places"`
}

func checkKeys(ctx context.Context, w io.Writer, db database, c config.Config, asJSON bool) error {
	ring := c.Keys.Encryption
	counts, current, err := keyrotation.Check(ctx, db, ring)
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(w, keyCheck{ring.CurrentID(), current, counts})
	} else {
		err = printCounts(w, counts, func(id string) string {
			switch {
			case id == ring.CurrentID():
				return "the first key"
			case id == keyrotation.Unnamed:
				return "names no key"
			case ring.Has(id):
				return "another key of ENCRYPTION_KEY"
			}
			return "not in ENCRYPTION_KEY"
		})
	}
	switch {
	case err != nil:
		return err
	case !current:
		return errors.New(`not everything is sealed under the first key: run "nexus-broker keys rotate", and keep the other keys`)
	case asJSON:
		return nil
	}
	_, err = fmt.Fprintln(w, "Everything is sealed under the first key of ENCRYPTION_KEY. The others can be dropped.")
	return err
}

func printCounts(w io.Writer, counts []keyrotation.Count, describe func(id string) string) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range counts {
		ids := make([]string, 0, len(c.Keys))
		for id := range c.Keys {
			ids = append(ids, id)
		}
		slices.SortFunc(ids, func(a, b string) int { return strings.Compare(describe(b)+a, describe(a)+b) }) // the first key first
		if len(ids) == 0 {
			fmt.Fprintf(table, "%s\t0\n", c.Place)
		}
		for _, id := range ids {
			fmt.Fprintf(table, "%s\t%d\t%s\t%s\n", c.Place, c.Keys[id], id, describe(id))
		}
	}
	return table.Flush()
}
