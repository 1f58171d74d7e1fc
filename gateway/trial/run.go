package trial

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/gateway"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// A Verdict is what came of one test block.
type Verdict struct {
	Test    string    `json:"test"`
	Source  string    `json:"source"`            // file:line of the block
	Skipped string    `json:"skipped,omitempty"` // why it was not run
	Failed  []Failure `json:"failed,omitempty"`
}

// A Failure is one thing that is not as the test wants it.
type Failure struct {
	Source string `json:"source"` // file:line of what is wanted
	What   string `json:"what"`   // "zigbee/lamp, temperature", "told http /v1/zigbee/lamp"
	Want   string `json:"want"`
	Got    string `json:"got"`
}

// Run runs one test block under the wrappers that it was loaded with. The error is of the trial itself.
func Run(ctx context.Context, set *mapping.Set, infos []gateway.LinkInfo, test *mapping.Test) (Verdict, error) {
	v := Verdict{Test: test.Name, Source: test.Source, Skipped: test.Skip}
	if test.Skip != "" {
		return v, nil
	}
	o := Options{Set: set, Wrappers: infos, Now: test.Now}
	for _, g := range test.Given {
		o.Registers = append(o.Registers, Register{g.Name, g.Value})
	}
	t, err := New(ctx, o)
	if err != nil {
		if errors.Is(err, engine.ErrInvalid) || errors.Is(err, engine.ErrDenied) || errors.Is(err, engine.ErrTooLarge) {
			v.fail(test.Source, "given", "registers as given", err.Error())
			return v, nil
		}
		return v, err
	}
	defer t.Close()
	r := running{Trial: t, test: test, verdict: &v}
	for i := range test.Send {
		if err := r.step(ctx, &test.Send[i]); err != nil {
			return v, err
		}
	}
	r.refusals()
	for i := range test.Want {
		if err := r.want(ctx, &test.Want[i]); err != nil {
			return v, err
		}
	}
	r.tellings()
	return v, nil
}

func (v *Verdict) fail(source, what, want, got string) {
	v.Failed = append(v.Failed, Failure{source, what, want, got})
}

type running struct {
	*Trial
	test    *mapping.Test
	verdict *Verdict
	told    []Told // newest last
	reasons []reason
}

// A reason is why a step did not do what it says.
type reason struct{ source, what, why string }

func (r *running) step(ctx context.Context, s *mapping.TestStep) error {
	note := func(what string, out Outcome) {
		r.told = append(r.told, out.Told...)
		if out.Err != nil {
			why := wrappers.Reason(out.Err)
			if s.Wrapper == "" {
				why = out.Err.Error()
			}
			r.reasons = append(r.reasons, reason{s.Source, what, why})
		}
		for _, p := range out.Parked {
			r.reasons = append(r.reasons, reason{s.Source, p.Wrapper + " " + p.Address, p.Reason})
		}
	}
	if s.After > 0 {
		out, err := r.Pass(ctx, s.After)
		if err != nil {
			return err
		}
		note("what was due meanwhile", out)
	}
	if s.Collapse != "" {
		out, err := r.Collapse(ctx, s.Collapse)
		if err != nil {
			return err
		}
		note("collapse "+s.Collapse, out)
	}
	if s.Wrapper == "" {
		return nil
	}
	op := s.Op
	op.Who.Peer = "test"
	out, err := r.Do(ctx, s.Wrapper, op)
	if err != nil {
		return err
	}
	if out.Passed && out.Err == nil {
		out.Err = wrappers.ErrUnmapped
	}
	note(op.Verb.String()+" "+s.Wrapper+" "+op.Address, out)
	return nil
}

// refusals holds what was refused or parked against what the test says of it.
func (r *running) refusals() {
	met := r.test.Refused == ""
	for _, x := range r.reasons {
		if r.test.Refused != "" && strings.Contains(x.why, r.test.Refused) {
			met = true
			continue
		}
		r.verdict.fail(x.source, x.what, "nothing is refused but what `refused` says", x.why)
	}
	if !met {
		r.verdict.fail(r.test.Source, "refused", r.test.Refused, "nothing is refused for that reason")
	}
}

