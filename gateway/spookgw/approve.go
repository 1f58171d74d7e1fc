package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/daemonclient"
)

func approveVerb(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "approve BIND",
		Short: "Let a first contact go on that stopped above max_change",
		Long: `A bind that meets a server for the first time, and whose "first" would change more than its
"max_change" allows, stops. "spookgw status" names it by its line, and says what it would change. Once
approved it goes on; a bind that means something else has to be approved again.`,
		Example: "  spookgw approve mappings.d/sensors.hcl:12",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(c, func(ctx context.Context, client *daemonclient.Client) error {
				var answer struct {
					Wrappers []string `json:"wrappers"`
				}
				if err := client.Call(ctx, "approve", map[string]any{"bind": args[0]}, &answer); err != nil {
					return err
				}
				if a.json {
					return a.print(answer)
				}
				_, err := fmt.Fprintf(a.out, "%s goes on, at %s\n", args[0], strings.Join(answer.Wrappers, ", "))
				return err
			})
		},
	}
}
