package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"sort"
	"strings"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/mapping"
)

// A Plan says what a reload of a configuration does to registers, to servers and to what peers see.
type Plan struct {
	Hash   string                `json:"hash"` // of everything that it does: another state, another hash
	Binds  []PlanBind            `json:"binds"`
	Rules  []PlanRule            `json:"rules"`
	Steps  []PlanStep            `json:"steps"`
	Totals map[string]PlanTotals `json:"totals"` // of "registers", and by wrapper
	Over   []string              `json:"over"`   // binds that change or delete more than they may without approval
	Unsure []string              `json:"unsure"` // what only the servers know, and nobody has heard
	// Operations are those of a recording that mean something else, beside what the plan does and not in its hash.
	Operations []PlanStep `json:"operations,omitempty"`
}

// A PlanBind is a bind that is not as it was.
type PlanBind struct {
	ID       string `json:"id"`
	Protocol string `json:"protocol"`
	Address  string `json:"address"`
	Register string `json:"register"`
	Source   string `json:"source"`
	What     string `json:"what"` // "new", "changed", "removed"
}

// A PlanRule is a declaration that is not as it was: how its registers collapse follows it from then on.
type PlanRule struct {
	Template string `json:"template"`
	What     string `json:"what"`
}

// A PlanStep is one thing that happens.
type PlanStep struct {
	// Where is "register"; "server": it is written there; "peers": what the gateway itself answers at an address;
	// "operation": a recorded one, whose verb is in Note, and that meant Before and would mean After.
	Where    string        `json:"where"`
	What     string        `json:"what"` // "create", "change", "delete"; "ask": its server is asked first; "conflict": both sides differ, nothing is done
	Wrapper  string        `json:"wrapper,omitempty"`
	Server   string        `json:"server,omitempty"`
	Address  string        `json:"address,omitempty"`
	Register string        `json:"register"`
	Before   string        `json:"before,omitempty"`
	After    string        `json:"after,omitempty"`
	Bind     string        `json:"bind"` // file:line
	Note     string        `json:"note,omitempty"`
	bind     *mapping.Bind // nil where a declaration does it
}

// PlanTotals count steps.
type PlanTotals struct {
	Create   int `json:"create"`
	Change   int `json:"change"`
	Delete   int `json:"delete"`
	Ask      int `json:"ask"`
	Conflict int `json:"conflict"`
}

// Deletes tells whether anything is deleted.
func (p *Plan) Deletes() bool {
	for _, t := range p.Totals {
		if t.Delete > 0 {
			return true
		}
	}
	return false
}

// planning is one Plan in the making.
type planning struct {
	ctx      context.Context
	store    Store
	old, new *mapping.Set
	plan     *Plan
	before   map[string]LinkInfo
	after    []LinkInfo
	states   map[string]engine.StateBlock          // of registers that the plan changes
	there    map[*mapping.Bind]map[string]struct{} // registers at addresses that it has
	access   *Policy                               // by then
}

// Plan tells what config would do instead of what is in force. It changes nothing.
//
// recording, if it is not "", is the path of one: its operations are held against both.
func (g *Gateway) Plan(ctx context.Context, config *Config, recording string) (*Plan, error) {
	now := g.generation.Load()
	var of []planDomain
	for _, d := range g.domains.list {
		of = append(of, planDomain{d.store, d.store.Preview, now.Set.Of(d.name), config.Set.Of(d.name)})
	}
	plan, err := makePlan(ctx, of, now.config.Links(), config.Links(), config.Policy)
	if err != nil || recording == "" {
		return plan, err
	}
	plan.Operations, err = g.planRecorded(ctx, now.Set, config.Set, recording)
	return plan, err
}

// A preview yields what registers become by other declarations: Engine.Preview.
type preview func(context.Context, []engine.Declaration) iter.Seq2[engine.QDelta, error]

// A planDomain is what a plan has to know of one domain.
type planDomain struct {
	store    Store
	preview  preview
	old, new *mapping.Set
}

func makePlan(ctx context.Context, domains []planDomain, before, after []LinkInfo, access *Policy) (*Plan, error) {
	p := &planning{
		ctx: ctx, before: map[string]LinkInfo{}, after: after, there: map[*mapping.Bind]map[string]struct{}{}, access: access,
		plan: &Plan{Binds: []PlanBind{}, Rules: []PlanRule{}, Steps: []PlanStep{}, Totals: map[string]PlanTotals{}, Over: []string{}, Unsure: []string{}},
	}
	for _, i := range before {
		p.before[i.Name] = i
	}
	for _, d := range domains {
		if err := p.domain(d); err != nil {
			return nil, err
		}
	}
	p.finish()
	return p.plan, nil
}

