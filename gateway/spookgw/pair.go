package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/gateway"
)

func pairVerb(a *app) *cobra.Command {
	pair := &cobra.Command{
		Use:   "pair",
		Short: "Share registers with another site",
		Long: `Pairs this gateway with another one: from then on both hold all registers of the domain, whatever
happens to the line between them. One side offers, the other accepts:

  a$ spookgw pair offer --name berlin
  b$ spookgw pair accept spookgw-pair-…

The side that offers has a sites block with "listen" in its gateway.hcl; the side that accepts calls it. An
invitation works once, and whoever has it can use it: give it by a way that nobody else can read.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	for _, sub := range []*cobra.Command{pairOfferVerb(a), pairAcceptVerb(a), pairListVerb(a), pairWithdrawVerb(a), pairDissolveVerb(a)} {
		if check := sub.Args; check != nil {
			sub.Args = func(c *cobra.Command, args []string) error {
				if err := check(c, args); err != nil {
					return &coded{exitUsage, err}
				}
				return nil
			}
		}
		pair.AddCommand(sub)
	}
	return pair
}

func pairOfferVerb(a *app) *cobra.Command {
	var name, address string
	var valid time.Duration
	c := &cobra.Command{
		Use:   "offer",
		Short: "Make an invitation for another site",
		Long: `Prints an invitation, alone on the last line. It names this gateway's address and key, works once, and
expires. Only a hash of its secret is kept here: it can't be shown again.`,
		Example: `  spookgw pair offer --name berlin
  spookgw pair offer --address gw-a.example.org:8610 --valid 1h`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(c, func(ctx context.Context, client *daemonclient.Client) error {
				var out gateway.PairOffer
				if err := client.Call(ctx, "pairOffer", map[string]any{"name": name, "address": address, "valid": valid.String()}, &out); err != nil {
					return err
				}
				if a.json {
					return a.print(out)
				}
				a.say("invitation %s, to %s, until %s", out.ID, out.Address, out.Expires.In(zone).Format("2006-01-02 15:04:05"))
				a.say("On the other site: spookgw pair accept, with this:")
				fmt.Fprintln(a.out, out.Invitation)
				return nil
			})
		},
	}
	c.Flags().StringVar(&name, "name", "", "what the other site is called here (default its endpoint)")
	c.Flags().StringVar(&address, "address", "", "where this gateway is reached, HOST:PORT or unix:/PATH (default as the sites block says)")
	c.Flags().DurationVar(&valid, "valid", 24*time.Hour, "how long it may be used")
	return c
}

func pairAcceptVerb(a *app) *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "accept INVITATION",
		Short: "Use another site's invitation",
		Long: `Uses the invitation that the other site printed; "-" reads it from standard input, so that it stands in no
history and in no list of processes. When it returns the pair is made on both sides. A site that could not be
reached leaves nothing behind, and the invitation works still.`,
		Example: `  spookgw pair accept --name hamburg spookgw-pair-…
  ssh gw-a spookgw pair offer | spookgw pair accept -`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			text := args[0]
			if text == "-" {
				raw, err := io.ReadAll(io.LimitReader(a.in, 64<<10))
				if err != nil {
					return err
				}
				lines := strings.Fields(string(raw))
				if len(lines) == 0 {
					return usage("no invitation on standard input")
				}
				text = lines[len(lines)-1]
			}
			return a.withClient(c, func(ctx context.Context, client *daemonclient.Client) error {
				var out struct {
					Name     string `json:"name"`
					Endpoint string `json:"endpoint"`
					Address  string `json:"address"`
				}
				if err := client.Call(ctx, "pairAccept", map[string]any{"invitation": text, "name": name}, &out); err != nil {
					return err
				}
				if a.json {
					return a.print(out)
				}
				a.say("paired with %s at %s, endpoint %.16s", out.Name, out.Address, out.Endpoint)
				return nil
			})
		},
	}
	c.Flags().StringVar(&name, "name", "", "what the other site is called here (default its endpoint)")
	return c
}

func pairListVerb(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "Show pairs and open invitations",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withSites(c, func(s *gateway.Sites) error {
				w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "SITE\tENDPOINT\tSTATE\tMADE\tCALLS")
				for _, p := range s.Sites {
					calls := "here"
					if p.Address != "" {
						calls = "is called at " + p.Address
					}
					fmt.Fprintf(w, "%s\t%.16s\t%s\t%s\t%s\n", p.Name, p.Endpoint, p.State, p.Made.In(zone).Format("2006-01-02 15:04:05"), calls)
				}
				for _, o := range s.Offers {
					fmt.Fprintf(w, "%s\t%s\toffered\t%s\tinvitation %s, until %s\n", dash(o.Name), "-", o.Made.In(zone).Format("2006-01-02 15:04:05"), o.ID, o.Expires.In(zone).Format("2006-01-02 15:04:05"))
				}
				return w.Flush()
			})
		},
	}
}

func pairWithdrawVerb(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "withdraw INVITATION-ID",
		Short: "Take an invitation back that was not used",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.pairCall(c, "pairWithdraw", map[string]any{"id": args[0]}, "withdrawn")
		},
	}
}

