package main

import "github.com/spf13/cobra"

func retryVerb(a *app) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "retry ID…",
		Short: "Try a parked operation again",
		Long:  `Tries parked operations again, with the mapping as it is now. What fails again stays parked.`,
		Args:  cobra.ArbitraryArgs,
		RunE:  func(c *cobra.Command, args []string) error { return a.eachParked(c, args, all, "retry") },
	}
	c.Flags().BoolVar(&all, "all", false, "all that is parked")
	return c
}
