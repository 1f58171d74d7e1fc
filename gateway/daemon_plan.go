package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/daemonclient/wire"
	"github.com/spooksystems/gateway/mapping/diag"
)

// A PlanAnswer is one page of a Plan, or, without one, what is wrong with the configuration.
type PlanAnswer struct {
	Plan        *Plan            `json:"plan,omitempty"` // with the Steps of this page
	More        bool             `json:"more"`           // there are more behind them
	Diagnostics diag.Diagnostics `json:"diagnostics"`
	Text        string           `json:"text"` // the findings for people
}

// given is the gateway's own Sources, and beside them the files that a caller names.
type given struct {
	Sources
	paths []string
}

func (s given) ReadFile(path string) ([]byte, error) {
	if slices.Contains(s.paths, path) {
		return Disk{}.ReadFile(path)
	}
	return s.Sources.ReadFile(path)
}

// callPlan plans what a reload would do: of the gateway's own files, or of a configuration or mappings that are named by
// their absolute paths; of a recording, too. The steps, and then the operations, behind the first skip are answered, as many as
// a message holds.
func (g *Gateway) callPlan(ctx context.Context, _ *session, params json.RawMessage) (any, error) {
	var config, recorded string
	var files []string
	var skip int
	if err := wire.Members(params, wire.Member{Name: "config", Into: &config}, wire.Member{Name: "mappings", Into: &files}, wire.Member{Name: "skip", Into: &skip}, wire.Member{Name: "recorded", Into: &recorded}); err != nil {
		return nil, paramError(err)
	}
	req := g.options.Load
	if req.Sources == nil {
		req.Sources = Disk{}
	}
	for _, path := range append(slices.Clone(files), config, recorded) {
		if path != "" && !filepath.IsAbs(path) {
			return nil, paramError(errNotAbsolute)
		}
	}
	if config != "" {
		req.File, req.Mappings, req.Sources = config, nil, Disk{}
	}
	if len(files) > 0 {
		req.Mappings, req.Sources = files, given{req.Sources, files}
	}
	out := &PlanAnswer{Diagnostics: diag.Diagnostics{}}
	loaded, found := LoadConfig(req)
	if loaded != nil && config == "" {
		found = append(found, g.fixed(g.generation.Load().config, loaded)...)
	}
	out.Diagnostics = append(out.Diagnostics, found...)
	var text strings.Builder
	_ = found.WriteText(&text, false, 0) // a Builder takes everything
	out.Text = text.String()
	if found.HasErrors() {
		return out, nil
	}
	plan, err := g.Plan(ctx, loaded, recorded)
	if err != nil {
		return nil, err
	}
	out.Plan = plan
	return out, out.page(skip)
}

// page leaves the steps that fit into a message.
func (a *PlanAnswer) page(skip int) error {
	steps, operations := a.Plan.Steps, a.Plan.Operations
	all := slices.Concat(steps, operations)
	from := min(max(skip, 0), len(all))
	to, size := from, 0
	for ; to < len(all); to++ {
		raw, err := json.Marshal(all[to])
		if err != nil {
			return err
		}
		if size += len(raw) + 1; size > pageBytes && to > from {
			a.More = true
			break
		}
	}
	a.Plan.Steps = steps[min(from, len(steps)):min(to, len(steps))]
	a.Plan.Operations = operations[max(from-len(steps), 0):max(to-len(steps), 0)]
	if skip > 0 { // they came with the first page
		a.Plan.Binds, a.Plan.Rules, a.Plan.Unsure, a.Plan.Over = []PlanBind{}, []PlanRule{}, []string{}, []string{}
		a.Diagnostics, a.Text = diag.Diagnostics{}, ""
	}
	return nil
}

// shrunk is for more findings than a message holds.
func (a *PlanAnswer) shrunk() any {
	small := *a
	small.Diagnostics = small.Diagnostics[:min(20, len(small.Diagnostics))]
	small.Text = small.Text[:min(64<<10, len(small.Text))]
	return &small
}

var errNotAbsolute = errors.New("files are named by absolute paths")