// domain plans what happens in one domain.
func (p *planning) domain(d planDomain) error {
	p.store, p.old, p.new, p.states = d.store, d.old, d.new, map[string]engine.StateBlock{}
	p.binds()
	if err := p.rules(d.preview); err != nil {
		return err
	}
	var met []*meeting
	for _, info := range p.after {
		if info.Relay || info.Attached {
			m, err := p.hear(info)
			if err != nil {
				return err
			}
			met = append(met, m)
		}
	}
	for _, m := range met {
		if err := p.fill(m); err != nil {
			return err
		}
	}
	return p.peers()
}

func (p *planning) binds() {
	had := map[string]*mapping.Bind{}
	for _, b := range p.old.Binds() {
		had[b.ID()] = b
	}
	add := func(b *mapping.Bind, what string) {
		p.plan.Binds = append(p.plan.Binds, PlanBind{b.ID(), b.Protocol(), b.Address(), b.Register(), b.Source(), what})
	}
	for _, b := range p.new.Binds() {
		switch o := had[b.ID()]; {
		case o == nil:
			add(b, "new")
		case o.Hash() != b.Hash():
			add(b, "changed")
		}
		delete(had, b.ID())
	}
	for _, b := range p.old.Binds() {
		if had[b.ID()] != nil {
			add(b, "removed")
		}
	}
}

func (p *planning) rules(preview preview) error {
	said := func(d engine.Declaration) string {
		d.Source = ""
		raw, err := json.Marshal(d)
		if err != nil { // plain data
			panic(err)
		}
		return string(raw)
	}
	had := map[string]string{}
	for _, d := range p.old.Rules() {
		had[d.Template] = said(d)
	}
	for _, d := range p.new.Rules() {
		if was, ok := had[d.Template]; !ok {
			p.plan.Rules = append(p.plan.Rules, PlanRule{d.Template, "new"})
		} else if was != said(d) {
			p.plan.Rules = append(p.plan.Rules, PlanRule{d.Template, "changed"})
		}
		delete(had, d.Template)
	}
	for _, d := range p.old.Rules() {
		if _, ok := had[d.Template]; ok {
			p.plan.Rules = append(p.plan.Rules, PlanRule{d.Template, "removed"})
		}
	}
	for d, err := range preview(p.ctx, p.new.Rules()) {
		if err != nil {
			return kind(err)
		}
		was, err := p.store.ReadState(p.ctx, d.After.Register)
		if err != nil {
			return kind(err)
		}
		step := PlanStep{Where: "register", What: "change", Register: d.After.Register, Before: planValue(was), After: planValue(d.After), Note: "by another rule"}
		if d.Deleted {
			step.What = "delete"
		}
		if decl, ok := p.new.Declared(d.After.Register); ok {
			step.Bind = decl.Source
		}
		p.states[d.After.Register] = d.After
		p.add(step)
	}
	return nil
}

// state is a register as it is by then.
func (p *planning) state(register string) (engine.StateBlock, error) {
	if st, ok := p.states[register]; ok {
		return st, nil
	}
	st, err := p.store.ReadState(p.ctx, register)
	return st, kind(err)
}

// registers yields those that exist, and those that the plan makes.
func (p *planning) registers(do func(st engine.StateBlock) error) error {
	made := map[string]bool{}
	for name := range p.states {
		made[name] = true
	}
	for st, err := range p.store.List(p.ctx, "", "", 0) {
		if err != nil {
			return kind(err)
		}
		delete(made, st.Register)
		if now, ok := p.states[st.Register]; ok {
			st = now
		}
		if err := do(st); err != nil {
			return err
		}
	}
	names := make([]string, 0, len(made))
	for n := range made {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		if err := do(p.states[n]); err != nil {
			return err
		}
	}
	return nil
}

func (p *planning) env(st *engine.StateBlock) mapping.Env {
	return mapping.Env{Now: st.Time.Time(), Register: func(name string) (engine.StateBlock, bool) {
		st, err := p.state(name)
		return st, err == nil && st.Exists
	}}
}

