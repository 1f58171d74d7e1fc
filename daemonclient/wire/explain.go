package wire

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// An Explanation is an engine.Explanation.
type Explanation struct {
	State       State              `json:"state"`
	Declaration string             `json:"declaration,omitempty"`
	Source      string             `json:"source,omitempty"`
	Mode        string             `json:"mode"` // "auto", "manual", or the length of the window
	DeleteWins  bool               `json:"deleteWins,omitempty"`
	Group       string             `json:"group,omitempty"`
	Fields      []FieldExplanation `json:"fields,omitempty"`
	Existence   []LiveEntry        `json:"existence,omitempty"`
	Deleted     []LiveEntry        `json:"deleted,omitempty"`
	Pending     []Pending          `json:"pending,omitempty"`
	Hidden      bool               `json:"hidden,omitempty"`
	// TooLarge: it did not fit into one message; values, entries that don't win and what waits are left out.
	TooLarge bool `json:"tooLarge,omitempty"`
}

// A FieldExplanation is an engine.FieldExplanation.
type FieldExplanation struct {
	Field   string          `json:"field"`
	Rule    Rule            `json:"rule"`
	Value   json.RawMessage `json:"value,omitempty"`
	Entries []LiveEntry     `json:"entries,omitempty"`
	Why     string          `json:"why,omitempty"`
}

// A Rule is an engine.CollapseRule.
type Rule struct {
	Kind  string   `json:"kind"`
	Of    string   `json:"of,omitempty"`
	Ranks []string `json:"ranks,omitempty"`
}

// A LiveEntry is an engine.LiveEntry.
type LiveEntry struct {
	Dot   string          `json:"dot"`
	Stamp string          `json:"stamp,omitempty"`
	Time  string          `json:"time,omitempty"` // of the stamp, for people
	By    string          `json:"by,omitempty"`
	Cause *Cause          `json:"cause,omitempty"`
	Node  string          `json:"node,omitempty"`
	Value json.RawMessage `json:"value,omitempty"`
	Wins  bool            `json:"wins,omitempty"`
}

// Told says what one wrapper was told of a register last: a server by a write that it took, the
// peers of a virtual wrapper by a notification. The engine does not know it, the gateway does.
type Told struct {
	Protocol  string    `json:"protocol"`
	Wrapper   string    `json:"wrapper"`
	Server    string    `json:"server,omitempty"`
	Address   string    `json:"address"`
	Ordinal   uint64    `json:"ordinal"`      // of the newest commit told
	ID        string    `json:"id,omitempty"` // of the state told, where it is known
	Time      time.Time `json:"time"`
	TookMS    float64   `json:"took_ms"`             // since that commit
	Followers int       `json:"followers,omitempty"` // of a virtual wrapper: how many were told of that commit, one for each stream of its peers
}

// FromExplanation gives an Explanation's form.
func FromExplanation(x engine.Explanation) Explanation {
	w := Explanation{
		State: FromState(x.State), Declaration: x.Declaration, Source: x.Source, Mode: x.Mode.String(), DeleteWins: x.DeleteWins,
		Group: x.Group, Existence: fromEntries(x.Existence), Deleted: fromEntries(x.Deleted), Hidden: x.Hidden,
	}
	for _, f := range x.Fields {
		w.Fields = append(w.Fields, FieldExplanation{
			Field: f.Field, Rule: Rule{f.Rule.Kind.String(), f.Rule.Of, f.Rule.Ranks}, Value: FromValue(f.Value),
			Entries: fromEntries(f.Entries), Why: f.Why,
		})
	}
	for _, p := range x.Pending {
		w.Pending = append(w.Pending, FromPending(p))
	}
	return w
}

// WithoutValues leaves out what makes an Explanation large.
func (x Explanation) WithoutValues() Explanation {
	x.TooLarge, x.Pending = true, nil
	x.State.Value, x.State.Seen = nil, nil
	x.Existence, x.Deleted = winners(x.Existence), winners(x.Deleted)
	fields := make([]FieldExplanation, len(x.Fields))
	for i, f := range x.Fields {
		f.Value, f.Entries = nil, winners(f.Entries)
		fields[i] = f
	}
	x.Fields = fields
	return x
}

func winners(entries []LiveEntry) (out []LiveEntry) {
	for _, e := range entries {
		if e.Wins {
			e.Value = nil
			out = append(out, e)
		}
	}
	return out
}

