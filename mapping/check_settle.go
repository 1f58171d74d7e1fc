package mapping

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

// What a bind writes to an address comes back: a peer that reads it writes it, a server shows it, and every wrapper that
// reaches the server hears it. checkSettles plays that with generated values until nothing changes any more. What still
// changes after settleRounds never stops, unless by chance, and is refused.
const settleRounds = 6

// checkSettles is for files without mistakes.
func (l *loader) checkSettles() {
	near := l.near()
	l.twoMeanings(near)
	seen := map[string]bool{}
	for _, b := range l.set.binds {
		if seen[b.register.text] || !l.mayChase(b, near) {
			continue
		}
		seen[b.register.text] = true
		for _, name := range l.sampleRegisters(b) {
			if !l.settle(b, name, near) {
				break
			}
		}
	}
}

// near lists for each wrapper those that hear what it writes to a server; itself is the first.
func (l *loader) near() map[string][]string {
	out := map[string][]string{}
	for _, w := range l.in.Wrappers {
		out[w.Name] = []string{w.Name}
		for _, o := range l.in.Wrappers {
			if o.Name != w.Name && o.Protocol.Name == w.Protocol.Name && slices.ContainsFunc(w.Reaches, func(s string) bool { return slices.Contains(o.Reaches, s) }) {
				out[w.Name] = append(out[w.Name], o.Name)
			}
		}
	}
	return out
}

// twoMeanings finds binds of two wrappers at one server that only come in, at one address, and make different values of
// the same part of a message for the same field: which of them counts is chance.
func (l *loader) twoMeanings(near map[string][]string) {
	for _, w := range l.in.Wrappers {
		for _, other := range near[w.Name][1:] {
			if other < w.Name {
				continue // seen from there
			}
			same := map[string]*Bind{}
			for _, e := range l.set.wrappers[w.Name].entries {
				if e.bind.direction == "in" {
					same[e.template.text+"\x00"+e.bind.register.text] = e.bind
				}
			}
			for _, e := range l.set.wrappers[other].entries {
				b := same[e.template.text+"\x00"+e.bind.register.text]
				if b == nil || b == e.bind || e.bind.direction != "in" {
					continue
				}
				for i := range b.mapped {
					l.differ(b, &b.mapped[i], e.bind)
				}
			}
		}
	}
}

// differ reports a field that another bind makes something else of.
func (l *loader) differ(b *Bind, m *mapped, other *Bind) {
	i := slices.IndexFunc(other.mapped, func(o mapped) bool { return o.field == m.field && slices.Equal(o.path, m.path) })
	if i < 0 {
		return
	}
	o := &other.mapped[i]
	for _, v := range append((&typ{kind: numberType}).samples(), (&typ{kind: stringType}).samples()...) {
		one, err1 := m.forth(v)
		two, err2 := o.forth(v)
		if err1 != nil || err2 != nil || one.Equal(two) {
			continue
		}
		done := l.Within(fmt.Sprintf("bind %q %q", other.protocol, other.address))
		l.Error("MAP102", o.rng, fmt.Sprintf("%s gets two values of one message", quoted(m.field)),
			fmt.Sprintf("%s is %s here and %s by %q at %s, which hears the same server. Map both in the same way, or take one of them out.", brief(v), brief(two), brief(one), b.address, b.source))
		done()
		return
	}
}

// forth leads from the payload's part to the field.
func (p *mapped) forth(v engine.Value) (engine.Value, error) {
	for _, s := range p.steps {
		var err error
		if v, err = s.get(v); err != nil {
			return v, err
		}
	}
	return v, nil
}

// mayChase tells whether values of the bind's registers can come back changed: what `map` and codecs do is inverted
// exactly, which checkRoundTrip tried, so that it takes an `in`, or another wrapper at the same server.
func (l *loader) mayChase(b *Bind, near map[string][]string) bool {
	if !b.Outward() {
		return false
	}
	return len(b.ins) > 0 && b.Inward() || slices.ContainsFunc(b.wrapperNames, func(w string) bool { return len(near[w]) > 1 })
}

// sampleRegisters are names of registers of the bind, of which at least one has places if any has.
func (l *loader) sampleRegisters(b *Bind) []string {
	var out []string
	for _, wrapper := range b.wrapperNames {
		w := l.set.wrappers[wrapper]
		for _, e := range w.entries {
			if e.bind != b {
				continue
			}
			server := ""
			if len(w.info.Servers) > 0 {
				server = w.info.Servers[0]
			}
			name, ok := b.register.appendTo(nil, func(i int) string {
				switch n := b.register.names[i]; n {
				case "wrapper":
					return wrapper
				case "server":
					return server
				default:
					return e.sample(n)
				}
			})
			if ok && !slices.Contains(out, string(name)) {
				out = append(out, string(name))
			}
		}
	}
	return out
}

// sample is a value that a capture can have.
func (e *entry) sample(name string) string {
	for _, c := range e.checks {
		if e.template.names[c.index] != name {
			continue
		}
		list, whole := words(c.re)
		if !whole {
			list = guesses(c.re)
		}
		for _, v := range list {
			if v != "" && c.matches(v) {
				return v
			}
		}
	}
	// A key that is made by a table has only its values.
	for _, k := range e.bind.keys {
		if e.bind.slots[k.slot] != name {
			continue
		}
		for _, s := range k.steps {
			if len(s.samples) > 0 {
				return s.samples[0].Text()
			}
		}
	}
	return "x1"
}

// A chase is the play: registers and what became of them.
type chase struct {
	set    *Set
	near   map[string][]string
	states map[string]engine.Value
	env    Env
}

