package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	nexusbroker "github.com/nexus-broker/nexus-broker"
	"github.com/nexus-broker/nexus-broker/internal/apiclient"
	"github.com/nexus-broker/nexus-broker/internal/config"
	"github.com/nexus-broker/nexus-broker/internal/manifest"
)

// errChanges ends "plan --detailed-exitcode" when there is something to do.
var errChanges = errors.New("the broker differs from the manifest")

// manifestFlags are those of the commands that read a manifest.
type manifestFlags struct {
	files   []string
	options manifest.Options
	json    bool
}

func (f *manifestFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.files, "file", "f", nil, `a manifest, a folder of *.yaml and *.yml, or "-" for stdin; repeatable`)
	flags.BoolVar(&f.options.SetCredentials, "set-credentials", false, "send the credentials that cannot be compared")
	flags.BoolVar(&f.options.Prune, "prune", false, "delete the providers that the manifest does not name")
	flags.BoolVar(&f.json, "json", false, "machine-readable")
	if err := cmd.MarkFlagRequired("file"); err != nil {
		panic(err) // there is no such flag
	}
}

// plan reads the manifest and compares it with the broker.
func (f *manifestFlags) plan(cmd *cobra.Command, b *remote) (*apiclient.Client, manifest.Plan, error) {
	client, err := b.client()
	if err != nil {
		return nil, manifest.Plan{}, err
	}
	files, err := readManifests(f.files, b.stdin)
	if err != nil {
		return nil, manifest.Plan{}, err
	}
	m, err := manifest.Parse(files, config.Environment(b.environ))
	if err != nil {
		return nil, manifest.Plan{}, err
	}
	plan, err := manifest.MakePlan(cmd.Context(), client, m, f.options)
	return client, plan, err
}

// readManifests reads what -f names.
func readManifests(paths []string, stdin io.Reader) (files []manifest.File, err error) {
	for _, path := range paths {
		if path == "-" {
			content, err := io.ReadAll(io.LimitReader(stdin, manifest.MaxBytes+1))
			if err != nil {
				return nil, err
			}
			files = append(files, manifest.File{Name: "stdin", Content: content})
			continue
		}
		names := []string{path}
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if info.IsDir() {
			if names, err = manifestsIn(path); err != nil {
				return nil, err
			}
		}
		for _, name := range names {
			content, err := os.ReadFile(name)
			if err != nil {
				return nil, err
			}
			files = append(files, manifest.File{Name: name, Content: content})
		}
	}
	return files, nil
}

func manifestsIn(folder string) (names []string, err error) {
	entries, err := os.ReadDir(folder) // sorted
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); !e.IsDir() && (ext == ".yaml" || ext == ".yml") {
			names = append(names, filepath.Join(folder, e.Name()))
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("the folder %s has no *.yaml or *.yml", folder)
	}
	return names, nil
}

func newPlanCommand(b *remote) *cobra.Command {
	var f manifestFlags
	var detailed bool
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what would make the broker's providers those of a manifest",
		Long: `Compares a manifest with the providers of the broker, member by member, and changes
nothing. Credentials are never shown. docs/manifests.md explains the format.

Exits with 0. With --detailed-exitcode it exits with 0 if there is nothing to do, with
2 if there is, and with 1 after any failure, a wrong configuration included.`,
		Example: `  nexus-broker providers plan -f providers.yaml
  nexus-broker providers plan -f providers/ --prune --detailed-exitcode
  nexus-broker providers plan -f providers.yaml --json | jq -r '.providers[] | select(.action == "update") | .name'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, plan, err := f.plan(cmd, b)
			if err == nil {
				err = printPlan(b.stdout, plan, f.json)
			}
			switch {
			case detailed && err != nil:
				return exitError{1, err}
			case detailed && !plan.Empty():
				return exitError{2, errChanges}
			}
			return err
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&detailed, "detailed-exitcode", false, "exit with 2 if there is something to do")
	return cmd
}

func printPlan(w io.Writer, p manifest.Plan, asJSON bool) error {
	if !asJSON {
		return p.Print(w)
	}
	return printJSON(w, p)
}

func newApplyCommand(b *remote) *cobra.Command {
	var f manifestFlags
	var yes bool
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Make the broker's providers those of a manifest",
		Long: `Shows the plan, asks, and carries it out. Where nobody can be asked, and with
--json, it needs --yes. What --prune deletes it asks for separately.

A failure of one provider does not stop the others, but nothing is deleted after it.
Apply the manifest again to do what is left. Exits with 1 if anything failed.`,
		Example: `  nexus-broker providers apply -f providers.yaml
  nexus-broker providers apply -f providers/ --prune --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, plan, err := f.plan(cmd, b)
			if err != nil {
				return err
			}
			if !f.json {
				if err := plan.Print(b.stdout); err != nil {
					return err
				}
			}
			if plan, err = b.confirm(plan, yes, f); err != nil {
				return err
			}
			return b.apply(cmd, client, plan, f.json)
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// apply carries the plan out and prints what has become of it.
func (b *remote) apply(cmd *cobra.Command, client *apiclient.Client, plan manifest.Plan, asJSON bool) error {
	results := []manifest.Result{}
	failed := manifest.Apply(cmd.Context(), client, plan, func(r manifest.Result) {
		results = append(results, r)
		if asJSON {
			return
		}
		switch {
		case r.Skipped:
			fmt.Fprintf(b.stdout, "%s %s: not tried, because something failed before it\n", r.Action, r.Name)
		case r.Error != "":
			fmt.Fprintf(b.stdout, "%s %s: FAILED: %s\n", r.Action, r.Name, r.Error)
		default:
			fmt.Fprintf(b.stdout, "%s %s: done\n", r.Action, r.Name)
		}
	})
	if asJSON {
		if err := printJSON(b.stdout, map[string]any{"results": results}); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %s: mend the cause and apply again", failed,
			counted(len(results), "change was not made", "changes were not made"))
	}
	return nil
}

