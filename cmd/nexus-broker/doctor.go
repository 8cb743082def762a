package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/nexus-broker/nexus-broker/internal/config"
	"github.com/nexus-broker/nexus-broker/secret"
)

// doctorTime bounds each part of the examination.
const doctorTime = time.Minute

// doctorFlags are what "doctor" can be told.
type doctorFlags struct {
	config      config.Options
	json        bool
	printPolicy bool
	readOnly    bool
}

func newDoctorCommand(p program) *cobra.Command {
	f := doctorFlags{config: config.Options{Inspect: true}}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check the set-up, or print the policy that it needs",
		Long: `Examines the configuration, the database, the encryption keys and the secret
backend: the connection, TLS, the clocks, the login and how long it lasts, and each
right below the prefix. So it does with every other backend that the database names
while credentials are being moved. Each is a line "ok", "warn" or "fail" with what to do
about it. No line shows a secret.

To try the rights it writes a probe of its own below the prefix and removes it. With
SECRET_READ_ONLY=true or --read-only it writes nothing.

With --print-policy it prints the least policy that the secret backend has to grant,
and nothing else. Of the configuration only the variables of the backend are needed,
and no connection.

Exits with 0 if nothing fails, also where there are warnings, and with 1 if anything
does, a wrong configuration included.`,
		Example: `  nexus-broker doctor
  nexus-broker doctor --json | jq -r '.checks[] | select(.verdict != "ok") | .detail'
  nexus-broker doctor --print-policy | vault policy write nexus-broker -`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.printPolicy {
				return printPolicy(cmd.Context(), p, f)
			}
			return examine(cmd.Context(), p, f)
		},
	}
	addDevFlag(cmd, &f.config)
	cmd.Flags().BoolVar(&f.json, "json", false, "machine-readable")
	cmd.Flags().BoolVar(&f.printPolicy, "print-policy", false, "print the least policy for the secret backend, and end")
	cmd.Flags().BoolVar(&f.readOnly, "read-only", false, "as with SECRET_READ_ONLY=true: only reads are needed, and nothing is written")
	cmd.MarkFlagsMutuallyExclusive("json", "print-policy")
	return cmd
}

// need returns what the broker has to be allowed to do.
func (f doctorFlags) need(c config.Secrets) secret.Access {
	if f.readOnly || c.ReadOnly {
		return secret.ReadOnly
	}
	return secret.ReadWrite
}

// printPolicy prints the policy of the selected backend.
func printPolicy(ctx context.Context, p program, f doctorFlags) error {
	c, err := config.LoadBackend(p.environ, f.config)
	if err != nil {
		return err
	}
	all, err := openForDoctor(ctx, c, nil)
	if err != nil {
		return err
	}
	defer func() { _ = all.Close() }()
	writer := all.selected.Policies
	if writer == nil {
		return fmt.Errorf("the secret backend %s does not know its policy: see its documentation", c.Secrets.Backend)
	}
	policy, err := writer.Policy(ctx, f.need(c.Secrets))
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(p.stdout, policy)
	return err
}

// examine examines everything and prints what it has found.
func examine(ctx context.Context, p program, f doctorFlags) error {
	r := &report{}
	c, err := config.Load(p.environ, f.config)
	var wrong config.Problems
	switch {
	case errors.As(err, &wrong):
		r.problems(wrong)
	case err != nil:
		return err
	default:
		r.configuration(c)
		r.parts(ctx, c, p.environ, f.need(c.Secrets))
	}
	if err := r.print(p.stdout, f.json); err != nil {
		return err
	}
	return r.err()
}

// parts examines what the configuration leads to.
func (r *report) parts(ctx context.Context, c config.Config, environ []string, need secret.Access) {
	bounded, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	db := r.openDatabase(bounded, c.Database)
	usable := false
	if db != nil {
		defer func() { _ = db.Close() }()
		usable = r.database(bounded, db, c)
	}
	if c.Secrets.Backend == config.BackendInternal && !usable {
		return // it is the database
	}
	all, err := openForDoctor(ctx, c, db)
	if err != nil {
		r.add(areaBackend, failure("configuration", err, "correct the configuration"))
		return
	}
	defer func() { _ = all.Close() }()
	r.references(c.Secrets, all.selected)
	r.backend(ctx, areaBackend, all.selected, need)
	if usable {
		r.furtherBackends(ctx, db, c, environ, all, need)
	}
}