func pairDissolveVerb(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "dissolve SITE",
		Short: "End a pair for good, or forget a member of the hub",
		Long: `Ends the pair with a site, by its name or the beginning of its endpoint. Both keep what they hold, and
neither is told anything more. The other side ends it too, as soon as it hears of it. To pair them again takes
a new invitation.

A member that was heard on the domain's hub is waited for no more; if it is heard again, it is a member again.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.pairCall(c, "pairDissolve", map[string]any{"site": args[0]}, "dissolved")
		},
	}
}

func (a *app) pairCall(c *cobra.Command, method string, params map[string]any, done string) error {
	return a.withClient(c, func(ctx context.Context, client *daemonclient.Client) error {
		var nothing json.RawMessage
		if err := client.Call(ctx, method, params, &nothing); err != nil {
			return err
		}
		if a.json {
			return a.print(map[string]any{"done": done})
		}
		a.say("%s", done)
		return nil
	})
}

// withSites shows what there is of sites; as JSON all of it.
func (a *app) withSites(c *cobra.Command, show func(*gateway.Sites) error) error {
	return a.withClient(c, func(ctx context.Context, client *daemonclient.Client) error {
		var s gateway.Sites
		if err := client.Call(ctx, "sites", nil, &s); err != nil {
			return err
		}
		if a.json {
			return a.print(s)
		}
		return show(&s)
	})
}

func sitesVerb(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "sites",
		Short: "Show the other sites, and what waits for whom",
		Long: `Shows each pair: its state and since when, how many candidates wait for the other site (THERE) and for this
one (HERE), the bytes sent and received since the start, and the beginning of one hash over all registers, which is
equal wherever the same candidates are known.

States: accepted (never connected yet), reentangling (connected, what each lacks is on its way), entangled
(connected, nothing is lacking), decohered (not connected: both go on, and meet again by themselves), dissolved.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withSites(c, func(s *gateway.Sites) error {
				fmt.Fprintf(a.out, "%s\tendpoint %.16s\troot %.16s\n", s.Domain, s.Endpoint, s.Root)
				if s.Hub != nil {
					a.showHub(s.Hub)
				}
				if len(s.Sites) == 0 {
					if s.Hub == nil {
						a.say("no pairs: `spookgw pair` makes one")
					}
					return nil
				}
				w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "SITE\tENDPOINT\tSTATE\tSINCE\tTHERE\tHERE\tSENT\tRECEIVED\tROOT")
				for _, p := range s.Sites {
					root := "-"
					switch {
					case p.Root != "" && p.Root == s.Root:
						root = fmt.Sprintf("%.16s =", p.Root)
					case p.Root != "":
						root = fmt.Sprintf("%.16s", p.Root)
					}
					fmt.Fprintf(w, "%s\t%.16s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\n", p.Name, p.Endpoint, p.State, since(p.Since), p.LacksThere, p.LacksHere,
						gateway.FormatSize(p.BytesOut), gateway.FormatSize(p.BytesIn), root)
				}
				if err := w.Flush(); err != nil {
					return err
				}
				for _, p := range s.Sites {
					if p.LastError != "" {
						fmt.Fprintf(a.out, "%s: %s ago: %s\n", p.Name, since(p.LastErrorAt), p.LastError)
					}
					if skew := time.Duration(p.SkewMS) * time.Millisecond; skew.Abs() > time.Minute {
						fmt.Fprintf(a.out, "%s: its clock is %s off this one\n", p.Name, skew.Round(time.Second))
					}
				}
				return nil
			})
		},
	}
}

func verifyVerb(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "verify SITE…",
		Short: "Name the registers that another site holds otherwise",
		Long: `Compares all registers with those of other sites, over the connections that are up. Equal: one hash, and exit
code 0. Otherwise the registers that differ are named on stdout, and the exit code is 1. What is still on its way is
a difference, too: "spookgw sites" says how much waits.`,
		Example: "  spookgw verify berlin",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(c, func(ctx context.Context, client *daemonclient.Client) error {
				all := []gateway.Verification{}
				equal := true
				for _, name := range args {
					var v gateway.Verification
					if err := client.Call(ctx, "verify", map[string]any{"site": name}, &v); err != nil {
						return fmt.Errorf("%s: %w", name, err)
					}
					all = append(all, v)
					equal = equal && v.Equal
					if !a.json {
						a.showVerification(&v)
					}
				}
				if a.json {
					if err := a.print(all); err != nil {
						return err
					}
				}
				if !equal {
					return told
				}
				return nil
			})
		},
	}
}

func (a *app) showVerification(v *gateway.Verification) {
	if v.Equal {
		fmt.Fprintf(a.out, "%s\tequal\t%s\n", v.Site, v.Root)
		return
	}
	for _, list := range []struct {
		word  string
		names []string
	}{{"differs", v.Both}, {"here", v.Here}, {"there", v.There}} {
		for _, name := range list.names {
			fmt.Fprintf(a.out, "%s\t%s\t%s\n", v.Site, list.word, name)
		}
	}
	switch n := len(v.Both) + len(v.Here) + len(v.There); {
	case v.Level:
		a.say("%s: %d registers differ, and both know the same candidates: a bug or damage on a disk. See: spookgw status", v.Site, n)
	default:
		a.say("%s: %d registers differ; candidates are on their way, see: spookgw sites", v.Site, n)
	}
}
