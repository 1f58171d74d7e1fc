package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/daemonclient/wire"
	"github.com/spooksystems/gateway/engine"
)

func pendingVerb(a *app) *cobra.Command {
	limit := 100
	c := &cobra.Command{
		Use:   "pending [REGISTER|PREFIX]",
		Short: "Show what waits to be collapsed",
		Long: `Shows the candidates that wait, by register, oldest first: when, who through what, and what they
would change. They wait where a register's declaration says commit = "manual", until
"spookgw collapse REGISTER", or commit = "500ms", until so long after the first of them.`,
		Example: "  spookgw pending limit/",
		Args:    cobra.MaximumNArgs(1),
	}
	c.Flags().IntVar(&limit, "limit", limit, "at most so many candidates")
	c.RunE = func(c *cobra.Command, args []string) error {
		if limit <= 0 {
			return usage("--limit is 1 or more")
		}
		q := engine.PendingQuery{Limit: limit}
		if len(args) == 1 {
			q.Prefix = args[0]
		}
		return a.withClient(c, func(ctx context.Context, client *daemonclient.Client) error {
			n, last := 0, ""
			for p, err := range client.Pending(ctx, q) {
				if err != nil && !(errors.Is(err, engine.ErrTooLarge) && p.Register != "") {
					return err
				}
				n++
				if a.json {
					if err := a.printLine(wire.FromPending(p)); err != nil {
						return err
					}
					continue
				}
				if p.Register != last {
					last = p.Register
					fmt.Fprintf(a.out, "%s (%s)\n", p.Register, settles(p.Mode))
				}
				if err := writePending(a.out, "  ", p); err != nil {
					return err
				}
			}
			switch {
			case a.json:
			case n == 0:
				a.say("nothing waits")
			case n == limit:
				a.say("there may be more: --limit")
			}
			return nil
		})
	}
	return c
}

// settles says when what waits is settled.
func settles(m engine.CommitMode) string {
	switch {
	case m.Manual:
		return "waits for spookgw collapse"
	case m.Window > 0:
		return "settled " + m.Window.String() + " after the first"
	}
	return "settled with the next candidate"
}

// writePending writes one candidate that waits, on a line and one for each field.
func writePending(w io.Writer, indent string, p engine.Pending) error {
	_, err := fmt.Fprintf(w, "%s%s  %s\n", indent, p.Time.Time().In(zone).Format(timeLayout), who(p.Cause, ""))
	var would []string
	if p.Deletes {
		would = append(would, "deletes it")
	}
	for _, c := range p.Would {
		would = append(would, change(c))
	}
	if len(would) == 0 {
		would = append(would, "changes no value")
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s    %s\n", indent, strings.Join(would, ", "))
	return err
}
