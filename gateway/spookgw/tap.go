package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/gateway"
)

func tapVerb(a *app) *cobra.Command {
	var protocol, wrapper string
	c := &cobra.Command{
		Use:   "tap",
		Short: "Show operations as they pass",
		Long: `Shows operations as they pass, until Ctrl-C: what became a change, what was asked, what was told,
what passed untouched, what was refused and why. Payloads are not shown, only their size.`,
		Args: cobra.NoArgs,
	}
	c.Flags().StringVar(&protocol, "protocol", "", "only of this protocol")
	c.Flags().StringVar(&wrapper, "wrapper", "", "only of this wrapper")
	c.RunE = func(c *cobra.Command, _ []string) error {
		return a.withClient(c, func(ctx context.Context, client *daemonclient.Client) error {
			lost := uint64(0)
			for raw, err := range client.Subscribe(ctx, "tap", "tap", map[string]any{"protocol": protocol, "wrapper": wrapper}) {
				if interrupted(ctx, err) {
					return nil
				}
				if err != nil {
					return err
				}
				var m struct {
					Event gateway.EventForm `json:"event"`
					Lost  uint64            `json:"lost"`
				}
				if err := json.Unmarshal(raw, &m); err != nil {
					return err
				}
				if m.Lost > lost {
					a.say("%d operations passed too fast to show", m.Lost-lost)
					lost = m.Lost
				}
				if a.json {
					err = a.printLine(m.Event)
				} else {
					_, err = fmt.Fprintln(a.out, tapLine(m.Event))
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return c
}

func tapLine(e gateway.EventForm) string {
	where := e.Protocol
	if e.Wrapper != "" && e.Wrapper != e.Protocol {
		where += "/" + e.Wrapper
	}
	line := fmt.Sprintf("%s  %-6s  %-12s  %-7s  %s", e.Time.In(zone).Format("15:04:05.000"), e.Kind, where, e.Verb, e.Address)
	if len(e.Registers) > 0 {
		line += "  " + strings.Join(e.Registers, " ")
	}
	line += fmt.Sprintf("  %d B  %.1f ms", e.Size, e.TookMS)
	for _, s := range []string{e.Peer, e.Principal, e.Source} {
		if s != "" {
			line += "  " + s
		}
	}
	if e.Outcome != "" {
		line += "  " + e.Outcome
	}
	return line
}
