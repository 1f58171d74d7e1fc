package mapping

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
)

// A Test is one test block: what is given, what is sent, and what then has to be.
type Test struct {
	Name    string
	Source  string    // file:line
	Now     time.Time // zero: nothing said
	Given   []TestRegister
	Send    []TestStep
	Want    []TestRegister
	Told    []TestTold
	Nobody  bool   // told = {}: nobody is told anything
	Refused string // a part of the reason for which something is refused; "": nothing is
	Skip    string // why it can't run in this version
}

// A TestRegister is a register with its value; an absent one: it does not exist.
type TestRegister struct {
	Name   string
	Value  engine.Value
	Source string
}

// A TestStep is one thing that happens: an operation, a collapse, or that time passes.
type TestStep struct {
	Wrapper  string
	Op       wrappers.Operation // with Wrapper
	Collapse string             // a register
	After    time.Duration      // passes before it
	Source   string
}

// A TestTold is what one wrapper's peers or server are told: exactly these addresses.
type TestTold struct {
	Wrapper string
	Address []TestAddress
	Source  string
}

// A TestAddress is an address that is told.
type TestAddress struct {
	Server, Address string
	Any             bool         // whatever the payload is
	Gone            bool         // that there is nothing any more
	Raw             *string      // the payload, as it is
	Value           engine.Value // or what it says
}

// Tests are the test blocks, in the order of the files.
func (s *Set) Tests() []*Test { return s.tests }

// Become are the operations that make a register have exactly this value. Absent: it goes.
func Become(register string, v engine.Value) []engine.Op {
	if v.IsAbsent() {
		return []engine.Op{{Register: register, Kind: engine.OpDelete}}
	}
	if !isObject(v) {
		return []engine.Op{{Register: register, Kind: engine.OpPut, Value: v}}
	}
	ops := []engine.Op{{Register: register, Kind: engine.OpOnly}}
	for _, m := range v.Members() {
		ops[0].Fields = append(ops[0].Fields, m.Name)
		ops = append(ops, engine.Op{Register: register, Kind: engine.OpPut, Field: m.Name, Value: m.Value})
	}
	return ops
}

var (
	testAttrs = []string{"given", "now", "refused", "send", "told", "want"}
	testVerbs = []string{"put", "merge", "message", "delete", "rename"}
)

var testSchema = diag.Schema{What: "test", Attrs: testAttrs, Need: []string{"send"}}

// test reads one test block. The binds are known.
func (l *loader) test(b *hclsyntax.Block) {
	defer l.Within(fmt.Sprintf("test %q", b.Labels[0]))()
	c := l.Decode(b.Body, b.DefRange(), testSchema)
	t := &Test{Name: b.Labels[0], Source: source(b.DefRange())}
	if i := slices.IndexFunc(l.set.tests, func(o *Test) bool { return o.Name == t.Name }); i >= 0 {
		l.Error("MAP011", b.LabelRanges[0], fmt.Sprintf("a second test %q", t.Name), fmt.Sprintf("The first stands at %s. Give each a name of its own.", l.set.tests[i].Source))
	}
	if text, ok := l.String(c.Attrs["now"], "", nil); ok && text != "" {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			l.Error("MAP141", c.Attrs["now"].Expr.Range(), fmt.Sprintf("%q is not a time", text), `As in "2026-03-01T12:00:00Z".`)
		}
		t.Now = at
	}
	if a := c.Attrs["refused"]; a != nil {
		if t.Refused, _ = l.String(a, "", nil); t.Refused == "" {
			l.Error("MAP141", a.Expr.Range(), "refused says nothing", "It is a part of the reason that is given.")
		}
	}
	t.Given = l.testRegisters(c.Attrs["given"])
	for _, g := range t.Given {
		if err := l.set.Check(g.Name, Become(g.Name, g.Value)); err != nil {
			l.Error("MAP141", c.Attrs["given"].Expr.Range(), "what is given can't be", sentence(err))
		}
	}
	t.Want = l.testRegisters(c.Attrs["want"])
	l.steps(t, c.Attrs["send"])
	l.testTold(t, c.Attrs["told"])
	if c.Attrs["want"] == nil && c.Attrs["told"] == nil && c.Attrs["refused"] == nil {
		l.Error("MAP140", b.DefRange(), "a test that wants nothing", "Say with `want`, `told` or `refused` what has to come of it.")
	}
	l.set.tests = append(l.set.tests, t)
}

