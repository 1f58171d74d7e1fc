package mapping

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// An eval is a compiled expression. Absent means that the message does not mention what the
// expression needs. Errors are for the peer.
type eval func(m *message) (engine.Value, error)

var absent engine.Value

func constant(v engine.Value) eval { return func(*message) (engine.Value, error) { return v, nil } }

// compile turns an expression that was checked into closures over plain values. What it has no
// closure for is left to HCL's own evaluation.
func (sc *scope) compile(expr hclsyntax.Expression) eval {
	switch e := expr.(type) {
	case *hclsyntax.ParenthesesExpr:
		return sc.compile(e.Expression)
	case *hclsyntax.LiteralValueExpr:
		if v, err := fromCty(e.Val); err == nil {
			return constant(v)
		}
	case *hclsyntax.TemplateWrapExpr:
		return sc.compile(e.Wrapped)
	case *hclsyntax.TemplateExpr:
		return sc.compileTemplate(e)
	case *hclsyntax.ScopeTraversalExpr:
		if ev := sc.compileRoot(e.Traversal); ev != nil {
			return ev
		}
	case *hclsyntax.RelativeTraversalExpr:
		if path, ok := traversalPath(e.Traversal); ok {
			return follow(sc.compile(e.Source), path)
		}
	case *hclsyntax.IndexExpr:
		return compileIndex(sc.compile(e.Collection), sc.compile(e.Key))
	case *hclsyntax.ConditionalExpr:
		return compileConditional(sc.compile(e.Condition), sc.compile(e.TrueResult), sc.compile(e.FalseResult))
	case *hclsyntax.UnaryOpExpr:
		return compileUnary(e.Op, sc.compile(e.Val))
	case *hclsyntax.BinaryOpExpr:
		return compileBinary(e.Op, sc.compile(e.LHS), sc.compile(e.RHS))
	case *hclsyntax.TupleConsExpr:
		return sc.compileTuple(e)
	case *hclsyntax.ObjectConsExpr:
		return sc.compileObject(e)
	case *hclsyntax.FunctionCallExpr:
		if ev := sc.compileCall(e); ev != nil {
			return ev
		}
	}
	return sc.fallback(expr)
}

// traversalPath gives the names and indexes of a traversal behind its root.
func traversalPath(t hcl.Traversal) ([]cty.Value, bool) {
	var path []cty.Value
	for _, step := range t {
		switch s := step.(type) {
		case hcl.TraverseAttr:
			path = append(path, cty.StringVal(s.Name))
		case hcl.TraverseIndex:
			path = append(path, s.Key)
		default:
			return nil, false
		}
	}
	return path, true
}

func follow(root eval, path []cty.Value) eval {
	for _, p := range path {
		key, err := fromCty(p)
		if err != nil {
			return nil
		}
		root = compileIndex(root, constant(key))
	}
	return root
}

func (sc *scope) compileRoot(t hcl.Traversal) eval {
	path, ok := traversalPath(t[1:])
	if !ok {
		return nil
	}
	name := t.RootName()
	if name == "payload" && len(path) > 0 && path[0].Type() == cty.String {
		first := path[0].AsString()
		return follow(func(m *message) (engine.Value, error) {
			if !m.object {
				return absent, nil
			}
			return m.member(first), nil
		}, path[1:])
	}
	if name == "meta" && len(path) == 1 && path[0].Type() == cty.String {
		first := path[0].AsString()
		return func(m *message) (engine.Value, error) {
			if m.body == nil {
				return absent, nil
			}
			v, ok := m.body.Meta[first]
			if !ok {
				return absent, nil
			}
			return lattice.String(v), nil
		}
	}
	root := sc.root(name)
	if root == nil {
		return nil
	}
	return follow(root, path)
}

