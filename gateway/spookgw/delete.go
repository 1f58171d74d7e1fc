package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/daemonclient/wire"
	"github.com/spooksystems/gateway/engine"
)

func deleteVerb(a *app) *cobra.Command {
	var state string
	c := &cobra.Command{
		Use:     "delete REGISTER",
		Short:   "Delete a register",
		Long:    "Deletes a register, through every protocol that shows it. Its history stays.",
		Example: "  spookgw delete site/berlin/oven-3",
		Args:    cobra.ExactArgs(1),
	}
	c.Flags().StringVar(&state, "if", "", "only if this is the register's state id")
	c.RunE = func(c *cobra.Command, args []string) error {
		cond, err := precondition(args[0], state)
		if err != nil {
			return err
		}
		if state == "none" {
			return usage("--if none: what does not exist can't be deleted")
		}
		if cond == nil {
			yes := true
			cond = []engine.Precondition{{Register: args[0], Exists: &yes}}
		}
		return a.withClient(c, func(ctx context.Context, client *daemonclient.Client) error {
			r, err := client.WriteState(ctx, engine.Write{
				Ops: []engine.Op{{Register: args[0], Kind: engine.OpDelete}}, If: cond, By: engine.Cause{Verb: "delete"},
			})
			if errors.Is(err, engine.ErrConflict) && state == "" {
				return fmt.Errorf("%w: %s", engine.ErrNotFound, args[0])
			}
			if err != nil {
				return err
			}
			if a.json {
				return a.print(wire.FromReceipt(r))
			}
			return nil
		})
	}
	return c
}