// entries are the members of an object as written, by constant names.
func (l *loader) entries(expr hclsyntax.Expression, form string) (out []hclsyntax.ObjectConsItem, names []string, ok bool) {
	obj, ok := expr.(*hclsyntax.ObjectConsExpr)
	if !ok {
		l.Error("MAP141", expr.Range(), "an object is wanted", "As in "+form+".")
		return nil, nil, false
	}
	for _, item := range obj.Items {
		name, ok := memberName(item.KeyExpr)
		switch {
		case !ok || name == "":
			l.Error("MAP010", item.KeyExpr.Range(), "not a name", "It is a constant; put it into quotes if it holds anything but letters and digits.")
		case slices.Contains(names, name):
			l.Error("MAP011", item.KeyExpr.Range(), fmt.Sprintf("%q stands there twice", name), "")
		default:
			out, names = append(out, item), append(names, name)
		}
	}
	return out, names, true
}

// testValue reads a constant; null is lattice's.
func (l *loader) testValue(expr hclsyntax.Expression) (engine.Value, bool) {
	v, ok := l.Constant(expr, nil)
	if !ok {
		return engine.Value{}, false
	}
	out, err := fromCty(v)
	if err != nil {
		l.Error("MAP141", expr.Range(), "not a value", sentence(err))
	}
	return out, err == nil
}

func (l *loader) testRegisters(a *hclsyntax.Attribute) (out []TestRegister) {
	if a == nil {
		return nil
	}
	items, names, _ := l.entries(a.Expr, "`"+a.Name+` = { "site/berlin/oven-3" = { value = 21.5 } }`+"`")
	for i, item := range items {
		if err := engine.CheckName(names[i]); err != nil {
			l.Error("MAP141", item.KeyExpr.Range(), "not the name of a register", sentence(err))
			continue
		}
		v, ok := l.testValue(item.ValueExpr)
		if v.Kind() == lattice.NullKind {
			v = engine.Value{}
		}
		if ok {
			out = append(out, TestRegister{names[i], v, source(item.KeyExpr.Range())})
		}
	}
	return out
}

// wrapperOf finds the wrapper that a test means by its name or by its protocol's.
func (l *loader) wrapperOf(at hcl.Range, name string, t *Test) *wrapperMaps {
	var of, known []string
	for _, w := range l.in.Wrappers {
		if w.Name == name {
			return l.set.wrappers[name]
		}
		if w.Protocol.Name == name {
			of = append(of, w.Name)
		}
		known = append(known, w.Name, w.Protocol.Name)
	}
	switch {
	case len(of) == 1:
		return l.set.wrappers[of[0]]
	case len(of) > 1:
		l.Error("MAP053", at, fmt.Sprintf("which wrapper of protocol %q?", name), fmt.Sprintf("There are %s: write the one that is meant.", strings.Join(of, ", ")))
	case slices.Contains(l.in.Later, name):
		if t.Skip == "" {
			t.Skip = fmt.Sprintf("protocol %q is not in this version", name)
			l.Warn("MAP051", at, t.Skip, "The test was read and is not run.")
		}
	default:
		slices.Sort(known)
		l.Unknown("MAP053", at, "wrapper or protocol", name, slices.Compact(known))
	}
	return nil
}

func (l *loader) steps(t *Test, a *hclsyntax.Attribute) {
	if a == nil {
		return
	}
	list := []hclsyntax.Expression{a.Expr}
	if many, ok := a.Expr.(*hclsyntax.TupleConsExpr); ok {
		if list = many.Exprs; len(list) == 0 {
			l.Error("MAP141", a.Expr.Range(), "nothing is sent", "Write at least one operation.")
		}
	}
	for _, expr := range list {
		if s, ok := l.step(t, expr); ok {
			t.Send = append(t.Send, s)
		}
	}
}

const stepForm = "`{ mqtt = \"sensors/berlin/oven-3\", payload = { value = 21.5 } }`"

