package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/daemonclient/wire"
	"github.com/spooksystems/gateway/gateway"
)

// fullStatus is what `status --json` prints: the gateway's figures, and the engine's below "engine".
type fullStatus struct {
	gateway.Status
	Engine wire.EngineStatus `json:"engine"`
}

func statusVerb(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the gateway in a screenful",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(c, func(ctx context.Context, client *daemonclient.Client) error {
				var raw struct {
					Engine  wire.EngineStatus `json:"engine"`
					Gateway json.RawMessage   `json:"gateway"`
				}
				if err := client.Call(ctx, "status", nil, &raw); err != nil {
					return err
				}
				s := fullStatus{Engine: raw.Engine}
				if err := json.Unmarshal(raw.Gateway, &s.Status); err != nil {
					return err
				}
				if a.json {
					return a.print(s)
				}
				return a.showStatus(s)
			})
		},
	}
}

func (a *app) showStatus(s fullStatus) error {
	ready := "ready"
	if !s.Ready {
		ready = "not ready"
	}
	if s.Draining {
		ready = "draining"
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	if len(s.Engine.Findings) > 0 {
		fmt.Fprintln(w, "FINDING\tABOUT\tSINCE\tWHAT")
		for _, f := range s.Engine.Findings {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", f.Code, dash(f.Subject), f.Since.In(zone).Format("2006-01-02 15:04:05"), f.Text)
		}
		fmt.Fprintln(w)
		if err := w.Flush(); err != nil {
			return err
		}
	}
	fmt.Fprintf(w, "gateway\t%s, %s, up %s, pid %d\n", s.Version, ready, since(s.Started), s.PID)
	config := s.Config
	if config == "" {
		config = "defaults"
	}
	fmt.Fprintf(w, "configuration\tgeneration %d, hash %s, %s, since %s\n", s.Generation, s.Hash, config, s.Loaded.In(zone).Format("2006-01-02 15:04:05"))
	if s.ReloadError != "" {
		fmt.Fprintf(w, "last reload\tREFUSED: %s\n", s.ReloadError)
	}
	here := s.Domain
	for _, d := range s.Domains {
		if d.Endpoint == s.Engine.Endpoint {
			here = d.Name
		}
	}
	fmt.Fprintf(w, "domain\t%s, endpoint %.16s\n", here, s.Engine.Endpoint)
	for _, d := range s.Domains {
		if d.Name == here {
			continue
		}
		more := ""
		if d.Pending > 0 {
			more += fmt.Sprintf(", %d waiting", d.Pending)
		}
		if d.Findings > 0 {
			more += fmt.Sprintf(", %s, see: spookgw status --domain %s", count(d.Findings, "finding", "findings"), d.Name)
		}
		fmt.Fprintf(w, "domain\t%s, endpoint %.16s, %s, newest commit %s%s\n", d.Name, d.Endpoint, count(int(d.Registers), "register", "registers"), d.Cursor, more)
	}
	fmt.Fprintf(w, "registers\t%d, from %d candidates, newest commit %s\n", s.Engine.Registers, s.Engine.Candidates, s.Engine.Cursor)
	if s.Engine.Root != "" {
		fmt.Fprintf(w, "root\t%s (equal wherever the same candidates are known)\n", s.Engine.Root)
	}
	if n := s.Engine.Pending; n > 0 {
		fmt.Fprintf(w, "waiting\t%s to be collapsed, see: spookgw pending\n", count(int(n), "register", "registers"))
	}
	if n := s.Engine.Held; n > 0 {
		fmt.Fprintf(w, "held\t%s whose predecessors are not here yet\n", count(int(n), "candidate", "candidates"))
	}
	if s.Engine.Floor > 0 {
		fmt.Fprintf(w, "log\tbegins at commit %d: what was before is trimmed\n", s.Engine.Floor)
	}
	full := ""
	if s.Engine.Full {
		full = ", FULL: writes are refused until there is room"
	}
	fmt.Fprintf(w, "data\t%s, %s, %s free%s\n", s.Data, gateway.FormatSize(s.Engine.DiskBytes), gateway.FormatSize(s.Engine.FreeBytes), full)
	parked := "nothing"
	if s.Parked > 0 {
		parked = fmt.Sprintf("%d, see: spookgw parked", s.Parked)
	}
	fmt.Fprintf(w, "parked\t%s\n", parked)
	if err := w.Flush(); err != nil {
		return err
	}
	if len(s.Wrappers) > 0 {
		fmt.Fprintf(w, "\nWRAPPER\tPROTOCOL\tWAY\tSTATE\tLISTENS\tUPSTREAM\tSESSIONS\tIN\tOUT\tBEHIND\tREFUSED\n")
	}
	behind := map[string]string{}
	for _, l := range s.Lag {
		behind[l.Wrapper] = fmt.Sprintf("%d+%d", l.Behind, l.Waiting)
	}
	for _, r := range s.Wrappers {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s\t%d\n", r.Name, r.Protocol, r.Mode, r.State,
			dash(strings.Join(r.Listen, " ")), dash(strings.Join(r.Upstream, " ")), r.Sessions, r.In, r.Out, dash(behind[r.Name]), r.Refused)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, r := range s.Wrappers {
		if r.LastError != "" {
			fmt.Fprintf(a.out, "%s: %s ago: %s\n", r.Name, since(r.LastErrorAt), r.LastError)
		}
	}
	for i, t := range s.Troubles {
		if i == 0 {
			fmt.Fprintf(w, "\nTROUBLE\tABOUT\tSINCE\tWHAT\n")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", t.Wrapper, t.About, t.Since.In(zone).Format("2006-01-02 15:04:05"), t.Text)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	first := true
	for _, c := range s.Contacts {
		if c.State == "settled" {
			continue
		}
		if first {
			fmt.Fprintf(w, "\nFIRST CONTACT\tWRAPPER\tSTATE\tWHY\n")
			first = false
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", c.Bind, c.Wrapper, c.State, strings.Join(append([]string{c.Detail}, c.Conflicts...), " "))
	}
	return w.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// since is how long ago, in one or two units.
func since(t time.Time) string {
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
