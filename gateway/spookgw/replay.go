package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/gateway"
	"github.com/spooksystems/gateway/gateway/trial"
	"github.com/spooksystems/gateway/mapping/recording"
)

// replayTotals are what `replay` ends with.
type replayTotals struct {
	Operations int                  `json:"operations"`
	Became     map[trial.Became]int `json:"became"`
	Registers  int                  `json:"registers"` // that exist at the end
	Told       int                  `json:"told"`
	Dropped    int                  `json:"dropped"` // members that no field takes
	Lost       uint64               `json:"lost"`    // too fast to be recorded
	Masked     int                  `json:"masked"`
}

func replayVerb(a *app) *cobra.Command {
	var config string
	var strict, short bool
	c := &cobra.Command{
		Use:   "replay FILE [MAPPING…]",
		Short: "Try recorded operations on mappings",
		Long: `Runs what "record" wrote against the mappings of gateway.hcl, or those given, and shows what each
operation becomes: which registers, who is told, or why not. Everything happens in memory, nothing
listens, nothing is dialled, and registers and servers are empty at first. "-" is the standard input.

The exit code is 1 if an operation was refused or parked, with --strict also if no bind maps one. With
--json each operation is a line, and the last line has the totals.`,
		Example: "  spookgw replay traffic.jsonl\n  spookgw replay --summary traffic.jsonl mappings.d/new.hcl",
		Args:    cobra.MinimumNArgs(1),
	}
	c.Flags().StringVar(&config, "config", "", "the gateway.hcl whose mappings to try (default: as validate finds it)")
	c.Flags().BoolVar(&strict, "strict", false, "what no bind maps is an error")
	c.Flags().BoolVar(&short, "summary", false, "show the totals and what went wrong")
	c.RunE = func(c *cobra.Command, args []string) error {
		req, err := whatToLoad(args[1:])
		if err != nil {
			return err
		}
		if config != "" {
			req.File, req.Implied = config, false
		}
		loaded, found := gateway.LoadConfig(req)
		if loaded == nil {
			if err := a.findings(found); err != nil {
				return err
			}
			return told
		}
		in, err := a.openRecording(args[0])
		if err != nil {
			return err
		}
		defer in.Close()
		totals, err := a.replay(c.Context(), loaded, in, short)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		if a.json {
			if err := a.printLine(map[string]any{"totals": totals}); err != nil {
				return err
			}
		} else {
			a.say("%s", totals)
		}
		if totals.Became[trial.Refused]+totals.Became[trial.Parked] > 0 || strict && totals.Became[trial.Unmapped] > 0 {
			return told
		}
		return nil
	}
	return c
}

// openRecording opens a recording; "-" is the standard input.
func (a *app) openRecording(name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(a.in), nil
	}
	return os.Open(name)
}

func (a *app) replay(ctx context.Context, config *gateway.Config, in io.Reader, short bool) (*replayTotals, error) {
	r, err := recording.NewReader(in)
	if err != nil {
		return nil, err
	}
	// The clock stands where the recording begins, and goes on with it.
	t, err := trial.New(ctx, trial.Options{Set: config.Set, Wrappers: config.Links(), Now: r.Header().Began})
	if err != nil {
		return nil, err
	}
	defer t.Close()
	totals := &replayTotals{Became: map[trial.Became]int{}}
	ops := recording.InOrder(r)
	for {
		op, err := ops.Next()
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF):
			a.say("%v: what is before it was tried", err)
			return totals, totals.count(ctx, t)
		case errors.Is(err, io.EOF):
			return totals, totals.count(ctx, t)
		case err != nil:
			return nil, err
		}
		now, err := t.Replay(ctx, ops.Line(), &op)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", ops.Line(), err)
		}
		totals.note(&op, &now)
		wrong := now.Became == trial.Refused || now.Became == trial.Parked
		switch {
		case a.json:
			err = a.printLine(now)
		case !short || wrong:
			_, err = fmt.Fprintln(a.out, replayLine(&now))
		}
		if err != nil {
			return nil, err
		}
	}
}

func (t *replayTotals) note(op *recording.Operation, now *trial.Replayed) {
	t.Operations++
	t.Became[now.Became]++
	t.Told += len(now.Told)
	t.Dropped += now.Dropped
	t.Lost += op.Lost
	if op.Masked {
		t.Masked++
	}
}

// count takes the registers that exist at the end.
func (t *replayTotals) count(ctx context.Context, w *trial.Trial) error {
	for _, err := range w.List(ctx) {
		if err != nil {
			return err
		}
		t.Registers++
	}
	return nil
}

func (t *replayTotals) String() string {
	parts := []string{fmt.Sprintf("%d operations", t.Operations)}
	for _, b := range []trial.Became{trial.Mapped, trial.Unmoved, trial.Answered, trial.Unmapped, trial.Refused, trial.Parked, trial.Skipped} {
		if n := t.Became[b]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, b))
		}
	}
	s := strings.Join(parts, ", ") + fmt.Sprintf("; %d registers, %d changes told", t.Registers, t.Told)
	if t.Dropped > 0 {
		s += fmt.Sprintf(", %d members that no field takes", t.Dropped)
	}
	if t.Lost > 0 {
		s += fmt.Sprintf("; %d operations are not in the recording", t.Lost)
	}
	if t.Masked > 0 {
		s += fmt.Sprintf("; %d have a *** instead of a secret", t.Masked)
	}
	return s
}

// replayLine is one operation for people.
func replayLine(r *trial.Replayed) string {
	where := r.Protocol
	if r.Wrapper != r.Protocol {
		where += "/" + r.Wrapper
	}
	line := fmt.Sprintf("%s  %-12s  %-7s  %s", r.Time.In(zone).Format("15:04:05.000"), where, cmp.Or(r.Verb, "several"), r.Address)
	for _, n := range r.Registers {
		became := "deleted"
		switch {
		case n.Value != nil:
			became = string(n.Value)
		case n.Waiting > 0:
			became = "waits"
		}
		line += "\n    " + n.Register + " = " + became
	}
	for _, w := range r.Told {
		what := "gone"
		switch {
		case w.Text != nil:
			what = *w.Text
		case w.Base64 != nil:
			what = "base64 " + *w.Base64
		}
		line += "\n    told " + w.Wrapper + " " + w.Address + "  " + brief(what)
	}
	if len(r.Registers) == 0 {
		line += "  " + string(r.Became)
	}
	if r.Reason != "" {
		line += ": " + r.Reason
	}
	if r.Dropped > 0 {
		line += fmt.Sprintf("\n    %d members that no field takes", r.Dropped)
	}
	return line
}

// brief keeps a payload within a line.
func brief(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, s)
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:197], "") + "…"
	}
	return s
}
