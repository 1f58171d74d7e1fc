package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/daemonclient/wire"
	"github.com/spooksystems/gateway/engine"
)

func getVerb(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "get REGISTER",
		Short: "Print a register's value",
		Long: `Prints the committed value as JSON. What else is to be known of it is said on stderr: fields with
siblings (several values, until somebody chooses), fields that are provisional, candidates that
wait. With --json also its state id, for --if of set and delete.`,
		Example: "  spookgw get site/berlin/oven-3",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(c, func(ctx context.Context, client *daemonclient.Client) error {
				b, err := client.ReadState(ctx, args[0])
				if err != nil {
					return err
				}
				if !b.Exists {
					return fmt.Errorf("%w: %s%s", engine.ErrNotFound, args[0], marked(b))
				}
				if a.json {
					return a.print(wire.FromState(b))
				}
				return a.showState(b)
			})
		},
	}
}