// An echoed change is one field that came back other than it was.
type echoed struct {
	out, in  *Bind
	wrapper  string
	register string
	field    string
	was, is  engine.Value
}

// settle plays the values of one register. False: it does not settle, which was reported.
func (l *loader) settle(b *Bind, register string, near map[string][]string) bool {
	for n := range 3 {
		c := &chase{set: l.set, near: near, states: map[string]engine.Value{register: b.sampleState(n)}}
		c.env = Env{Now: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC), Register: c.register}
		changed := []string{register}
		var history []echoed
		for range settleRounds {
			var came []echoed
			for _, name := range changed {
				came = append(came, c.echo(name)...)
			}
			if len(came) == 0 {
				break
			}
			history = append(history, came[0])
			changed = changed[:0]
			for _, e := range came {
				if !slices.Contains(changed, e.register) {
					changed = append(changed, e.register)
				}
			}
		}
		if len(history) == settleRounds {
			l.chased(history)
			return false
		}
	}
	return true
}

func (c *chase) register(name string) (engine.StateBlock, bool) {
	v, ok := c.states[name]
	return engine.StateBlock{Register: name, Exists: ok, Value: v}, ok
}

// echo sends a register to all its places and hears it from there.
func (c *chase) echo(name string) []echoed {
	var out []echoed
	st, _ := c.register(name)
	wrapperNames := make([]string, 0, len(c.near))
	for w := range c.near {
		wrapperNames = append(wrapperNames, w)
	}
	slices.Sort(wrapperNames)
	for _, wrapper := range wrapperNames {
		for _, p := range c.set.Places(wrapper, name) {
			pay, send, err := p.Bind.Out(p, st, nil, c.env)
			if err != nil || !send {
				continue
			}
			for _, hears := range c.near[wrapper] {
				op := &wrappers.Operation{Verb: wrappers.Message, Server: p.Server, Address: p.Address, Payload: pay}
				effects, err := c.set.In(hears, op, c.env)
				if err != nil {
					continue
				}
				for _, e := range effects {
					for _, f := range e.Fields {
						if was, is, differs := c.apply(e, f); differs {
							out = append(out, echoed{p.Bind, e.Bind, hears, e.Register, f.Field, was, is})
						}
					}
				}
			}
		}
	}
	return out
}

// apply takes a field over as the engine would, as far as that concerns a single writer.
func (c *chase) apply(e Effect, f FieldValue) (was, is engine.Value, differs bool) {
	state := c.states[e.Register]
	was = state
	if f.Field != "" {
		was, _ = state.Member(f.Field)
	}
	is = f.Value
	rule := lattice.Latest
	if t := e.Bind.typeOf(f.Field); t != nil {
		rule = t.rule.Kind
	}
	switch {
	case rule == lattice.First && !was.IsAbsent():
		return was, was, false
	case f.Add && is.IsNumber() && was.IsNumber():
		if sum, err := lattice.AddNumbers(was, is); err == nil {
			is = sum
		}
	case f.Add:
		return was, was, false // adding to a set ends by itself
	}
	if is.IsAbsent() && was.IsAbsent() || is.Equal(was) {
		return was, is, false
	}
	if f.Field == "" {
		c.states[e.Register] = is
	} else {
		c.states[e.Register] = setPath(state, []string{f.Field}, is)
	}
	return was, is, true
}

// sampleState makes a state of the bind's register of generated values; n picks which.
func (b *Bind) sampleState(n int) engine.Value {
	pick := func(t *typ) engine.Value {
		s := t.samples()
		if t.kind == anyType {
			s = []engine.Value{lattice.Int(7), lattice.String("On"), lattice.Bool(true)}
		}
		return s[(n+1)%len(s)]
	}
	if d := b.decl; d != nil && d.value != nil {
		return pick(d.value)
	} else if d != nil && d.closed {
		var members []lattice.Member
		for _, f := range d.names() {
			members = append(members, lattice.Member{Name: f, Value: pick(d.fields[f])})
		}
		return lattice.Object(members...)
	}
	fields := slices.Clone(b.carried)
	for _, o := range b.ins {
		fields = append(fields, o.name)
	}
	slices.Sort(fields)
	fields = slices.Compact(fields)
	if slices.Contains(fields, "") {
		return pick(anything)
	}
	var members []lattice.Member
	for _, f := range fields {
		members = append(members, lattice.Member{Name: f, Value: pick(anything)})
	}
	return lattice.Object(members...)
}

// chased reports values that go round and round.
func (l *loader) chased(history []echoed) {
	last := history[len(history)-1]
	var shown []string
	for _, e := range history {
		if e.register == last.register && e.field == last.field {
			if len(shown) == 0 && !e.was.IsAbsent() {
				shown = append(shown, brief(e.was))
			}
			shown = append(shown, brief(e.is))
		}
	}
	if len(shown) > 4 {
		shown = append(shown[:4], "…")
	}
	summary := fmt.Sprintf("%s never settles", quoted(last.field))
	done := l.Within(fmt.Sprintf("bind %q %q", last.in.protocol, last.in.address))
	defer done()
	if last.in == last.out {
		l.Error("MAP089", last.in.rng, summary,
			fmt.Sprintf("What goes out comes back as something else, and again: %s. Make `in` undo what `out` does, let only one of them speak of the field, or split the field: what is wanted and what is reported.", strings.Join(shown, ", ")))
		return
	}
	l.Error("MAP102", last.in.rng, summary,
		fmt.Sprintf("What %q at %s writes, this bind hears (wrapper %q) and takes for something else, and again: %s. Map both in the same way, or give one of them a direction.", last.out.address, last.out.source, last.wrapper, strings.Join(shown, ", ")))
}
