package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

func versionVerb(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if a.json {
				var names []string
				for _, p := range protocols {
					names = append(names, p.Name)
				}
				return a.print(map[string]any{"version": versionText(), "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH, "protocols": names})
			}
			_, err := fmt.Fprintf(a.out, "spookgw %s\n", versionText())
			return err
		},
	}
}
