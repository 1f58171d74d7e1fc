package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spooksystems/gateway/mapping/diag"
)

// A Reload says what a reload did.
type Reload struct {
	Generation uint64   `json:"generation"`
	Hash       string   `json:"hash"`
	Kept       []string `json:"kept"`      // listeners and sessions untouched
	Restarted  []string `json:"restarted"` // their block has changed
	Started    []string `json:"started"`
	Stopped    []string `json:"stopped"`
	Took       string   `json:"took"`
}

// Reload reads everything anew. With a mistake in it, an address that can't be had, or rules that the
// engine refuses, nothing changes and the old configuration stays in force: the error says so, the findings say why.
// Otherwise wrappers whose block is as it was keep their listener and their sessions and get the
// new mappings; what changed is drained and started anew. It returns when all that is done.
//
// Where its Plan changes or deletes more than the binds may, approve has to be that plan's hash; and if it is given it has
// to be the hash of the plan, whatever that does: ErrNotApproved.
func (g *Gateway) Reload(ctx context.Context, approve string) (*Reload, diag.Diagnostics, error) {
	g.change.Lock()
	defer g.change.Unlock()
	if g.draining.Load() {
		return nil, nil, fmt.Errorf("the gateway is draining")
	}
	began := time.Now()
	now := g.generation.Load()
	config, report := LoadConfig(g.options.Load)
	if config != nil {
		report = append(report, g.fixed(now.config, config)...)
	}
	if report.HasErrors() {
		return nil, report, g.refuse(fmt.Errorf("%w: generation %d stays in force", ErrConfig, now.Number))
	}
	if err := g.approved(ctx, config, approve); err != nil {
		return nil, report, g.refuse(fmt.Errorf("%w: generation %d stays in force", err, now.Number))
	}
	if approve != "" {
		for _, d := range g.domains.list {
			if err := d.links.approvePlanned(ctx, config.Set.Of(d.name).Binds()); err != nil {
				return nil, report, g.refuse(fmt.Errorf("%w: generation %d stays in force", err, now.Number))
			}
		}
	}
	if err := g.openSockets(ctx, config.Wrappers, false); err != nil {
		return nil, report, g.refuse(fmt.Errorf("%w: generation %d stays in force", err, now.Number))
	}
	if err := g.domains.declare(ctx, config.Set); err != nil {
		g.closeUnused(now.config.Wrappers)
		return nil, report, g.refuse(fmt.Errorf("the registers' rules: %w: generation %d stays in force", err, now.Number))
	}
	r := g.compare(config)
	g.stopWrappers(append(slices.Clone(r.Stopped), r.Restarted...))
	g.takeUp(config)
	g.mu.Lock()
	for _, n := range r.Stopped {
		delete(g.running, n)
		g.order = slices.DeleteFunc(g.order, func(s string) bool { return s == n })
		g.figures.forget(n)
	}
	g.mu.Unlock()
	for _, b := range config.Wrappers {
		if !slices.Contains(r.Kept, b.Name) {
			g.startWrapper(b)
		} else if run := g.running[b.Name]; b.TLS != nil {
			run.cert.renew(b.TLS)
		}
	}
	g.closeUnused(config.Wrappers)
	if g.sink != nil {
		g.sink.use(config.Log)
	}
	r.Generation, r.Hash, r.Took = now.Number+1, config.Hash, time.Since(began).Round(time.Millisecond).String()
	none := ""
	g.reloadError.Store(&none)
	g.log.Info("reloaded", "generation", r.Generation, "hash", r.Hash, "kept", r.Kept, "restarted", r.Restarted, "started", r.Started, "stopped", r.Stopped)
	return r, report, nil
}

// ErrNotApproved means that a reload does more than its binds allow, or not what was approved.
var ErrNotApproved = errors.New("not approved")

func (g *Gateway) approved(ctx context.Context, config *Config, approve string) error {
	now := g.generation.Load()
	stands := func(a, b LinkInfo) bool { return a.Name == b.Name && a.Relay == b.Relay && a.Attached == b.Attached }
	if approve == "" && config.Set.Hash() == now.Set.Hash() && slices.EqualFunc(config.Links(), now.config.Links(), stands) {
		return nil // the same binds, in the same places: no first contact
	}
	plan, err := g.Plan(ctx, config, "")
	switch {
	case err != nil:
		return fmt.Errorf("the plan: %w", err)
	case approve != "" && approve != plan.Hash:
		return fmt.Errorf("%w: the plan is %s now and no longer %s. Look at it again with `spookgw plan`", ErrNotApproved, plan.Hash, approve)
	case approve == "" && len(plan.Over) > 0:
		return fmt.Errorf("%w: %s. Look at it with `spookgw plan`, then `spookgw reload --approve %s`", ErrNotApproved, strings.Join(plan.Over, "; "), plan.Hash)
	}
	return nil
}

func (g *Gateway) refuse(err error) error {
	text := err.Error()
	g.reloadError.Store(&text)
	g.log.Error("reload refused", "error", err)
	return err
}

// compare sorts the wrappers by what is to become of them.
func (g *Gateway) compare(config *Config) *Reload {
	r := &Reload{Kept: []string{}, Restarted: []string{}, Started: []string{}, Stopped: []string{}}
	names := map[string]bool{}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range config.Wrappers {
		b := &config.Wrappers[i]
		names[b.Name] = true
		switch run := g.running[b.Name]; {
		case run == nil:
			r.Started = append(r.Started, b.Name)
		case run.block.digest != b.digest || run.state == stateNoPort:
			r.Restarted = append(r.Restarted, b.Name)
		default:
			r.Kept = append(r.Kept, b.Name)
		}
	}
	for _, n := range g.order {
		if !names[n] {
			r.Stopped = append(r.Stopped, n)
		}
	}
	return r
}

// fixed notes what a reload can't change.
func (g *Gateway) fixed(old, config *Config) (found diag.Diagnostics) {
	if g.options.Data == "" && old.Data != config.Data || !slices.Equal(old.Domains, config.Domains) {
		found = append(found, failure("GW050", "a reload can't change data or domains",
			fmt.Sprintf("They are fixed while the gateway runs, at %s and %s. Restart it.", old.Data, quoted(old.Domains))))
	}
	if old.Daemon != config.Daemon || old.Sites != config.Sites || !equalHubs(old.Hubs, config.Hubs) || old.MinFree != config.MinFree {
		found = append(found, &diag.Diagnostic{
			Code: "GW051", Severity: diag.Warning, Summary: "this takes effect at the next start",
			Detail: "The daemon, sites and domain blocks and min_free stay as they were until the gateway is restarted.",
		})
	}
	return found
}
