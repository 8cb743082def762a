package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/nexus-broker/nexus-broker/internal/presets"
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
				needs := slices.Sorted(maps.Keys(p.Needs))
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
