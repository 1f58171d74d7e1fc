package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/mapping/recording"
	"github.com/spooksystems/gateway/wrappers"
)

// mostRecorded bounds the different addresses of a recording that a plan looks at.
const mostRecorded = 100_000

// planRecorded holds the operations of a recording against both sets of binds: which of them mean something else. It is
// told beside the plan and is no part of its hash: a reload knows nothing of it. Of several at one address the newest
// counts.
func (g *Gateway) planRecorded(ctx context.Context, old, new *mapping.Set, path string) ([]PlanStep, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ops, err := newestRecorded(f)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", engine.ErrInvalid, path, err)
	}
	steps := []PlanStep{}
	for i := range ops {
		r, op := &ops[i], ops[i].Op()
		was, before := g.meaning(ctx, old, r.Wrapper, &op)
		now, after := g.meaning(ctx, new, r.Wrapper, &op)
		if was == now {
			continue
		}
		s := PlanStep{Where: "operation", What: "change", Wrapper: r.Wrapper, Server: r.Server, Address: r.Address, Before: planText(was), After: planText(now), Note: r.Verb}
		switch {
		case after == nil:
			s.What, s.bind = "delete", before
		case before == nil:
			s.What, s.bind = "create", after
		default:
			s.bind = after
		}
		if s.bind != nil {
			s.Bind = s.bind.Source()
		}
		steps = append(steps, s)
	}
	return steps, nil
}

const notMapped = "no bind has it"

// meaning is what an operation says of registers, in words, and the bind that makes it so; nil: it is refused or passes.
func (g *Gateway) meaning(ctx context.Context, set *mapping.Set, wrapper string, op *wrappers.Operation) (string, *mapping.Bind) {
	var texts []string
	if len(op.Parts) > 0 {
		var by *mapping.Bind
		for i := range op.Parts {
			text, b := g.meaning(ctx, set, wrapper, &op.Parts[i])
			if texts = append(texts, text); by == nil {
				by = b
			}
		}
		return strings.Join(texts, "; "), by
	}
	switch op.Verb {
	case wrappers.Read, wrappers.List:
		return targets(set.AllAt(wrapper, op.Server, op.Address))
	case wrappers.Rename:
		from, b := targets(set.AllAt(wrapper, op.Server, op.Address))
		to, c := targets(set.AllAt(wrapper, op.Server, op.To))
		if b == nil {
			b = c
		}
		return from + " becomes " + to, b
	}
	effects, err := set.In(wrapper, op, g.planEnv(ctx, set.Bind(wrapper, op.Address)))
	switch {
	case errors.Is(err, wrappers.ErrUnmapped):
		return notMapped, nil
	case err != nil:
		return "refused: " + wrappers.Reason(err), nil
	case len(effects) == 0:
		return "it passes by: `when` is false", nil
	}
	for _, e := range effects {
		text := e.Register
		switch {
		case e.Document != nil && e.Delete:
			text = e.Document.Prefix() + "… goes"
		case e.Document != nil:
			text = e.Document.Prefix() + "… has these rows and no others"
		case e.Delete:
			text += " goes"
		}
		for _, f := range e.Fields {
			name := f.Field
			switch {
			case f.Value.IsAbsent():
				text += " " + name + " cleared"
			case f.Add:
				text += " " + name + "+=" + string(f.Value.AppendJSON(nil))
			default:
				text += " " + name + "=" + string(f.Value.AppendJSON(nil))
			}
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "; "), effects[0].Bind
}

// targets names what an address means.
func targets(all []mapping.Target) (string, *mapping.Bind) {
	if len(all) == 0 {
		return notMapped, nil
	}
	var names []string
	for _, t := range all {
		name := t.Register
		if t.Document != nil {
			name = t.Document.Prefix() + "…"
		}
		names = append(names, name)
	}
	return strings.Join(names, ", "), all[0].Bind
}

// planEnv is what expressions of a bind may know: the registers of its domain.
func (g *Gateway) planEnv(ctx context.Context, b *mapping.Bind) mapping.Env {
	d := g.domains.first()
	if b != nil {
		if of := g.domains.named(b.Domain()); of != nil {
			d = of
		}
	}
	return mapping.Env{Register: func(name string) (engine.StateBlock, bool) {
		st, err := d.store.ReadState(ctx, name)
		return st, err == nil && st.Exists
	}}
}

// newestRecorded gives the newest operation of each verb at each address, by wrapper and address.
func newestRecorded(from io.Reader) ([]recording.Operation, error) {
	r, err := recording.NewReader(from)
	if err != nil {
		return nil, err
	}
	newest := map[string]recording.Operation{}
	for {
		o, err := r.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // it may be written still
			break
		}
		if err != nil {
			return nil, err
		}
		if o.Omitted {
			continue // nobody can tell what it said
		}
		if newest[recordedKey(&o)] = o; len(newest) > mostRecorded {
			return nil, fmt.Errorf("more than %d different addresses: record for a shorter time", mostRecorded)
		}
	}
	out := make([]recording.Operation, 0, len(newest))
	for _, o := range newest {
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b recording.Operation) int { return strings.Compare(recordedKey(&a), recordedKey(&b)) })
	return out, nil
}

func recordedKey(o *recording.Operation) string {
	key := strings.Join([]string{o.Wrapper, o.Server, o.Address, o.Verb, o.To}, "\x00")
	for i := range o.Parts {
		key += "\x01" + recordedKey(&o.Parts[i])
	}
	return key
}