// root gives a name of the scope.
func (sc *scope) root(name string) eval {
	if i := slices.Index(sc.bind.slots, name); i >= 0 {
		return func(m *message) (engine.Value, error) {
			if m.caps[i] == "" {
				return absent, nil
			}
			return lattice.String(m.caps[i]), nil
		}
	}
	switch name {
	case "payload":
		return func(m *message) (engine.Value, error) { return m.value(), nil }
	case "row":
		return func(m *message) (engine.Value, error) { return m.row, nil }
	case "exists":
		return func(m *message) (engine.Value, error) { return lattice.Bool(m.there), nil }
	case "self":
		return func(m *message) (engine.Value, error) { return m.self, nil }
	case "raw":
		return func(m *message) (engine.Value, error) {
			if m.body == nil {
				return absent, nil
			}
			return rawValue(m.body.Raw), nil
		}
	case "meta":
		return func(m *message) (engine.Value, error) {
			var members []lattice.Member
			if m.body != nil {
				for k, v := range m.body.Meta {
					members = append(members, lattice.Member{Name: k, Value: lattice.String(v)})
				}
			}
			return lattice.Object(members...), nil
		}
	case "verb":
		return func(m *message) (engine.Value, error) {
			if m.verb == 0 {
				return absent, nil
			}
			return lattice.String(m.verb.String()), nil
		}
	case "peer", "who":
		return func(m *message) (engine.Value, error) {
			if m.who == nil {
				return absent, nil
			}
			if name == "peer" {
				return lattice.String(m.who.Peer), nil
			}
			return lattice.String(m.who.Principal), nil
		}
	case "wrapper":
		return func(m *message) (engine.Value, error) { return lattice.String(m.wrapper), nil }
	case "server":
		return func(m *message) (engine.Value, error) { return lattice.String(m.server), nil }
	case "now":
		return func(m *message) (engine.Value, error) { return m.now(), nil }
	}
	return nil
}

func compileIndex(of, key eval) eval {
	return func(m *message) (engine.Value, error) {
		v, err := of(m)
		if err != nil || v.IsAbsent() {
			return absent, err
		}
		k, err := key(m)
		if err != nil || k.IsAbsent() {
			return absent, err
		}
		switch v.Kind() {
		case lattice.ObjectKind:
			name, err := captureText(k)
			if err != nil {
				return absent, refuse("%s is not the name of a member", brief(k))
			}
			member, _ := v.Member(name)
			return member, nil
		case lattice.StringKind:
			return memberOf(v, k.Text()), nil
		case lattice.ListKind, lattice.SetKind:
			n, err := asNumber(k)
			if err != nil || n.Kind() != lattice.IntKind {
				return absent, refuse("%s is not a place in a list", brief(k))
			}
			if i := n.Int(); i >= 0 && i < int64(v.Len()) {
				return v.Items()[i], nil
			}
		}
		return absent, nil
	}
}

func (sc *scope) compileTemplate(e *hclsyntax.TemplateExpr) eval {
	parts := make([]eval, len(e.Parts))
	for i, p := range e.Parts {
		parts[i] = sc.compile(p)
	}
	if len(e.Parts) == 1 {
		if lit, ok := e.Parts[0].(*hclsyntax.LiteralValueExpr); ok && lit.Val.Type() == cty.String {
			return constant(lattice.String(lit.Val.AsString()))
		}
	}
	return func(m *message) (engine.Value, error) {
		var b strings.Builder
		for _, p := range parts {
			v, err := p(m)
			if err != nil || v.IsAbsent() {
				return absent, err
			}
			s, err := captureText(v)
			if err != nil {
				return absent, refuse("in a text: %v", err)
			}
			b.WriteString(s)
		}
		return lattice.String(b.String()), nil
	}
}

func compileConditional(cond, yes, no eval) eval {
	return func(m *message) (engine.Value, error) {
		c, err := cond(m)
		if err != nil || c.IsAbsent() {
			return absent, err
		}
		b, err := asBool(c)
		if err != nil {
			return absent, err
		}
		if b {
			return yes(m)
		}
		return no(m)
	}
}

// asBool and asNumber convert as HCL's operators do.
func asBool(v engine.Value) (bool, error) {
	switch {
	case v.Kind() == lattice.BoolKind:
		return v.Bool(), nil
	case v.Kind() == lattice.StringKind && v.Text() == "true":
		return true, nil
	case v.Kind() == lattice.StringKind && v.Text() == "false":
		return false, nil
	}
	return false, refuse("%v", notA(v, "true or false"))
}

func asNumber(v engine.Value) (engine.Value, error) {
	if v.IsNumber() {
		return v, nil
	}
	if v.Kind() == lattice.StringKind {
		if n, err := lattice.ParseNumber(v.Text()); err == nil {
			return n, nil
		}
	}
	return absent, refuse("%v", notA(v, "a number"))
}

