package main

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/gateway"
)

// reloadAnswer is what the daemon's reload answers.
type reloadAnswer struct {
	OK          bool            `json:"ok"`
	Error       string          `json:"error,omitempty"`
	Reload      *gateway.Reload `json:"reload,omitempty"`
	Diagnostics json.RawMessage `json:"diagnostics"`
	Text        string          `json:"text,omitempty"`
}

func reloadVerb(a *app) *cobra.Command {
	var approve string
	c := &cobra.Command{
		Use:   "reload",
		Short: "Read the configuration again",
		Long: `Makes the running gateway read its configuration and mappings again. With a mistake in them
nothing changes, and the mistakes are shown. Otherwise it returns when the new generation is in
force; wrappers whose block is as it was keep their listeners and sessions.

A reload that would change or delete more of a server or of registers than half of what a bind has
there is refused, unless --approve names the hash that "spookgw plan" shows for it. With --approve
it is refused, too, if the plan is another one by now.`,
		Example: "  spookgw reload\n  spookgw reload --approve 3f2a91c4d5e6",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(c, func(ctx context.Context, client *daemonclient.Client) error {
				var r reloadAnswer
				if err := client.Call(ctx, "reload", map[string]string{"approve": approve}, &r); err != nil {
					return err
				}
				if a.json {
					r.Text = ""
					if err := a.print(r); err != nil {
						return err
					}
				} else if r.Text != "" {
					a.say("%s", r.Text)
				}
				if !r.OK {
					a.say("spookgw: %s", r.Error)
					return told
				}
				if !a.json {
					a.say("generation %d (%s) is in force after %s", r.Reload.Generation, r.Reload.Hash, r.Reload.Took)
					for _, part := range []struct {
						word  string
						names []string
					}{{"kept", r.Reload.Kept}, {"restarted", r.Reload.Restarted}, {"started", r.Reload.Started}, {"stopped", r.Reload.Stopped}} {
						if len(part.names) > 0 {
							a.say("  %-9s %s", part.word, strings.Join(part.names, " "))
						}
					}
				}
				return nil
			})
		},
	}
	c.Flags().StringVar(&approve, "approve", "", "the hash of the plan that is meant")
	return c
}
