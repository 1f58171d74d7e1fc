package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/daemonclient/wire"
	"github.com/spooksystems/gateway/engine"
)

// explained is what `explain --json` prints.
type explained struct {
	wire.Explanation
	Told []daemonclient.Told `json:"told,omitempty"`
}

func explainVerb(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "explain REGISTER",
		Short: "Say why a register has its value",
		Long: `Says which line declares a register, and for each field by which rule it got its value, from which
candidates that are still alive: when, who through what, by which mapping line. Then what waits to
be collapsed, and who was told of the newest state, and when.`,
		Example: "  spookgw explain site/berlin/oven-3",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(c, func(ctx context.Context, client *daemonclient.Client) error {
				x, told, err := client.ExplainTold(ctx, args[0])
				large := errors.Is(err, engine.ErrTooLarge) && x.State.Register != ""
				if err != nil && !large {
					return err
				}
				if x.State.ID.IsZero() && len(x.Pending) == 0 {
					return fmt.Errorf("%w: %s was never written", engine.ErrNotFound, args[0])
				}
				if large {
					a.say("too long for one answer: values, candidates that lost and what waits are left out")
				}
				if a.json {
					form := wire.FromExplanation(x)
					form.TooLarge = large
					return a.print(explained{form, told})
				}
				return writeStory(a.out, x, told, client.Hello().Endpoint)
			})
		},
	}
}

const timeLayout = "2006-01-02 15:04:05.000"

// writeStory tells an explanation in words. Here is the short id of the node that tells it.
func writeStory(out io.Writer, x engine.Explanation, told []daemonclient.Told, here string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s %s%s\n", x.State.Register, storyValue(x), marked(x.State))
	fmt.Fprintln(w, storyDeclared(x))
	if x.Group != "" {
		fmt.Fprintf(w, "one unit with the other registers of group %s\n", x.Group)
	}
	if x.DeleteWins {
		fmt.Fprintln(w, "a delete wins over a write that did not know of it")
	}
	if len(x.Deleted) > 0 {
		fmt.Fprintln(w, "deleted by")
		writeEntries(w, x.Deleted, here)
	}
	if newest := newestOf(x.Existence); newest != nil {
		more := ""
		if n := len(x.Existence) - 1; n > 0 {
			more = fmt.Sprintf(" and %s that did not know of it", count(n, "other write", "other writes"))
		}
		fmt.Fprintf(w, "exists by the write at %s of %s%s\n", newest.Time.Time().In(zone).Format(timeLayout), storyWho(*newest, here), more)
	}
	for _, f := range x.Fields {
		why := f.Why
		if why == "" {
			why = count(len(f.Entries), "live candidate", "live candidates")
		}
		value := "nothing"
		if !f.Value.IsAbsent() {
			value = short(f.Value)
		}
		fmt.Fprintf(w, "%s = %s by %s: %s\n", fieldName(f.Field), value, f.Rule, why)
		writeEntries(w, f.Entries, here)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	switch {
	case len(x.Pending) > 0:
		fmt.Fprintln(out, "waiting:")
		for _, p := range x.Pending {
			if err := writePending(out, "  ", p); err != nil {
				return err
			}
		}
	case x.Mode.Waits():
		fmt.Fprintln(out, "waiting: nothing")
	}
	return writeTold(out, x.State, told)
}

func storyValue(x engine.Explanation) string {
	switch b := x.State; {
	case x.Hidden:
		return "is deleted; what it had is kept until every member knows"
	case !b.Exists:
		return "does not exist"
	case b.Value.IsAbsent():
		return "is too large to show"
	default:
		return "= " + short(b.Value)
	}
}

func storyDeclared(x engine.Explanation) string {
	when := "collapses as candidates arrive"
	switch {
	case x.Mode.Manual:
		when = "collapses when somebody says so"
	case x.Mode.Window > 0:
		when = "collapses " + x.Mode.Window.String() + " after the first candidate that waits"
	}
	switch {
	case x.Declaration == "":
		return "not declared, " + when
	case x.Source == "":
		return "declared as " + x.Declaration + " by no file of this node, " + when
	}
	return "declared at " + x.Source + " as " + x.Declaration + ", " + when
}

// writeEntries writes one line for each entry; those that the value is of are marked.
func writeEntries(w io.Writer, entries []engine.LiveEntry, here string) {
	for _, e := range entries {
		mark := " "
		if e.Wins {
			mark = "▸"
		}
		value := "-"
		if !e.Value.IsAbsent() {
			value = short(e.Value)
		}
		fmt.Fprintf(w, "  %s %s\t%s\t%s\n", mark, value, e.Time.Time().In(zone).Format(timeLayout), storyWho(e, here))
	}
}

// storyWho is who wrote an entry, and on which node if not here.
func storyWho(e engine.LiveEntry, here string) string {
	text := who(e.Cause, e.By)
	if node := e.Node.String(); e.Node != (engine.EndpointID{}) && node != here {
		text += ", on node " + node
	}
	return text
}

func newestOf(entries []engine.LiveEntry) *engine.LiveEntry {
	var newest *engine.LiveEntry
	for i := range entries {
		if e := &entries[i]; newest == nil || e.Time > newest.Time {
			newest = e
		}
	}
	return newest
}

// writeTold says who was told, and of which commit: the newest may have changed nothing that they are told.
func writeTold(out io.Writer, now engine.StateBlock, told []daemonclient.Told) error {
	if len(told) == 0 {
		_, err := fmt.Fprintln(out, "told: nobody, as far as is still known")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "told:")
	for _, t := range told {
		where := t.Address
		if t.Server != "" {
			where = t.Server + " " + where
		}
		fmt.Fprintf(w, "  %s/%s\t%s\t%s, %s after the commit", t.Protocol, t.Wrapper, where, t.Time.In(zone).Format(timeLayout), took(t.TookMS))
		if t.Followers > 1 {
			fmt.Fprintf(w, ", on %d streams", t.Followers)
		}
		if t.Ordinal != now.Ordinal {
			fmt.Fprintf(w, "; as of commit %d, the newest is %d", t.Ordinal, now.Ordinal)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

func took(ms float64) string {
	if ms < 10_000 {
		return fmt.Sprintf("%.1f ms", ms)
	}
	return time.Duration(ms * float64(time.Millisecond)).Round(time.Second).String()
}

func count(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}
