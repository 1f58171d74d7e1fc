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

func historyVerb(a *app) *cobra.Command {
	q := engine.HistoryQuery{}
	c := &cobra.Command{
		Use:   "history REGISTER",
		Short: "Show what became of a register",
		Long: `Shows the changes of a register, newest first: when, through which protocol, from which peer,
by whom, which mapping line made it so, and which fields changed.`,
		Example: "  spookgw history site/berlin/oven-3",
		Args:    cobra.ExactArgs(1),
	}
	c.Flags().IntVar(&q.Limit, "limit", 100, "at most so many")
	c.Flags().BoolVar(&q.Oldest, "oldest", false, "oldest first")
	c.Flags().Uint64Var(&q.Before, "before", 0, "only below this ordinal")
	c.Flags().Uint64Var(&q.After, "after", 0, "only above this ordinal")
	c.RunE = func(c *cobra.Command, args []string) error {
		if q.Limit <= 0 {
			return usage("--limit is 1 or more")
		}
		q.Register = args[0]
		return a.withClient(c, func(ctx context.Context, client *daemonclient.Client) error {
			some := false
			for d, err := range client.History(ctx, q) {
				if err != nil && !(errors.Is(err, engine.ErrTooLarge) && d.After.Register != "") {
					return err
				}
				some = true
				if a.json {
					err = a.printLine(wire.FromDelta(d))
				} else {
					_, err = fmt.Fprintf(a.out, "%s  %s  %s  %s\n", d.After.Time.Time().Local().Format("2006-01-02 15:04:05.000"), d.Cursor, by(d.Cause), changes(d))
				}
				if err != nil {
					return err
				}
			}
			if !some && q.Before == 0 && q.After == 0 {
				return fmt.Errorf("%w: %s has no history", engine.ErrNotFound, q.Register)
			}
			return nil
		})
	}
	return c
}

// changes are the fields before and after.
func changes(d engine.QDelta) string {
	if d.Deleted {
		return "deleted"
	}
	var parts []string
	for _, f := range d.Changed {
		name := f.Field
		if name == "" {
			name = "value"
		}
		before, after := short(f.Before), short(f.After)
		switch {
		case f.Before.IsAbsent():
			parts = append(parts, name+": "+after)
		case f.After.IsAbsent():
			parts = append(parts, name+": "+before+" -> cleared")
		default:
			parts = append(parts, name+": "+before+" -> "+after)
		}
	}
	text := strings.Join(parts, ", ")
	switch {
	case d.Created && text == "":
		return "created"
	case d.Created:
		return "created, " + text
	case text == "":
		return "no field changed"
	}
	return text
}

func short(v engine.Value) string {
	s := []rune(string(v.AppendJSON(nil)))
	if len(s) > 200 {
		return string(s[:200]) + "…"
	}
	return string(s)
}
