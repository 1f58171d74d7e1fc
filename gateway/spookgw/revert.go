package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/engine"
)

func revertVerb(a *app) *cobra.Command {
	var to string
	c := &cobra.Command{
		Use:   "revert REGISTER --to TIME|STATEID|COMMIT",
		Short: "Put a former state back",
		Long: `Puts a register back to what it was, through every protocol that shows it, and prints what it
became. It is a new write, whatever the rules of the fields would say: history keeps what was in
between. --to is
` + momentHelp + `.`,
		Example: "  spookgw revert site/berlin/oven-3 --to -2h\n  spookgw revert site/berlin/oven-3 --to 17",
		Args:    cobra.ExactArgs(1),
	}
	c.Flags().StringVar(&to, "to", "", "the moment to go back to")
	c.RunE = func(c *cobra.Command, args []string) error {
		if to == "" {
			return usage("--to says which state: %s", momentHelp)
		}
		m, err := parseMoment(to, time.Now())
		if err != nil {
			return usage("--to: %v", err)
		}
		return a.withClient(c, func(ctx context.Context, client *daemonclient.Client) error {
			at, err := m.here(ctx, client)
			if err != nil {
				return err
			}
			r, err := client.Revert(ctx, args[0], at, engine.Cause{Verb: "revert"})
			if err != nil {
				return err
			}
			return a.became(r, args[0]+" is as it was")
		})
	}
	return c
}