// confirm asks for the plan, and for its deletions separately, unless yes.
func (b *remote) confirm(plan manifest.Plan, yes bool, f manifestFlags) (manifest.Plan, error) {
	if yes || plan.Empty() {
		return plan, nil
	}
	if f.json || slices.Contains(f.files, "-") || !isTerminal(b.stdin) {
		return plan, errors.New("nothing was changed: there is nobody to ask, and --yes is not given")
	}
	answers := bufio.NewScanner(b.stdin)
	ask := func(question string) bool {
		fmt.Fprint(b.stdout, question+" Only \"yes\" is taken: ")
		return answers.Scan() && strings.TrimSpace(answers.Text()) == "yes"
	}
	if plan.Count(manifest.Create)+plan.Count(manifest.Update) > 0 && !ask("Make these changes?") {
		return plan, errors.New("nothing was changed")
	}
	if n := plan.Count(manifest.Delete); n > 0 &&
		!ask("Delete "+counted(n, "provider? Users' connections to it", "providers? Users' connections to them")+" end with the tokens that are stored.") {
		fmt.Fprintln(b.stdout, "Nothing is deleted.")
		return plan.WithoutDeletions(), nil
	}
	return plan, nil
}

func newExportCommand(b *remote) *cobra.Command {
	return &cobra.Command{
		Use:   "export",
		Short: "Write a manifest of the broker's providers, without credentials",
		Long: `Writes a manifest of the providers that the broker has, by name. It holds no
credential: where the broker keeps one, a variable of the environment stands for it,
such as ${GOOGLE_CLIENT_SECRET}. The variables are listed on stderr. A provider whose
credentials the broker cannot read is left out and named there, and the exit code is 1.`,
		Example: "  nexus-broker providers export >providers.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := b.client()
			if err != nil {
				return err
			}
			e, err := manifest.Export(cmd.Context(), client)
			if err != nil {
				return err
			}
			for _, name := range e.LeftOut {
				fmt.Fprintf(b.stderr, "left out: %q, because a manifest cannot hold its name; rename it\n", name)
			}
			for _, u := range e.Unreadable {
				fmt.Fprintf(b.stderr, "left out: %q, because the broker cannot read it: %v\n", u.Name, u.Reason)
			}
			if len(e.Variables) > 0 {
				fmt.Fprintf(b.stderr, "%s to set:\n  %s\n", counted(len(e.Variables), "variable", "variables"), strings.Join(e.Variables, "\n  "))
			}
			if err := e.Write(b.stdout); err != nil {
				return err
			}
			if n := len(e.Unreadable); n > 0 {
				return fmt.Errorf("%s not in the manifest; applied with --prune, it would delete what it lacks", counted(n, "provider is", "providers are"))
			}
			return nil
		},
	}
}

func newSchemaCommand(b *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "schema",
		Short:   "Print the JSON schema of manifests",
		Example: "  nexus-broker providers schema >manifest.schema.json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := b.stdout.Write(nexusbroker.ManifestSchema)
			return err
		},
	}
}
