package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/daemonclient/wire"
	"github.com/spooksystems/gateway/engine"
)

func historyVerb(a *app) *cobra.Command {
	q := engine.HistoryQuery{}
	var at string
	c := &cobra.Command{
		Use:   "history REGISTER",
		Short: "Show what became of a register",
		Long: `Shows the changes of a register, newest first: when, through which protocol, from which peer,
by whom, which mapping line made it so, and which fields changed. A line that says "waits" is a
candidate that was not collapsed when it came, and has no time: its state is the one before. With --at it prints what the register was then,
as "spookgw get" does; --at is
` + momentHelp + `.`,
		Example: "  spookgw history site/berlin/oven-3\n  spookgw history site/berlin/oven-3 --at -2h",
		Args:    cobra.ExactArgs(1),
	}
	c.Flags().IntVar(&q.Limit, "limit", 100, "at most so many")
	c.Flags().BoolVar(&q.Oldest, "oldest", false, "oldest first")
	c.Flags().Uint64Var(&q.Before, "before", 0, "only below this ordinal")
	c.Flags().Uint64Var(&q.After, "after", 0, "only above this ordinal")
	c.Flags().StringVar(&at, "at", "", "the register as it was at this moment")
	c.RunE = func(c *cobra.Command, args []string) error {
		if c.Flags().Changed("at") {
			for _, other := range []string{"limit", "oldest", "before", "after"} {
				if c.Flags().Changed(other) {
					return usage("--at is one moment: it does not go with --%s", other)
				}
			}
			return a.historyAt(c, args[0], at)
		}
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
					_, err = fmt.Fprintf(a.out, "%-23s  %s  %s  %s\n", when(d, timeLayout), d.Cursor, by(d.Cause), changes(d))
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

// historyAt prints one state of the past.
func (a *app) historyAt(c *cobra.Command, register, text string) error {
	m, err := parseMoment(text, time.Now())
	if err != nil {
		return usage("--at: %v", err)
	}
	return a.withClient(c, func(ctx context.Context, client *daemonclient.Client) error {
		at, err := m.here(ctx, client)
		if err != nil {
			return err
		}
		b, err := client.StateAt(ctx, register, at)
		if err != nil {
			return err
		}
		if a.json {
			return a.print(wire.FromState(b))
		}
		if !b.Exists {
			return fmt.Errorf("%w: %s did not exist then", engine.ErrNotFound, register)
		}
		a.say("%s, commit %d, state %s", b.Time.Time().In(zone).Format(timeLayout), b.Ordinal, b.ID)
		return a.showState(b)
	})
}

// when is the time of a delta. What waits has none of its own: what it shows is as it was before.
func when(d engine.QDelta, layout string) string {
	if d.Pending {
		return "-"
	}
	return d.After.Time.Time().In(zone).Format(layout)
}

// changes are the fields before and after.
func changes(d engine.QDelta) string {
	switch {
	case d.Pending:
		return "waits"
	case d.Deleted:
		return "deleted"
	}
	var parts []string
	for _, f := range d.Changed {
		parts = append(parts, change(f))
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

// change is one field before and after.
func change(f engine.FieldChange) string {
	name, before, after := fieldName(f.Field), short(f.Before), short(f.After)
	switch {
	case f.Before.IsAbsent():
		return name + ": " + after
	case f.After.IsAbsent():
		return name + ": " + before + " -> cleared"
	}
	return name + ": " + before + " -> " + after
}

func short(v engine.Value) string {
	s := []rune(string(v.AppendJSON(nil)))
	if len(s) > 200 {
		return string(s[:200]) + "…"
	}
	return string(s)
}