func compileUnary(op *hclsyntax.Operation, of eval) eval {
	return func(m *message) (engine.Value, error) {
		v, err := of(m)
		if err != nil || v.IsAbsent() {
			return absent, err
		}
		if op == hclsyntax.OpLogicalNot {
			b, err := asBool(v)
			return lattice.Bool(!b), err
		}
		n, err := asNumber(v)
		if err != nil {
			return absent, err
		}
		return arithmetic(lattice.MulNumbers(n, lattice.Int(-1)))
	}
}

func arithmetic(v engine.Value, err error) (engine.Value, error) {
	if err != nil {
		return absent, refuse("%s", peerText(err))
	}
	return v, nil
}

func compileBinary(op *hclsyntax.Operation, lhs, rhs eval) eval {
	if op == hclsyntax.OpLogicalAnd || op == hclsyntax.OpLogicalOr {
		// An absent side is false, so that the other may decide.
		side := func(m *message, e eval) (bool, error) {
			v, err := e(m)
			if err != nil || v.IsAbsent() {
				return false, err
			}
			return asBool(v)
		}
		return func(m *message) (engine.Value, error) {
			a, err := side(m, lhs)
			if err != nil {
				return absent, err
			}
			if a == (op == hclsyntax.OpLogicalOr) {
				return lattice.Bool(a), nil
			}
			b, err := side(m, rhs)
			return lattice.Bool(b), err
		}
	}
	var do func(a, b engine.Value) (engine.Value, error)
	switch op {
	case hclsyntax.OpEqual:
		do = func(a, b engine.Value) (engine.Value, error) { return lattice.Bool(a.Equal(b)), nil }
	case hclsyntax.OpNotEqual:
		do = func(a, b engine.Value) (engine.Value, error) { return lattice.Bool(!a.Equal(b)), nil }
	case hclsyntax.OpAdd:
		do = numbers(func(a, b engine.Value) (engine.Value, error) { return lattice.AddNumbers(a, b) })
	case hclsyntax.OpSubtract:
		do = numbers(func(a, b engine.Value) (engine.Value, error) {
			n, err := lattice.MulNumbers(b, lattice.Int(-1))
			if err != nil {
				return absent, err
			}
			return lattice.AddNumbers(a, n)
		})
	case hclsyntax.OpMultiply:
		do = numbers(lattice.MulNumbers)
	case hclsyntax.OpDivide:
		do = numbers(func(a, b engine.Value) (engine.Value, error) {
			q, _, err := lattice.QuoNumbers(a, b)
			return q, err
		})
	case hclsyntax.OpGreaterThan:
		do = compared(func(c int) bool { return c > 0 })
	case hclsyntax.OpGreaterThanOrEqual:
		do = compared(func(c int) bool { return c >= 0 })
	case hclsyntax.OpLessThan:
		do = compared(func(c int) bool { return c < 0 })
	case hclsyntax.OpLessThanOrEqual:
		do = compared(func(c int) bool { return c <= 0 })
	default: // modulo
		do = numbers(func(a, b engine.Value) (engine.Value, error) { return callCty(op.Impl, []engine.Value{a, b}) })
	}
	return func(m *message) (engine.Value, error) {
		a, err := lhs(m)
		if err != nil || a.IsAbsent() {
			return absent, err
		}
		b, err := rhs(m)
		if err != nil || b.IsAbsent() {
			return absent, err
		}
		return do(a, b)
	}
}

func numbers(op func(a, b engine.Value) (engine.Value, error)) func(a, b engine.Value) (engine.Value, error) {
	return func(a, b engine.Value) (engine.Value, error) {
		a, err := asNumber(a)
		if err != nil {
			return absent, err
		}
		if b, err = asNumber(b); err != nil {
			return absent, err
		}
		return arithmetic(op(a, b))
	}
}

func compared(is func(int) bool) func(a, b engine.Value) (engine.Value, error) {
	return numbers(func(a, b engine.Value) (engine.Value, error) {
		return lattice.Bool(is(lattice.CompareNumbers(a, b))), nil
	})
}