func (p *planning) add(s PlanStep) {
	if s.bind != nil {
		s.Bind = s.bind.Source()
	}
	s.Before, s.After = planText(s.Before), planText(s.After)
	p.plan.Steps = append(p.plan.Steps, s)
}

// finish sorts, counts, and gives the plan its hash.
func (p *planning) finish() {
	plan := p.plan
	slices.SortFunc(plan.Steps, func(a, b PlanStep) int {
		return strings.Compare(a.key(), b.key())
	})
	sort.Strings(plan.Unsure)
	much := map[*mapping.Bind]*[2]int{} // changed, deleted
	for i := range plan.Steps {
		s := &plan.Steps[i]
		of := s.Wrapper
		if s.Where == "register" {
			of = "registers"
		}
		t := plan.Totals[of]
		switch s.What {
		case "create":
			t.Create++
		case "change":
			t.Change++
		case "delete":
			t.Delete++
		case "ask":
			t.Ask++
		case "conflict":
			t.Conflict++
		}
		plan.Totals[of] = t
		if s.Where != "peers" && s.bind != nil && (s.What == "change" || s.What == "delete") {
			n := much[s.bind]
			if n == nil {
				n = &[2]int{}
				much[s.bind] = n
			}
			if s.What == "delete" {
				n[1]++
			} else {
				n[0]++
			}
		}
	}
	for b, n := range much {
		if of, limit := len(p.there[b]), b.MaxChange(); limit.Exceeded(n[0], n[1], of) {
			plan.Over = append(plan.Over, fmt.Sprintf("the bind at %s changes %d and deletes %d of %d, and max_change is %s", b.Source(), n[0], n[1], max(of, n[0]+n[1]), limit))
		}
	}
	sort.Strings(plan.Over)
	h := sha256.New()
	enc := json.NewEncoder(h)
	for _, v := range []any{plan.Binds, plan.Rules, plan.Steps, plan.Unsure} {
		if err := enc.Encode(withoutSource(v)); err != nil { // plain data
			panic(err)
		}
	}
	plan.Hash = hex.EncodeToString(h.Sum(nil)[:6])
}

// withoutSource leaves out of what is hashed in which line it stands: moving a bind does nothing.
func withoutSource(v any) any {
	switch v := v.(type) {
	case []PlanBind:
		out := slices.Clone(v)
		for i := range out {
			out[i].Source = ""
		}
		return out
	case []PlanStep:
		out := slices.Clone(v)
		for i := range out {
			out[i].Bind = ""
		}
		return out
	}
	return v
}

func (s *PlanStep) key() string {
	order := map[string]string{"register": "1", "server": "2", "peers": "3"}
	return strings.Join([]string{order[s.Where], s.Wrapper, s.Register, s.Server, s.Address, s.What}, "\x00")
}

// planText bounds what is shown of a value; what was cut off still counts in the hash.
func planText(s string) string {
	const most = 2000
	if len(s) <= most {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return strings.ToValidUTF8(s[:most], "") + "… (" + FormatSize(uint64(len(s))) + ", " + hex.EncodeToString(sum[:6]) + ")"
}

func planValue(st engine.StateBlock) string {
	if !st.Exists {
		return ""
	}
	return string(st.Value.AppendJSON(nil))
}

// becomes is a register behind the operations of a first contact. Exact where its fields are latest; note says where a
// rule decides.
func becomes(st engine.StateBlock, ops []engine.Op, set *mapping.Set) (after engine.StateBlock, note string) {
	after = st
	fields := map[string]engine.Value{}
	for _, m := range st.Value.Members() {
		fields[m.Name] = m.Value
	}
	single := st.Value
	whole := false
	for _, op := range ops {
		switch op.Kind {
		case engine.OpDelete:
			after.Exists, after.Value = false, engine.Value{}
			return after, note
		case engine.OpRemove:
			delete(fields, op.Field)
		default:
			if !set.Latest(op.Register, op.Field) {
				note = "its rule decides with what is there"
			}
			if op.Field == "" {
				single, whole = op.Value, true
			} else {
				fields[op.Field] = op.Value
			}
		}
	}
	after.Exists = true
	if whole {
		after.Value = single
		return after, note
	}
	members := make([]lattice.Member, 0, len(fields))
	for n, v := range fields {
		members = append(members, lattice.Member{Name: n, Value: v})
	}
	after.Value = lattice.Object(members...)
	return after, note
}