func (l *loader) step(t *Test, expr hclsyntax.Expression) (s TestStep, ok bool) {
	items, names, ok := l.entries(expr, stepForm)
	if !ok {
		return s, false
	}
	s.Source = source(expr.Range())
	var w *wrapperMaps
	var address, payload, to hclsyntax.Expression
	verb := ""
	before := l.Count()
	for i, item := range items {
		attr := &hclsyntax.Attribute{Name: names[i], Expr: item.ValueExpr, NameRange: item.KeyExpr.Range()}
		switch names[i] {
		case "payload":
			payload = item.ValueExpr
		case "verb":
			verb, _ = l.Enum(attr, "", testVerbs)
		case "who":
			s.Op.Who.Principal, _ = l.String(attr, "", nil)
			s.Op.Who.Verified = true
		case "server":
			s.Op.Server, _ = l.String(attr, "", nil)
		case "type":
			s.Op.Payload.Type, _ = l.String(attr, "", nil)
		case "to":
			to = item.ValueExpr
		case "collapse":
			s.Collapse, _ = l.String(attr, "", nil)
		case "after":
			text, _ := l.String(attr, "", nil)
			d, err := diag.ParseDuration(text)
			if err != nil && text != "" {
				l.Error("MAP141", item.ValueExpr.Range(), fmt.Sprintf("%q is not a length of time", text), `As in "500ms", "30s" or "1d".`)
			}
			s.After = d
		case "meta":
			s.Op.Payload.Meta = l.testMeta(item.ValueExpr)
		default:
			if address != nil {
				l.Error("MAP141", item.KeyExpr.Range(), "one operation has one address", "Write several as a list: `send = [{ … }, { … }]`.")
				continue
			}
			address = item.ValueExpr
			w = l.wrapperOf(item.KeyExpr.Range(), names[i], t)
		}
	}
	if address == nil {
		if s.Collapse == "" && s.After == 0 && l.Count() == before {
			l.Error("MAP141", expr.Range(), "an operation without an address", "As in "+stepForm+".")
		}
		return s, l.Count() == before
	}
	if w == nil || l.Count() > before {
		return s, false
	}
	s.Wrapper = w.info.Name
	s.Op.Address, ok = l.testAddress(w, address)
	if !ok {
		return s, false
	}
	s.Op.Verb = l.testVerb(w, verb)
	if s.Op.Verb == wrappers.Rename {
		if to == nil {
			l.Error("MAP141", expr.Range(), "rename: where to?", "Add `to = \"…\"`.")
		} else if s.Op.To, ok = l.testAddress(w, to); !ok {
			return s, false
		}
	} else if to != nil {
		l.Error("MAP141", to.Range(), `"to" goes with verb = "rename"`, "")
	}
	if len(w.info.Servers) > 0 && !slices.Contains(w.info.Servers, s.Op.Server) {
		l.Error("MAP055", expr.Range(), "which server?", fmt.Sprintf("Add `server = \"…\"`, one of %s.", strings.Join(w.info.Servers, ", ")))
	}
	var f finding
	e := w.lookup(s.Op.Address, &f)
	switch {
	case e == nil && t.Refused == "":
		l.Error("MAP142", address.Range(), "no bind has this address", "It is refused, or passes a relay: say `refused`, or correct it.")
	case e != nil && s.Op.Verb.Writes() && !e.bind.Inward() && t.Refused == "":
		l.Error("MAP085", address.Range(), "nothing comes in at this address", fmt.Sprintf("The bind at %s only goes out.", e.bind.source))
	}
	if payload != nil {
		l.testPayload(&s.Op.Payload, e, payload)
	}
	return s, l.Count() == before
}

func (l *loader) testVerb(w *wrapperMaps, word string) wrappers.Verb {
	for v := wrappers.Read; v <= wrappers.Message; v++ {
		if v.String() == word {
			return v
		}
	}
	if w.info.Protocol.Feed {
		return wrappers.Message
	}
	return wrappers.Put
}

// testAddress reads an address as peers write it; binds have it below the wrapper's base.
func (l *loader) testAddress(w *wrapperMaps, expr hclsyntax.Expression) (string, bool) {
	text, ok := l.String(&hclsyntax.Attribute{Name: "address", Expr: expr}, "", nil)
	if !ok {
		return "", false
	}
	if canonical := w.info.Protocol.Syntax.Canonical; canonical != nil {
		c, err := canonical(text)
		if err != nil {
			l.Error("MAP141", expr.Range(), "not an address", sentence(err))
			return "", false
		}
		text = c
	}
	return text, true
}