func (sc *scope) compileTuple(e *hclsyntax.TupleConsExpr) eval {
	items := make([]eval, len(e.Exprs))
	for i, x := range e.Exprs {
		items[i] = sc.compile(x)
	}
	return func(m *message) (engine.Value, error) {
		out := make([]engine.Value, len(items))
		for i, item := range items {
			v, err := item(m)
			if err != nil || v.IsAbsent() {
				return absent, err
			}
			out[i] = v
		}
		return lattice.List(out...), nil
	}
}

// compileObject leaves out members whose value is absent.
func (sc *scope) compileObject(e *hclsyntax.ObjectConsExpr) eval {
	type member struct{ key, value eval }
	members := make([]member, len(e.Items))
	for i, item := range e.Items {
		members[i].value = sc.compile(item.ValueExpr)
		if name, ok := memberName(item.KeyExpr); ok {
			members[i].key = constant(lattice.String(name))
		} else {
			members[i].key = sc.compile(unwrapKey(item.KeyExpr))
		}
	}
	return func(m *message) (engine.Value, error) {
		out := make([]lattice.Member, 0, len(members))
		for _, x := range members {
			k, err := x.key(m)
			if err != nil || k.IsAbsent() {
				return absent, err
			}
			name, err := captureText(k)
			if err != nil {
				return absent, refuse("%s is not the name of a member", brief(k))
			}
			v, err := x.value(m)
			if err != nil {
				return absent, err
			}
			out = append(out, lattice.Member{Name: name, Value: v})
		}
		return lattice.Object(out...), nil
	}
}

// memberName gives the literal key of an object's item.
func memberName(key hclsyntax.Expression) (string, bool) {
	v, diags := key.Value(nil)
	if diags.HasErrors() || !v.IsKnown() || v.IsNull() {
		return "", false
	}
	v, err := convert.Convert(v, cty.String)
	if err != nil {
		return "", false
	}
	return v.AsString(), true
}

func unwrapKey(key hclsyntax.Expression) hclsyntax.Expression {
	if k, ok := key.(*hclsyntax.ObjectConsKeyExpr); ok {
		return k.Wrapped
	}
	return key
}

func (sc *scope) compileCall(e *hclsyntax.FunctionCallExpr) eval {
	if e.ExpandFinal {
		return nil
	}
	if twoWays[e.Name] != nil {
		s, err := makeStep(e)
		if err != nil {
			return nil // reported by check
		}
		arg := sc.compile(e.Args[0])
		return func(m *message) (engine.Value, error) {
			v, err := arg(m)
			if err != nil || v.IsAbsent() {
				return absent, err
			}
			if v, err = s.get(v); err != nil {
				return absent, refuse("%s: %s", s.name, peerText(err))
			}
			return v, nil
		}
	}
	args := make([]eval, len(e.Args))
	for i, a := range e.Args {
		args[i] = sc.compile(a)
	}
	switch e.Name {
	case "try", "coalesce":
		// The first that is there; coalesce passes over null, try over errors.
		return func(m *message) (engine.Value, error) {
			var last error
			for _, a := range args {
				v, err := a(m)
				if err != nil && e.Name == "coalesce" {
					return absent, err
				}
				last = err
				if err == nil && !v.IsAbsent() && (e.Name == "try" || v.Kind() != lattice.NullKind) {
					return v, nil
				}
			}
			return absent, last
		}
	case "can":
		return func(m *message) (engine.Value, error) {
			v, err := args[0](m)
			return lattice.Bool(err == nil && !v.IsAbsent()), nil
		}
	case "new":
		return func(m *message) (engine.Value, error) { return m.fresh(), nil }
	case "date":
		zone, err := dateZone(e)
		if err != nil {
			return nil // reported by check
		}
		return func(m *message) (engine.Value, error) {
			v, err := args[0](m)
			if err != nil || v.IsAbsent() {
				return absent, err
			}
			if v, err = date(v, zone); err != nil {
				return absent, refuse("date: %s", peerText(err))
			}
			return v, nil
		}
	case "reg":
		return func(m *message) (engine.Value, error) {
			v, err := args[0](m)
			if err != nil || v.IsAbsent() {
				return absent, err
			}
			if m.env.Register == nil {
				return absent, nil
			}
			st, ok := m.env.Register(v.Text())
			if !ok || !st.Exists {
				return absent, nil
			}
			return st.Value, nil
		}
	}
	f, ok := functions[e.Name]
	if !ok {
		return nil
	}
	return func(m *message) (engine.Value, error) {
		values := make([]engine.Value, len(args))
		for i, a := range args {
			v, err := a(m)
			if err != nil || v.IsAbsent() {
				return absent, err
			}
			values[i] = v
		}
		v, err := callCty(f, values)
		if err != nil {
			return absent, refuse("%s: %s", e.Name, err)
		}
		return v, nil
	}
}

