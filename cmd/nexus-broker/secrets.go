package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/config"
)

// secretsFlags are what the commands of "secrets" can be told.
type secretsFlags struct {
	config config.Options
	move   broker.MoveOptions
	json   bool
	yes    bool
}

func newSecretsCommand(p program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secrets",
		Short: "Move client credentials from one secret backend to another",
		Long: `Moves the client credentials from one secret backend to another, while the broker
serves: "migrate" copies and switches each provider, "verify" compares, "scrub" deletes
what is left in the source. docs/migrating.md has the whole procedure.

The commands run beside the broker, with its environment: the database, the keys, and
the variables of both backends. SECRET_BACKEND is replaced by the flags.`,
		Example: `  nexus-broker secrets migrate --from internal --to hashicorp-vault --dry-run
  nexus-broker secrets migrate --from internal --to hashicorp-vault
  nexus-broker secrets verify --from internal --to hashicorp-vault
  nexus-broker secrets scrub --from internal --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSecretsMigrateCommand(p), newSecretsVerifyCommand(p), newSecretsScrubCommand(p))
	return cmd
}

func newSecretsMigrateCommand(p program) *cobra.Command {
	f := secretsFlags{}
	cmd := &cobra.Command{
		Use:   "migrate --from BACKEND --to BACKEND",
		Short: "Copy the credentials and switch each provider to the copy",
		Long: `Goes through all providers whose credentials lie in the source: copies, reads back,
compares, and switches the provider to the target. The source's values stay, for
"secrets scrub".

It can be interrupted at any point and run again. After it was killed, the provider that
it had in hand is waited for until the claim of the dead process has run out. What a
store refuses for the moment is tried again, as long as anything succeeds within two
minutes (--patience).

Exits with 0 if every provider is in the target or was rightly skipped, else with 1; the
report says which failed.`,
		Example: `  nexus-broker secrets migrate --from internal --to hashicorp-vault --dry-run
  nexus-broker secrets migrate --from hashicorp-vault --to aws-secrets-manager --json > report.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd.Context(), p, "migrate", (*broker.Service).Migrate)
		},
	}
	f.add(cmd, true)
	cmd.Flags().BoolVar(&f.move.DryRun, "dry-run", false, "say what would be done, and write nothing")
	cmd.Flags().BoolVar(&f.move.IncludeExternal, "include-external", false, "copy also credentials that somebody else keeps in the source; the copy is the broker's")
	cmd.Flags().BoolVar(&f.move.Overwrite, "overwrite", false, "replace other values in the target that the broker did not write")
	return cmd
}

func newSecretsVerifyCommand(p program) *cobra.Command {
	f := secretsFlags{}
	cmd := &cobra.Command{
		Use:   "verify --from BACKEND --to BACKEND",
		Short: "Compare what was moved with its source",
		Long: `Compares each pair that "secrets migrate" has left in the source with the one in use
in the target, and says "equal", "differs" or "missing". It prints no value and writes
nothing. Exits with 0 if all are equal, else with 1.`,
		Example: `  nexus-broker secrets verify --from internal --to hashicorp-vault`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd.Context(), p, "verify", (*broker.Service).VerifyMoved)
		},
	}
	f.add(cmd, true)
	return cmd
}

func newSecretsScrubCommand(p program) *cobra.Command {
	f := secretsFlags{}
	cmd := &cobra.Command{
		Use:   "scrub --from BACKEND",
		Short: "Delete what was moved from its source",
		Long: `Deletes each pair that "secrets migrate" has left in the source, after it was compared
once more with the one in use. What differs, cannot be read, or carries somebody else's
mark stays and is reported. A pair that was rotated since it was moved differs:
--include-differing deletes those too, if the one in use can be read.

Asks before it deletes; without a terminal it needs --yes. Exits with 0 if all are
deleted, else with 1.`,
		Example: `  nexus-broker secrets scrub --from internal --dry-run
  nexus-broker secrets scrub --from internal --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !f.yes && !f.move.DryRun {
				if err := confirm(cmd.InOrStdin(), p.stderr, f.move.From); err != nil {
					return err
				}
			}
			return f.run(cmd.Context(), p, "scrub", (*broker.Service).Scrub)
		},
	}
	f.add(cmd, false)
	cmd.Flags().BoolVar(&f.move.DryRun, "dry-run", false, "say what would be deleted, and write nothing")
	cmd.Flags().BoolVar(&f.move.IncludeDiffering, "include-differing", false, "delete also what is not equal to the pair in use")
	cmd.Flags().BoolVar(&f.yes, "yes", false, "do not ask")
	return cmd
}

// add adds the flags that the commands share.
func (f *secretsFlags) add(cmd *cobra.Command, to bool) {
	addDevFlag(cmd, &f.config)
	cmd.Flags().StringVar(&f.move.From, "from", "", "the source: "+strings.Join(backendNames(), ", "))
	_ = cmd.MarkFlagRequired("from")
	if to {
		cmd.Flags().StringVar(&f.move.To, "to", "", "the target: one of the same")
		_ = cmd.MarkFlagRequired("to")
	}
	cmd.Flags().BoolVar(&f.json, "json", false, "a machine-readable report")
	f.move.Patience = 2 * time.Minute
	cmd.Flags().Var((*durationFlag)(&f.move.Patience), "patience", "give up when nothing has succeeded for so long")
}

// durationFlag is a duration, written as those of the variables are: a plain number is
// one of seconds.
type durationFlag time.Duration

// String implements pflag.Value.
func (d *durationFlag) String() string { return time.Duration(*d).String() }

// Set implements pflag.Value.
func (d *durationFlag) Set(text string) error {
	parsed, ok := config.ParseDuration(text)
	if !ok {
		return errors.New("give a duration such as 90s, 5m or 1h; a plain number is one of seconds")
	}
	*d = durationFlag(parsed)
	return nil
}

// Type implements pflag.Value.
func (*durationFlag) Type() string { return "duration" }

func backendNames() []string {
	return []string{config.BackendInternal, config.BackendVault, config.BackendAWS, config.BackendGCP}
}

func (f *secretsFlags) check() error {
	for flag, name := range map[string]string{"--from": f.move.From, "--to": f.move.To} {
		if name != "" && !slices.Contains(backendNames(), name) {
			return fmt.Errorf("%s: no such secret backend: give one of %s", flag, strings.Join(backendNames(), ", "))
		}
	}
	if f.move.From == f.move.To {
		return errors.New("--from and --to name the same secret backend")
	}
	if f.move.Patience <= 0 {
		return fmt.Errorf("--patience %s: give a time, such as 2m", f.move.Patience)
	}
	return nil
}

// run does the work of a command and prints its report.
func (f *secretsFlags) run(ctx context.Context, p program, command string, do func(*broker.Service, context.Context, broker.MoveOptions) error) error {
	if err := f.check(); err != nil {
		return err
	}
	m, err := openMove(ctx, p, f)
	if err != nil {
		return err
	}
	defer m.close()
	report := newMoveReport(p, command, f)
	f.move.Report, f.move.Progress = report.add, report.progress
	err = do(m.service, ctx, f.move)
	return report.end(err)
}

// confirm asks a person at a terminal.
func confirm(in io.Reader, out io.Writer, from string) error {
	if !isTerminal(in) {
		return errors.New("scrub deletes credentials: without a terminal to ask at, give --yes")
	}
	fmt.Fprintf(out, "Delete from %s what has been moved from there? [y/N] ", from)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if answer := strings.ToLower(strings.TrimSpace(line)); answer != "y" && answer != "yes" {
		return errors.New("nothing was deleted")
	}
	return nil
}