func (l *loader) testMeta(expr hclsyntax.Expression) map[string]string {
	items, names, _ := l.entries(expr, "`meta = { unit = \"C\" }`")
	out := map[string]string{}
	for i, item := range items {
		out[strings.ToLower(names[i])], _ = l.String(&hclsyntax.Attribute{Name: names[i], Expr: item.ValueExpr}, "", nil)
	}
	return out
}

// testPayload makes the payload of a step: a text as it is, anything else by the codec of the bind.
func (l *loader) testPayload(p *wrappers.Payload, e *entry, expr hclsyntax.Expression) {
	v, ok := l.Constant(expr, nil)
	if !ok {
		return
	}
	if !v.IsNull() && v.Type() == cty.String {
		p.Raw = []byte(v.AsString())
		return
	}
	val, err := fromCty(v)
	if err == nil && e != nil {
		var made wrappers.Payload
		if made, err = e.bind.Encode(val); p.Type == "" {
			p.Type = made.Type
		}
		p.Raw = made.Raw
	} else if err == nil {
		p.Raw = val.AppendJSON(nil)
	}
	if err != nil {
		l.Error("MAP141", expr.Range(), "the payload can't be written", sentence(err))
	}
}

const toldForm = "`told = { http = \"/v1/berlin/oven-3\" }`"

func (l *loader) testTold(t *Test, a *hclsyntax.Attribute) {
	if a == nil {
		return
	}
	items, names, ok := l.entries(a.Expr, toldForm)
	t.Nobody = ok && len(items) == 0
	for i, item := range items {
		w := l.wrapperOf(item.KeyExpr.Range(), names[i], t)
		if w == nil {
			continue
		}
		told := TestTold{Wrapper: w.info.Name, Source: source(item.KeyExpr.Range())}
		list := []hclsyntax.Expression{item.ValueExpr}
		if many, ok := item.ValueExpr.(*hclsyntax.TupleConsExpr); ok {
			list = many.Exprs
		}
		for _, expr := range list {
			obj, ok := expr.(*hclsyntax.ObjectConsExpr)
			if !ok {
				if at, ok := l.toldAddress(w, expr); ok {
					at.Any = true
					told.Address = append(told.Address, at)
				}
				continue
			}
			for _, entry := range obj.Items {
				at, ok := l.toldAddress(w, unwrapKey(entry.KeyExpr))
				v, ok2 := l.testValue(entry.ValueExpr)
				if !ok || !ok2 {
					continue
				}
				switch c, _ := entry.ValueExpr.Value(nil); {
				case v.Kind() == lattice.NullKind:
					at.Gone = true
				case c.Type() == cty.String:
					s := c.AsString()
					at.Raw = &s
				default:
					at.Value = v
				}
				told.Address = append(told.Address, at)
			}
		}
		t.Told = append(t.Told, told)
	}
}

// toldAddress reads "address", or "server:address" where the wrapper has several.
func (l *loader) toldAddress(w *wrapperMaps, expr hclsyntax.Expression) (at TestAddress, ok bool) {
	text, ok := l.String(&hclsyntax.Attribute{Name: "told", Expr: expr}, "", nil)
	if !ok {
		return at, false
	}
	if len(w.info.Servers) > 0 {
		server, rest, found := strings.Cut(text, ":")
		if !found || !slices.Contains(w.info.Servers, server) {
			l.Error("MAP055", expr.Range(), "which server?", fmt.Sprintf("Write \"server:address\", with one of %s.", strings.Join(w.info.Servers, ", ")))
			return at, false
		}
		at.Server, text = server, rest
	}
	if canonical := w.info.Protocol.Syntax.Canonical; canonical != nil {
		c, err := canonical(text)
		if err != nil {
			l.Error("MAP141", expr.Range(), "not an address", sentence(err))
			return at, false
		}
		text = c
	}
	var f finding
	switch e := w.lookup(text, &f); {
	case e == nil:
		l.Error("MAP142", expr.Range(), "no bind has this address", "Nobody is ever told anything there.")
	case !e.bind.Outward():
		l.Error("MAP085", expr.Range(), "nothing goes out at this address", fmt.Sprintf("The bind at %s only comes in.", e.bind.source))
	default:
		at.Address = text
		return at, true
	}
	return at, false
}
