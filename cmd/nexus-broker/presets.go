package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/nexus-broker/nexus-broker/internal/apiclient"
	"github.com/nexus-broker/nexus-broker/internal/presets"
	"github.com/nexus-broker/nexus-broker/secret"
)

func newPresetsCommand(b *remote) *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "presets",
		Short: "List well-known providers that \"providers add\" can register",
		Long: `Lists well-known providers with what "providers add" needs for each, how far its
endpoints were confirmed and on which day. No broker is called.`,
		Example: "  nexus-broker providers presets\n  nexus-broker providers presets show google",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			all, err := presets.All()
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(b.stdout, all)
			}
			w := tabwriter.NewWriter(b.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tPROVIDER\tNEEDS\tEVIDENCE\tCHECKED")
			for _, p := range all {
				var needs []string
				for name := range p.Needs {
					needs = append(needs, name)
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", p.Name, p.Title, strings.Join(needs, " "), p.Evidence, p.Checked)
			}
			return w.Flush()
		},
	}
	cmd.PersistentFlags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.AddCommand(&cobra.Command{
		Use: "show NAME", Short: "Show all that is known of a preset, as JSON", Args: cobra.ExactArgs(1),
		Example: "  nexus-broker providers presets show microsoft",
		RunE: func(_ *cobra.Command, args []string) error {
			p, err := presets.Find(args[0])
			if err != nil {
				return err
			}
			return printJSON(b.stdout, p)
		},
	})
	return cmd
}

// addition is what "providers add" was told.
type addition struct {
	set                  map[string]string
	name                 string
	scopes               []string
	clientID, secretFile string
	refID, refSecret     string
	without, dryRun      bool
}

func newAddCommand(b *remote) *cobra.Command {
	a := addition{}
	cmd := &cobra.Command{
		Use:   "add PRESET",
		Short: "Register a well-known provider",
		Long: `Registers the provider of a preset at a running broker. The client secret is read from
a file or, with "-", from stdin; it is never an argument. On an external backend whose
values are there already, use --without-credentials, or name where they lie.`,
		Example: `  nexus-broker providers add google --client-id ID --client-secret-file secret.txt
  nexus-broker providers add microsoft --set tenant=common --client-id ID --client-secret-file -
  nexus-broker providers add okta --set domain=company.okta.com --without-credentials --dry-run`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return b.add(cmd, args[0], a) },
	}
	f := cmd.Flags()
	f.StringToStringVar(&a.set, "set", nil, "a value that the preset needs, as name=value")
	f.StringVar(&a.name, "name", "", "the provider's name, instead of the preset's")
	f.StringSliceVar(&a.scopes, "scopes", nil, "scopes to note in the profile")
	f.StringVar(&a.clientID, "client-id", "", "the client id")
	f.StringVar(&a.secretFile, "client-secret-file", "", "a file that holds the client secret, or - for stdin")
	f.StringVar(&a.refID, "credentials-ref-client-id", "", "where the client id lies in the secret backend")
	f.StringVar(&a.refSecret, "credentials-ref-client-secret", "", "where the client secret lies in the secret backend")
	f.BoolVar(&a.without, "without-credentials", false, "the credentials are in the secret backend already")
	f.BoolVar(&a.dryRun, "dry-run", false, "print the profile, without credentials, and call nobody")
	return cmd
}

func (b *remote) add(cmd *cobra.Command, preset string, a addition) error {
	p, err := presets.Find(preset)
	if err != nil {
		return err
	}
	profile, err := p.Profile(a.set)
	if err != nil {
		return err
	}
	if a.name != "" {
		profile["name"] = a.name
	}
	if len(a.scopes) > 0 {
		profile["scopes"] = a.scopes
	}
	if a.refID != "" || a.refSecret != "" {
		profile["credentials_ref"] = apiclient.Reference{ClientID: a.refID, ClientSecret: a.refSecret}
	}
	if a.dryRun {
		return printJSON(b.stdout, profile)
	}
	if err := b.addCredentials(profile, a); err != nil {
		return err
	}
	client, err := b.client()
	if err != nil {
		return err
	}
	id, err := client.Register(cmd.Context(), profile)
	if err != nil {
		return err
	}
	if p.Notes != "" {
		fmt.Fprintln(b.stderr, "note:", p.Notes)
	}
	fmt.Fprintf(b.stdout, "%s is registered with the id %s\n", profile["name"], id)
	return nil
}

// addCredentials puts the client credentials into the profile, unless they lie in the
// secret backend already.
func (b *remote) addCredentials(profile apiclient.Fields, a addition) error {
	given := a.clientID != "" || a.secretFile != ""
	elsewhere := a.without || profile["credentials_ref"] != nil
	switch {
	case given && elsewhere:
		return errors.New("credentials are given, and said to be in the secret backend: one of the two")
	case elsewhere:
		return nil
	case a.clientID == "" || a.secretFile == "":
		return errors.New("give --client-id and --client-secret-file, or say --without-credentials")
	}
	const most = secret.MaxValueBytes + 2 // and a line end
	in := b.stdin
	if a.secretFile != "-" {
		file, err := os.Open(a.secretFile)
		if err != nil {
			return fmt.Errorf("--client-secret-file: %w", err)
		}
		defer func() { _ = file.Close() }()
		in = file
	}
	text, err := io.ReadAll(io.LimitReader(in, most))
	if err != nil {
		return fmt.Errorf("--client-secret-file: %w", err)
	}
	value := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if value == "" {
		return errors.New("--client-secret-file is empty")
	}
	profile["client_id"], profile["client_secret"] = secret.NewValue(a.clientID), secret.NewValue(value)
	return nil
}
