package main

import (
	"context"
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/gateway"
)

func parkedVerb(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "parked",
		Short: "Show operations that could not be applied",
		Long: `Shows the operations that could not be applied, with the reason. They wait here while the stream
goes on: "retry ID" tries one again, "drop ID" gives it up.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(c, func(ctx context.Context, client *daemonclient.Client) error {
				var out struct {
					Parked []gateway.ParkedItem `json:"parked"`
					Total  int                  `json:"total"`
				}
				if err := client.Call(ctx, "parked", nil, &out); err != nil {
					return err
				}
				if a.json {
					return a.print(out)
				}
				if out.Total == 0 {
					a.say("nothing is parked")
					return nil
				}
				w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "ID\tWRAPPER\tWAY\tADDRESS\tREGISTER\tSINCE\tTRIES\tWHY")
				for _, p := range out.Parked {
					why := p.Reason
					if p.Retrying {
						why += " (tried again by itself)"
					}
					if p.Unknown {
						why = "outcome unknown: " + why
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", p.ID, p.Wrapper, p.Way, p.Address, p.Register, p.Since.In(zone).Format("2006-01-02 15:04:05"), p.Tries, why)
				}
				if err := w.Flush(); err != nil {
					return err
				}
				if more := out.Total - len(out.Parked); more > 0 {
					a.say("and %d more", more)
				}
				return nil
			})
		},
	}
}

// eachParked calls method for the ids given, or for all.
func (a *app) eachParked(c *cobra.Command, ids []string, all bool, method string) error {
	if all == (len(ids) > 0) {
		return usage("either IDs, as `spookgw parked` shows them, or --all")
	}
	return a.withClient(c, func(ctx context.Context, client *daemonclient.Client) error {
		if all {
			var out struct {
				Parked []struct {
					ID string `json:"id"`
				} `json:"parked"`
			}
			if err := client.Call(ctx, "parked", nil, &out); err != nil {
				return err
			}
			for _, p := range out.Parked {
				ids = append(ids, p.ID)
			}
		}
		done := []string{}
		var first error
		for _, id := range ids {
			var nothing json.RawMessage
			if err := client.Call(ctx, method, map[string]any{"id": id}, &nothing); err != nil {
				a.say("spookgw: %s %s: %v", method, id, err)
				if first == nil {
					first = &coded{exitCode(err), nil}
				}
				continue
			}
			done = append(done, id)
		}
		if a.json {
			if err := a.print(map[string]any{"done": done}); err != nil {
				return err
			}
		}
		return first
	})
}
