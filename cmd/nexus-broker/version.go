package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Set by the linker: go build -ldflags "-X main.version=v1.2.3 -X main.commit=0123abc".
var version, commit string

// build is what is known of this binary.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// readBuild takes what the linker was told, else what the Go command noted.
func readBuild() build {
	b := build{Version: version, Commit: commit, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		b.Version = cmp.Or(b.Version, info.Main.Version)
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				b.Commit = cmp.Or(b.Commit, s.Value)
			}
		}
	}
	b.Version = cmp.Or(b.Version, "(devel)")
	return b
}

func (b build) String() string {
	detail := b.Go + " " + b.Platform
	if b.Commit != "" {
		detail = "commit " + b.Commit + ", " + detail
	}
	return fmt.Sprintf("nexus-broker %s (%s)", b.Version, detail)
}

func newVersionCommand(p program) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Show the version",
		Example: "  nexus-broker version --json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return json.NewEncoder(p.stdout).Encode(readBuild())
			}
			_, err := fmt.Fprintln(p.stdout, readBuild())
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "machine-readable")
	return cmd
}
