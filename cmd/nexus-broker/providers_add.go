package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nexus-broker/nexus-broker/internal/apiclient"
	"github.com/nexus-broker/nexus-broker/internal/config"
	"github.com/nexus-broker/nexus-broker/internal/manifest"
	"github.com/nexus-broker/nexus-broker/internal/presets"
	"github.com/nexus-broker/nexus-broker/secret"
)

// addition is what "providers add" was told.
type addition struct {
	set                    map[string]string
	name                   string
	scopes                 []string
	clientID, clientIDEnv  string
	secretFile, secretEnv  string
	refID, refSecret       string
	without, dryRun, print bool
}

func newAddCommand(b *remote) *cobra.Command {
	a := addition{}
	cmd := &cobra.Command{
		Use:   "add PRESET",
		Short: "Register a well-known provider",
		Long: `Registers the provider of a preset at a running broker. The client secret is read from
a variable of the environment, from a file or, with "-", from stdin; it is never an
argument. On an external backend whose values are there already, use
--without-credentials, or name where they lie.`,
		Example: `  nexus-broker providers add google --client-id ID --client-secret-file secret.txt
  nexus-broker providers add github --client-id-env GITHUB_ID --client-secret-env GITHUB_SECRET
  nexus-broker providers add microsoft --set tenant=common --client-id ID --client-secret-file -
  nexus-broker providers add okta --set domain=company.okta.com --without-credentials --dry-run
  nexus-broker providers add slack --print >slack.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return b.add(cmd, args[0], a) },
	}
	f := cmd.Flags()
	f.StringToStringVar(&a.set, "set", nil, "a value that the preset needs, as name=value")
	f.StringVar(&a.name, "name", "", "the provider's name, instead of the preset's")
	f.StringSliceVar(&a.scopes, "scopes", nil, "scopes to note in the profile")
	f.StringVar(&a.clientID, "client-id", "", "the client id")
	f.StringVar(&a.clientIDEnv, "client-id-env", "", "the environment variable that holds the client id")
	f.StringVar(&a.secretFile, "client-secret-file", "", "a file that holds the client secret, or - for stdin")
	f.StringVar(&a.secretEnv, "client-secret-env", "", "the environment variable that holds the client secret")
	f.StringVar(&a.refID, "credentials-ref-client-id", "", "where the client id lies in the secret backend")
	f.StringVar(&a.refSecret, "credentials-ref-client-secret", "", "where the client secret lies in the secret backend")
	f.BoolVar(&a.without, "without-credentials", false, "the credentials are in the secret backend already")
	f.BoolVar(&a.dryRun, "dry-run", false, "print the profile, without credentials, and call nobody")
	f.BoolVar(&a.print, "print", false, "print a manifest for \"providers apply\", with variables for the credentials, and call nobody")
	cmd.MarkFlagsMutuallyExclusive("client-id", "client-id-env")
	cmd.MarkFlagsMutuallyExclusive("client-secret-file", "client-secret-env")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "print")
	return cmd
}

func (b *remote) add(cmd *cobra.Command, preset string, a addition) error {
	p, err := presets.Find(preset)
	if err != nil {
		return err
	}
	profile, err := a.profile(p)
	if err != nil {
		return err
	}
	switch {
	case a.dryRun:
		return printJSON(b.stdout, profile)
	case a.print:
		draft, err := manifest.Draft(profile, !a.elsewhere())
		if err != nil {
			return err
		}
		b.note(p)
		return draft.Write(b.stdout)
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
	b.note(p)
	fmt.Fprintf(b.stdout, "%s is registered with the id %s\n", profile["name"], id)
	return nil
}

func (b *remote) note(p presets.Preset) {
	if p.Notes != "" {
		fmt.Fprintln(b.stderr, "note:", p.Notes)
	}
}

// profile returns what is registered, without credentials.
func (a addition) profile(p presets.Preset) (apiclient.Fields, error) {
	profile, err := p.Profile(a.set)
	if err != nil {
		return nil, err
	}
	if a.name != "" {
		profile["name"] = a.name
	}
	if len(a.scopes) > 0 {
		profile["scopes"] = a.scopes
	}
	switch {
	case (a.refID == "") != (a.refSecret == ""):
		return nil, errors.New("--credentials-ref-client-id and --credentials-ref-client-secret go together")
	case a.refID != "":
		profile["credentials_ref"] = apiclient.Reference{ClientID: a.refID, ClientSecret: a.refSecret}
	}
	return profile, nil
}

// elsewhere reports whether the credentials lie in the secret backend already.
func (a addition) elsewhere() bool { return a.without || a.refID != "" }

// addCredentials puts the client credentials into the profile, unless they lie in the
// secret backend already.
func (b *remote) addCredentials(profile apiclient.Fields, a addition) error {
	hasID := a.clientID != "" || a.clientIDEnv != ""
	hasSecret := a.secretFile != "" || a.secretEnv != ""
	switch {
	case a.elsewhere() && (hasID || hasSecret):
		return errors.New("credentials are given, and said to be in the secret backend: one of the two")
	case a.elsewhere():
		return nil
	case !hasID || !hasSecret:
		return errors.New("give --client-id or --client-id-env, and --client-secret-file or --client-secret-env; or say --without-credentials")
	}
	id := secret.NewValue(a.clientID)
	var err error
	if a.clientIDEnv != "" {
		if id, err = b.variable("--client-id-env", a.clientIDEnv); err != nil {
			return err
		}
	}
	clientSecret, err := b.clientSecret(a)
	if err != nil {
		return err
	}
	profile["client_id"], profile["client_secret"] = id, clientSecret
	return nil
}

func (b *remote) clientSecret(a addition) (secret.Value, error) {
	if a.secretEnv != "" {
		return b.variable("--client-secret-env", a.secretEnv)
	}
	const most = secret.MaxValueBytes + 2 // and a line end
	in := b.stdin
	if a.secretFile != "-" {
		file, err := os.Open(a.secretFile)
		if err != nil {
			return secret.Value{}, fmt.Errorf("--client-secret-file: %w", err)
		}
		defer func() { _ = file.Close() }() // it is only read
		in = file
	}
	text, err := io.ReadAll(io.LimitReader(in, most+1))
	if err != nil {
		return secret.Value{}, fmt.Errorf("--client-secret-file: %w", err)
	}
	value := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	switch {
	case value == "":
		return secret.Value{}, errors.New("--client-secret-file is empty")
	case len(value) > secret.MaxValueBytes:
		return secret.Value{}, fmt.Errorf("--client-secret-file holds more than %d bytes", secret.MaxValueBytes)
	}
	return secret.NewValue(value), nil
}

// variable returns the value of an environment variable, which must have one.
func (b *remote) variable(flag, name string) (secret.Value, error) {
	value := config.Environment(b.environ)(name)
	if value == "" {
		return secret.Value{}, fmt.Errorf("%s: the environment variable %s is not set", flag, name)
	}
	return secret.NewValue(value), nil
}
