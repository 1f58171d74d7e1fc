package main

import (
	"context"
	"encoding/json"
	"io"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/daemonclient/wire"
	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

func setVerb(a *app) *cobra.Command {
	var replace bool
	var fields, adds []string
	var state string
	c := &cobra.Command{
		Use:   "set REGISTER [JSON]",
		Short: "Write a register",
		Long: `Writes what is mentioned and leaves other fields as they are; null clears a field. A value that
is not an object is the value of a register without fields. "-" reads the JSON from stdin.
--add adds to what is there, for fields whose rule is sum (a number, which may be negative) or
union (a list of items, or one text).
It is durable, and on its way to every protocol, when the command returns.`,
		Example: `  spookgw set site/berlin/oven-3 '{"value":21.5}'
  spookgw set site/berlin/oven-3 --field value=21.5 --field unit=C
  spookgw set stock/bolts --add count=-3 --add tags=urgent
  spookgw set site/berlin/oven-3 '{"value":22}' --if 3.0123456789abcdef0123456789abcdef`,
		Args: cobra.RangeArgs(1, 2),
	}
	c.Flags().BoolVar(&replace, "replace", false, "clear the fields that are not mentioned")
	c.Flags().StringArrayVar(&fields, "field", nil, "name=value; a value that is not JSON is text")
	c.Flags().StringArrayVar(&adds, "add", nil, "name=value to add; without a name: to a register without fields")
	c.Flags().StringVar(&state, "if", "", "only if this is the register's state id (\"none\": if it does not exist)")
	c.RunE = func(c *cobra.Command, args []string) error {
		ops, err := a.setOps(args, fields, adds, replace)
		if err != nil {
			return err
		}
		cond, err := precondition(args[0], state)
		if err != nil {
			return err
		}
		return a.withClient(c, func(ctx context.Context, client *daemonclient.Client) error {
			r, err := client.WriteState(ctx, engine.Write{Ops: ops, If: cond, By: engine.Cause{Verb: "set"}})
			if err != nil {
				return err
			}
			if a.json {
				return a.print(wire.FromReceipt(r))
			}
			return nil
		})
	}
	return c
}

func precondition(register, state string) ([]engine.Precondition, error) {
	switch state {
	case "":
		return nil, nil
	case "none":
		no := false
		return []engine.Precondition{{Register: register, Exists: &no}}, nil
	}
	id, err := lattice.ParseStateID(state)
	if err != nil {
		return nil, usage("--if: %v", err)
	}
	return []engine.Precondition{{Register: register, Match: []engine.StateID{id}}}, nil
}

// setOps turns the arguments into operations on one register.
func (a *app) setOps(args, fields, adds []string, replace bool) ([]engine.Op, error) {
	register := args[0]
	added, err := addOps(register, adds)
	if err != nil {
		return nil, err
	}
	values := map[string]engine.Value{}
	if len(args) == 2 {
		text := []byte(args[1])
		if args[1] == "-" {
			b, err := io.ReadAll(io.LimitReader(a.in, wire.MaxMessage+1))
			if err != nil {
				return nil, err
			}
			text = b
		}
		v, err := lattice.ParseTagged(text)
		if err != nil {
			return nil, usage("%v", err)
		}
		if v.Kind() != lattice.ObjectKind {
			if len(fields) > 0 || len(adds) > 0 || replace {
				return nil, usage("a single value goes with none of --field, --add and --replace")
			}
			if v.Kind() == lattice.NullKind {
				return []engine.Op{{Register: register, Kind: engine.OpRemove}}, nil
			}
			return []engine.Op{{Register: register, Kind: engine.OpPut, Value: v}}, nil
		}
		for _, m := range v.Members() {
			values[m.Name] = m.Value
		}
	}
	for _, f := range fields {
		name, text, ok := strings.Cut(f, "=")
		if !ok || name == "" {
			return nil, usage("--field %q is not name=value", f)
		}
		v := lattice.String(text)
		if json.Valid([]byte(text)) {
			parsed, err := lattice.ParseTagged([]byte(text))
			if err != nil {
				return nil, usage("--field %s: %v", name, err)
			}
			v = parsed
		}
		values[name] = v
	}
	if len(args) < 2 && len(fields) == 0 && len(adds) == 0 {
		return nil, usage("nothing to set: give JSON, --field or --add")
	}
	for _, op := range added {
		if _, twice := values[op.Field]; twice || op.Field == "" && (len(values) > 0 || replace) {
			return nil, usage("--add %s: it can't be set in the same breath", fieldName(op.Field))
		}
	}
	ops := append(fieldOps(register, values, replace), added...)
	if replace {
		for _, op := range added {
			ops[0].Fields = append(ops[0].Fields, op.Field)
		}
	}
	return ops, nil
}

// addOps are the operations of --add. A text is one item.
func addOps(register string, adds []string) (ops []engine.Op, err error) {
	for _, add := range adds {
		field, text := "", add
		if !json.Valid([]byte(add)) {
			name, value, ok := strings.Cut(add, "=")
			if !ok || name == "" {
				return nil, usage("--add %q is neither name=value nor JSON", add)
			}
			field, text = name, value
		}
		v := lattice.String(text)
		if json.Valid([]byte(text)) {
			if v, err = lattice.ParseTagged([]byte(text)); err != nil {
				return nil, usage("--add %s: %v", fieldName(field), err)
			}
		}
		switch v.Kind() {
		case lattice.StringKind:
			v = lattice.List(v)
		case lattice.IntKind, lattice.DecimalKind, lattice.ListKind, lattice.SetKind:
		default:
			return nil, usage("--add %s: a %s can't be added; give a number, a text or a list", fieldName(field), v.Kind())
		}
		ops = append(ops, engine.Op{Register: register, Kind: engine.OpAdd, Field: field, Value: v})
	}
	return ops, nil
}

// fieldOps are the operations in field order. An empty object makes the register exist.
func fieldOps(register string, values map[string]engine.Value, replace bool) []engine.Op {
	var names, kept []string
	for n := range values {
		names = append(names, n)
	}
	sort.Strings(names)
	var ops []engine.Op
	for _, n := range names {
		if values[n].Kind() == lattice.NullKind {
			ops = append(ops, engine.Op{Register: register, Kind: engine.OpRemove, Field: n})
			continue
		}
		kept = append(kept, n)
		ops = append(ops, engine.Op{Register: register, Kind: engine.OpPut, Field: n, Value: values[n]})
	}
	if replace {
		ops = append([]engine.Op{{Register: register, Kind: engine.OpOnly, Fields: kept}}, ops...)
	}
	return ops
}
