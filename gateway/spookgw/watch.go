package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/daemonclient/wire"
	"github.com/spooksystems/gateway/engine"
)

func watchVerb(a *app) *cobra.Command {
	var from string
	var exact, all bool
	c := &cobra.Command{
		Use:   "watch [PREFIX]",
		Short: "Show changes as they happen",
		Long: `Shows each change of the registers whose names begin with PREFIX, until Ctrl-C. Each line has
the time, the register, what it became, and who wrote it through what. With --json each line ends
up in a script with its cursor, from which --from resumes without a gap.`,
		Example: "  spookgw watch site/berlin/",
		Args:    cobra.MaximumNArgs(1),
	}
	c.Flags().StringVar(&from, "from", "", "changes behind this cursor (default: from now)")
	c.Flags().BoolVar(&exact, "exact", false, "only the register of exactly this name")
	c.Flags().BoolVar(&all, "all", false, "first what there is")
	c.RunE = func(c *cobra.Command, args []string) error {
		var f engine.Filter
		switch {
		case exact && len(args) == 0:
			return usage("--exact needs a name")
		case exact:
			f.Name = args[0]
		case len(args) == 1:
			f.Prefix = args[0]
		}
		var at engine.Cursor
		if from != "" {
			var err error
			if at, err = engine.ParseCursor(from); err != nil {
				return usage("--from: %v", err)
			}
		}
		return a.withClient(c, func(ctx context.Context, client *daemonclient.Client) error {
			if from == "" && !all {
				var err error
				if at, err = client.Cursor(ctx); err != nil {
					return err
				}
			}
			for d, err := range client.Observe(ctx, f, at) {
				if interrupted(ctx, err) {
					return nil
				}
				if err != nil && !(errors.Is(err, engine.ErrTooLarge) && d.After.Register != "") {
					return err
				}
				if a.json {
					err = a.printLine(wire.FromDelta(d))
				} else {
					_, err = fmt.Fprintf(a.out, "%-12s  %s  %s%s  %s\n", when(d, "15:04:05.000"), d.After.Register, became(d), marked(d.After), by(d.Cause))
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

// became is what a register became.
func became(d engine.QDelta) string {
	switch {
	case d.Pending:
		return "waits"
	case !d.After.Exists:
		return "deleted"
	case d.After.Value.IsAbsent():
		return "(too large to show)"
	}
	return string(d.After.Value.AppendJSON(nil))
}

// by is who wrote, through what, by which line.
func by(c engine.Cause) string {
	parts := []string{c.Protocol}
	if c.Wrapper != "" && c.Wrapper != c.Protocol {
		parts[0] += "/" + c.Wrapper
	}
	for _, s := range []string{c.Peer, c.Principal, c.Source} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	if c.RenamedFrom != "" {
		parts = append(parts, "renamed from "+c.RenamedFrom)
	}
	return strings.Join(parts, "  ")
}
