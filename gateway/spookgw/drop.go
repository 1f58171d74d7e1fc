package main

import "github.com/spf13/cobra"

func dropVerb(a *app) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "drop ID…",
		Short: "Give a parked operation up",
		Long:  `Gives parked operations up. The register stays as it is, and so does the server.`,
		Args:  cobra.ArbitraryArgs,
		RunE:  func(c *cobra.Command, args []string) error { return a.eachParked(c, args, all, "drop") },
	}
	c.Flags().BoolVar(&all, "all", false, "all that is parked")
	return c
}
