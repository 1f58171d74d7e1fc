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

func listVerb(a *app) *cobra.Command {
	var limit int
	var after string
	var names bool
	c := &cobra.Command{
		Use:     "list [PREFIX]",
		Short:   "List registers",
		Long:    "Lists the registers whose names begin with PREFIX, in the order of names, with their values.",
		Example: "  spookgw list site/berlin/",
		Args:    cobra.MaximumNArgs(1),
	}
	c.Flags().IntVar(&limit, "limit", 0, "at most so many (0: all)")
	c.Flags().StringVar(&after, "after", "", "only names behind this one")
	c.Flags().BoolVar(&names, "names", false, "only the names")
	c.RunE = func(c *cobra.Command, args []string) error {
		if limit < 0 {
			return usage("--limit is 0 or more")
		}
		prefix := ""
		if len(args) == 1 {
			prefix = args[0]
		}
		return a.withClient(c, func(ctx context.Context, client *daemonclient.Client) error {
			for b, err := range client.List(ctx, prefix, after, limit) {
				value := b.Value.AppendJSON(nil)
				if errors.Is(err, engine.ErrTooLarge) && b.Register != "" {
					value = []byte("(too large to show)")
				} else if err != nil {
					return err
				}
				switch {
				case a.json:
					err = a.printLine(wire.FromState(b))
				case names:
					_, err = fmt.Fprintln(a.out, b.Register)
				default:
					_, err = fmt.Fprintf(a.out, "%s\t%s%s\n", b.Register, value, marked(b))
				}
				if err != nil && !errors.Is(err, engine.ErrTooLarge) {
					return err
				}
			}
			return nil
		})
	}
	return c
}