// ParseExplanation reads an Explanation's form. For one of which much was left out it gives the
// rest and an error that is engine.ErrTooLarge.
func ParseExplanation(raw []byte) (engine.Explanation, error) {
	var (
		x                                   engine.Explanation
		state                               json.RawMessage
		mode                                string
		fields, existence, deleted, pending []json.RawMessage
		tooLarge                            bool
	)
	err := Members(raw,
		Member{"state", &state}, Member{"declaration", &x.Declaration}, Member{"source", &x.Source}, Member{"mode", &mode},
		Member{"deleteWins", &x.DeleteWins}, Member{"group", &x.Group}, Member{"fields", &fields}, Member{"existence", &existence},
		Member{"deleted", &deleted}, Member{"pending", &pending}, Member{"hidden", &x.Hidden}, Member{"tooLarge", &tooLarge})
	if err != nil {
		return x, err
	}
	if x.State, err = ParseState(state); err != nil {
		return x, err
	}
	if x.Mode, err = toMode(mode); err != nil {
		return x, err
	}
	if x.Existence, err = toEntries(existence); err != nil {
		return x, err
	}
	if x.Deleted, err = toEntries(deleted); err != nil {
		return x, err
	}
	for _, raw := range fields {
		f, err := toFieldExplanation(raw)
		if err != nil {
			return x, err
		}
		x.Fields = append(x.Fields, f)
	}
	for _, raw := range pending {
		p, err := ParsePending(raw)
		if err != nil {
			return x, err
		}
		x.Pending = append(x.Pending, p)
	}
	if tooLarge {
		return x, fmt.Errorf("%w: all there is to say of %q does not fit into one message", engine.ErrTooLarge, x.State.Register)
	}
	return x, nil
}

func toFieldExplanation(raw []byte) (f engine.FieldExplanation, err error) {
	var rule, value json.RawMessage
	var entries []json.RawMessage
	if err := Members(raw, Member{"field", &f.Field}, Member{"rule", &rule}, Member{"value", &value}, Member{"entries", &entries}, Member{"why", &f.Why}); err != nil {
		return f, err
	}
	if f.Rule, err = toRule(rule); err != nil {
		return f, err
	}
	if f.Value, err = ToValue(value); err != nil {
		return f, err
	}
	f.Entries, err = toEntries(entries)
	return f, err
}

func toRule(raw []byte) (engine.CollapseRule, error) {
	var r engine.CollapseRule
	kind := lattice.Latest.String()
	if err := Members(raw, Member{"kind", &kind}, Member{"of", &r.Of}, Member{"ranks", &r.Ranks}); err != nil {
		return r, err
	}
	for i, name := range lattice.RuleNames() {
		if name == kind {
			r.Kind = lattice.RuleKind(i)
			return r, nil
		}
	}
	return r, fmt.Errorf("rule %.60q", kind)
}

func fromEntries(entries []engine.LiveEntry) (out []LiveEntry) {
	for _, e := range entries {
		w := LiveEntry{Dot: e.Dot.String(), Stamp: fromStamp(e.Time), Time: timeOf(e.Time), By: e.By, Value: FromValue(e.Value), Wins: e.Wins}
		if e.Cause != (engine.Cause{}) {
			w.Cause = FromCause(e.Cause)
		}
		if e.Node != (engine.EndpointID{}) {
			w.Node = hex.EncodeToString(e.Node[:])
		}
		out = append(out, w)
	}
	return out
}

func toEntries(raws []json.RawMessage) (out []engine.LiveEntry, err error) {
	for _, raw := range raws {
		var e engine.LiveEntry
		var dot, stamp, node string
		var cause, value json.RawMessage
		err := Members(raw, Member{"dot", &dot}, Member{"stamp", &stamp}, Member{"by", &e.By}, Member{"cause", &cause},
			Member{"node", &node}, Member{"value", &value}, Member{"wins", &e.Wins})
		if err != nil {
			return nil, err
		}
		if e.Dot, err = lattice.ParseDot(dot); err != nil {
			return nil, err
		}
		if e.Time, err = toStamp(stamp); err != nil {
			return nil, err
		}
		if e.Cause, err = ParseCause(cause); err != nil {
			return nil, err
		}
		if node != "" {
			if e.Node, err = toEndpoint(node); err != nil {
				return nil, err
			}
		}
		if e.Value, err = ToValue(value); err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

func toEndpoint(s string) (id engine.EndpointID, err error) {
	n, err := hex.Decode(id[:], []byte(s[:min(len(s), 2*len(id))]))
	if err != nil || n != len(id) || len(s) != 2*n {
		return id, fmt.Errorf("endpoint %.20q", s)
	}
	return id, nil
}