// callCty calls one of HCL's functions with values of ours, converting arguments as HCL does.
func callCty(f function.Function, args []engine.Value) (engine.Value, error) {
	left := budget{nodes: maxNodes}
	in := make([]cty.Value, len(args))
	for i, a := range args {
		c, err := toCty(a, &left)
		if err != nil {
			return absent, err
		}
		p := f.VarParam()
		if params := f.Params(); i < len(params) {
			p = &params[i]
		}
		if p == nil {
			return absent, fmt.Errorf("too many arguments")
		}
		if c, err = convert.Convert(c, p.Type); err != nil {
			return absent, err
		}
		in[i] = c
	}
	out, err := f.Call(in)
	if err != nil {
		return absent, err
	}
	return fromCty(out)
}

// fallback evaluates through HCL itself, with the names that the expression uses.
func (sc *scope) fallback(expr hclsyntax.Expression) eval {
	names := map[string]eval{}
	guarded := hasGuard(expr)
	var needs []eval
	for _, t := range expr.Variables() {
		name := t.RootName()
		if names[name] == nil {
			if names[name] = sc.root(name); names[name] == nil {
				delete(names, name)
				continue
			}
		}
		if ev := sc.compileRoot(t); ev != nil && !guarded {
			needs = append(needs, ev)
		}
	}
	loops := loopDepth(expr)
	return func(m *message) (engine.Value, error) {
		for _, need := range needs {
			if v, err := need(m); err != nil || v.IsAbsent() {
				return absent, err
			}
		}
		left := budget{nodes: maxNodes}
		for range loops - 1 {
			left.nodes /= 10 // what nested loops do grows by powers
		}
		nodes := left.nodes
		vars := make(map[string]cty.Value, len(names))
		for name, ev := range names {
			v, err := ev(m)
			if err != nil {
				return absent, err
			}
			if v.IsAbsent() {
				v = lattice.Null()
			}
			if vars[name], err = toCty(v, &left); err != nil {
				return absent, err
			}
		}
		if loops > 0 && (nodes-left.nodes)*left.bytes > maxWork {
			return absent, refuse("these are too large texts for a loop")
		}
		out, diags := expr.Value(&hcl.EvalContext{Variables: vars, Functions: evalFunctions})
		if diags.HasErrors() {
			d := diags[0]
			return absent, refuse("%s", strings.TrimSuffix(d.Detail, "."))
		}
		return fromCty(out)
	}
}

// loopDepth tells how deep loops nest.
func loopDepth(expr hclsyntax.Expression) int {
	w := &loopWalker{}
	hclsyntax.Walk(expr, w)
	return w.deepest
}

type loopWalker struct{ depth, deepest int }

func (w *loopWalker) Enter(n hclsyntax.Node) hcl.Diagnostics {
	switch n.(type) {
	case *hclsyntax.ForExpr, *hclsyntax.SplatExpr:
		w.depth++
		w.deepest = max(w.deepest, w.depth)
	}
	return nil
}

func (w *loopWalker) Exit(n hclsyntax.Node) hcl.Diagnostics {
	switch n.(type) {
	case *hclsyntax.ForExpr, *hclsyntax.SplatExpr:
		w.depth--
	}
	return nil
}

// hasGuard tells whether an expression deals with what is missing by itself.
func hasGuard(expr hclsyntax.Expression) bool {
	found := false
	hclsyntax.VisitAll(expr, func(n hclsyntax.Node) hcl.Diagnostics {
		if c, ok := n.(*hclsyntax.FunctionCallExpr); ok && (c.Name == "try" || c.Name == "can" || c.Name == "coalesce") {
			found = true
		}
		return nil
	})
	return found
}