func (r *running) want(ctx context.Context, want *mapping.TestRegister) error {
	st, err := r.State(ctx, want.Name)
	if err != nil {
		return err
	}
	if !st.Exists {
		st.Value = engine.Value{}
	}
	if st.Value.Kind() != lattice.ObjectKind || want.Value.Kind() != lattice.ObjectKind {
		if a, b := text(want.Value), text(st.Value); a != b {
			r.verdict.fail(want.Source, want.Name, a, b)
		}
		return nil
	}
	for _, m := range want.Value.Members() {
		have, _ := st.Value.Member(m.Name)
		if a, b := text(m.Value), text(have); a != b {
			r.verdict.fail(want.Source, want.Name+", "+m.Name, a, b)
		}
	}
	for _, m := range st.Value.Members() {
		if _, ok := want.Value.Member(m.Name); !ok {
			r.verdict.fail(want.Source, want.Name+", "+m.Name, text(engine.Value{}), text(m.Value))
		}
	}
	return nil
}

// text is a value as a test writes it.
func text(v engine.Value) string {
	if v.IsAbsent() {
		return "nothing"
	}
	return string(v.AppendJSON(nil))
}

// tellings holds who was told, and what last, against what the test says. Whoever sends is told nothing by its own echo.
func (r *running) tellings() {
	last := map[string][]Told{} // by wrapper
	for _, c := range r.told {
		if c.Echo {
			continue
		}
		list := last[c.Wrapper]
		i := slices.IndexFunc(list, func(o Told) bool { return o.Server == c.Server && o.Address == c.Address })
		if i < 0 {
			last[c.Wrapper] = append(list, c)
			continue
		}
		list[i] = c
	}
	if r.test.Nobody {
		for _, info := range r.o.Wrappers {
			for _, c := range last[info.Name] {
				r.verdict.fail(r.test.Source, "told", "nobody is told", c.place()+" "+c.what())
			}
		}
	}
	for _, want := range r.test.Told {
		list := last[want.Wrapper]
		for _, a := range want.Address {
			i := slices.IndexFunc(list, func(c Told) bool { return c.Server == a.Server && c.Address == a.Address })
			what := "told " + want.Wrapper + " " + a.Address
			if i < 0 {
				r.verdict.fail(want.Source, what, "it is told", "told there: "+places(list))
				continue
			}
			if w, g := compare(&a, &list[i]); w != g {
				r.verdict.fail(want.Source, what, w, g)
			}
		}
		for _, c := range list {
			if !slices.ContainsFunc(want.Address, func(a mapping.TestAddress) bool { return c.Server == a.Server && c.Address == a.Address }) {
				r.verdict.fail(want.Source, "told "+c.place(), "nothing is told", c.what())
			}
		}
	}
}

// compare gives what an address is to be told and what it was, in one form.
func compare(want *mapping.TestAddress, got *Told) (w, g string) {
	switch {
	case want.Any:
		return "", ""
	case want.Gone:
		return "that it is gone", got.what()
	case want.Raw != nil:
		return *want.Raw, got.what()
	case got.Gone || got.Bind == nil:
		return text(want.Value), got.what()
	}
	v, err := got.Bind.Decode(got.Payload)
	if err != nil {
		return text(want.Value), got.what()
	}
	return text(want.Value), text(v)
}

func (c *Told) what() string {
	if c.Gone {
		return "that it is gone"
	}
	return string(c.Payload.Raw)
}

func (c *Told) place() string {
	if c.Server != "" {
		return c.Wrapper + " " + c.Server + ":" + c.Address
	}
	return c.Wrapper + " " + c.Address
}

func places(list []Told) string {
	if len(list) == 0 {
		return "nobody"
	}
	var out []string
	for _, c := range list {
		out = append(out, c.Address)
	}
	return strings.Join(out, ", ")
}
