package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/daemonclient/wire"
	"github.com/spooksystems/gateway/engine"
)

func collapseVerb(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "collapse REGISTER",
		Short: "Settle what waits on a register",
		Long: `Settles the candidates that wait on a register as it is now, by the register's rules, and prints
what it became. What arrives later waits for the next time. "spookgw pending" shows what waits.`,
		Example: "  spookgw collapse limit/oven",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(c, func(ctx context.Context, client *daemonclient.Client) error {
				r, err := client.Collapse(ctx, args[0], engine.Cause{Verb: "collapse"})
				if err != nil {
					return err
				}
				return a.became(r, "nothing waits on "+args[0])
			})
		},
	}
}

// became prints the register that a receipt is of. Idle says why no candidate was made.
func (a *app) became(r engine.Receipt, idle string) error {
	if a.json {
		return a.print(wire.FromReceipt(r))
	}
	if r.Dot.IsZero() {
		a.say("%s", idle)
	}
	if len(r.States) == 0 {
		return nil
	}
	return a.showState(r.States[0])
}
