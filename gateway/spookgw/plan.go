package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/gateway"
)

// planAnswer is what the daemon's plan answers.
type planAnswer struct {
	Plan        *gateway.Plan   `json:"plan,omitempty"`
	More        bool            `json:"more"`
	Diagnostics json.RawMessage `json:"diagnostics"`
	Text        string          `json:"text,omitempty"`
}

func planVerb(a *app) *cobra.Command {
	var config, recorded string
	c := &cobra.Command{
		Use:   "plan [FILE…]",
		Short: "Show what a reload would do",
		Long: `Asks the running gateway what its configuration, read again, would do to registers, to servers
and to what peers see: create, change and delete, address by address. Given mapping files, they take
the place of the configuration's; --config names another configuration. Nothing is changed.

With --recorded FILE, made by "spookgw record", it also shows which of the recorded operations would
mean something else than they do now.

The plan's hash goes to "spookgw reload --approve". Exit codes: 0 nothing is deleted; 2 something
is; 1 the configuration has mistakes.`,
		Example: "  spookgw plan\n  spookgw plan new/*.hcl\n  spookgw plan --json | jq .totals\n  spookgw plan --recorded minute.jsonl",
	}
	c.Flags().StringVar(&config, "config", "", "a gateway.hcl instead of the one that runs")
	c.Flags().StringVar(&recorded, "recorded", "", "a recording: show which of its operations would mean something else")
	c.RunE = func(c *cobra.Command, args []string) error {
		params := map[string]any{}
		for i := range args {
			path, err := filepath.Abs(args[i])
			if err != nil {
				return err
			}
			args[i] = path
		}
		if len(args) > 0 {
			params["mappings"] = args
		}
		if config != "" {
			path, err := filepath.Abs(config)
			if err != nil {
				return err
			}
			params["config"] = path
		}
		if recorded != "" {
			path, err := filepath.Abs(recorded)
			if err != nil {
				return err
			}
			params["recorded"] = path
		}
		return a.withClient(c, func(ctx context.Context, client *daemonclient.Client) error {
			plan, findings, err := wholePlan(ctx, client, params)
			if err != nil {
				return err
			}
			if plan == nil {
				if a.json {
					if err := a.print(map[string]any{"diagnostics": findings.Diagnostics}); err != nil {
						return err
					}
				} else {
					a.say("%s", findings.Text)
				}
				return told
			}
			if a.json {
				if err := a.print(plan); err != nil {
					return err
				}
			} else {
				if findings.Text != "" {
					a.say("%s", findings.Text)
				}
				a.plan(plan)
			}
			if plan.Deletes() {
				return &coded{exitDeletes, nil}
			}
			return nil
		})
	}
	return c
}

// exitDeletes is plan's: something would be deleted.
const exitDeletes = 2

// wholePlan gets all pages of a plan. State that moves in between makes it another plan: it begins anew.
func wholePlan(ctx context.Context, client *daemonclient.Client, params map[string]any) (*gateway.Plan, *planAnswer, error) {
	const tries = 5
	for range tries {
		var first planAnswer
		params["skip"] = 0
		if err := client.Call(ctx, "plan", params, &first); err != nil || first.Plan == nil {
			return nil, &first, err
		}
		plan := first.Plan
		for more := first.More; more; {
			var next planAnswer
			params["skip"] = len(plan.Steps) + len(plan.Operations)
			if err := client.Call(ctx, "plan", params, &next); err != nil {
				return nil, nil, err
			}
			if next.Plan == nil || next.Plan.Hash != plan.Hash {
				plan = nil
				break
			}
			plan.Steps, more = append(plan.Steps, next.Plan.Steps...), next.More
			plan.Operations = append(plan.Operations, next.Plan.Operations...)
		}
		if plan != nil {
			return plan, &first, nil
		}
	}
	return nil, nil, fmt.Errorf("the registers change faster than the plan can be read: try again when it is quieter")
}

var planSigns = map[string]struct{ sign, color string }{
	"create": {"+", "32"}, "change": {"~", "33"}, "delete": {"-", "31"}, "ask": {"?", "36"}, "conflict": {"!", "35"},
	"new": {"+", "32"}, "changed": {"~", "33"}, "removed": {"-", "31"},
}

// plan shows a plan to a person, as a diff.
func (a *app) plan(p *gateway.Plan) {
	paint := a.paint(a.out)
	mark := func(what, text string) {
		s := planSigns[what]
		fmt.Fprintf(a.out, "%s\n", paint(s.color, s.sign+" "+text))
	}
	for _, b := range p.Binds {
		mark(b.What, fmt.Sprintf("bind %q %q to %s (%s)", b.Protocol, b.Address, b.Register, b.Source))
	}
	for _, r := range p.Rules {
		mark(r.What, fmt.Sprintf("register %q", r.Template))
	}
	for _, s := range slices.Concat(p.Steps, p.Operations) {
		place := s.Wrapper + " " + s.Address
		if s.Server != "" {
			place = s.Wrapper + " " + s.Server + ":" + s.Address
		}
		note := s.Note
		switch s.Where {
		case "operation":
			mark(s.What, fmt.Sprintf("recorded: %s at %s", s.Note, place))
			note = ""
		case "register":
			text := "register " + s.Register
			if s.Wrapper != "" {
				text += ", from " + place
			}
			mark(s.What, text)
		case "server":
			mark(s.What, fmt.Sprintf("server %s, from register %s", place, s.Register))
		default:
			mark(s.What, fmt.Sprintf("peers at %s see register %s", place, s.Register))
		}
		if s.Before != "" {
			fmt.Fprintf(a.out, "    %s\n", paint("31", "- "+s.Before))
		}
		if s.After != "" {
			fmt.Fprintf(a.out, "    %s\n", paint("32", "+ "+s.After))
		}
		if note != "" {
			fmt.Fprintf(a.out, "    %s\n", note)
		}
	}
	for _, u := range p.Unsure {
		mark("ask", u)
	}
	names := make([]string, 0, len(p.Totals))
	for n := range p.Totals {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		t := p.Totals[n]
		text := fmt.Sprintf("%-12s create %d, change %d, delete %d", n, t.Create, t.Change, t.Delete)
		if t.Ask > 0 {
			text += fmt.Sprintf(", ask %d", t.Ask)
		}
		if t.Conflict > 0 {
			text += fmt.Sprintf(", conflict %d", t.Conflict)
		}
		fmt.Fprintln(a.out, text)
	}
	if len(p.Binds)+len(p.Rules)+len(p.Steps) == 0 {
		fmt.Fprintln(a.out, "nothing changes")
	}
	fmt.Fprintf(a.out, "plan %s\n", p.Hash)
	if len(p.Over) > 0 {
		a.say("It has to be approved (spookgw reload --approve %s): %s", p.Hash, strings.Join(p.Over, "; "))
	}
}
