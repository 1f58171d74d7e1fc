package wire

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// The forms below are the engine's vocabulary in JSON. Ids, cursors and stamps are text, as they
// hold more than 53 bits; values are as lattice.AppendTagged writes them.

// A State is an engine.StateBlock.
type State struct {
	Register string          `json:"register"`
	Exists   bool            `json:"exists"`
	Value    json.RawMessage `json:"value,omitempty"`
	ID       string          `json:"id,omitempty"` // "" if never written
	Ordinal  uint64          `json:"ordinal,omitempty"`
	Stamp    string          `json:"stamp,omitempty"`
	Time     string          `json:"time,omitempty"` // of the stamp, for people
	Seen     []Seen          `json:"seen,omitempty"`
	// Siblings and Provisional are names of fields; Waiting counts candidates that Value is without.
	Siblings    []string `json:"siblings,omitempty"`
	Provisional []string `json:"provisional,omitempty"`
	Waiting     int      `json:"waiting,omitempty"`
	Opaque      bool     `json:"opaque,omitempty"`
	Incoming    bool     `json:"incoming,omitempty"`
	// TooLarge, in lists only: the value did not fit and is left out.
	TooLarge bool `json:"tooLarge,omitempty"`
}

// Seen are the live entries behind one field.
type Seen struct {
	Field     string   `json:"field,omitempty"`
	Existence bool     `json:"existence,omitempty"` // of the register itself; then Field is ""
	Dots      []string `json:"dots"`
}

// A Change is one field of a Delta.
type Change struct {
	Field  string          `json:"field"`
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
}

// A Delta is an engine.QDelta.
type Delta struct {
	Cursor   string   `json:"cursor"`
	Part     int      `json:"part"`
	Of       int      `json:"of"`
	Before   string   `json:"before,omitempty"`
	After    State    `json:"after"`
	Changed  []Change `json:"changed,omitempty"`
	Created  bool     `json:"created,omitempty"`
	Deleted  bool     `json:"deleted,omitempty"`
	Dot      string   `json:"dot,omitempty"`
	Cause    *Cause   `json:"cause,omitempty"`
	Snapshot bool     `json:"snapshot,omitempty"`
	Pending  bool     `json:"pending,omitempty"` // it waits to be collapsed; after is what was there before
	// TooLarge: the values did not fit into one message and are left out; readState or history of
	// a part may still show them.
	TooLarge bool `json:"tooLarge,omitempty"`
}

// A Cause is an engine.Cause.
type Cause struct {
	Principal string `json:"principal,omitempty"`
	Verified  bool   `json:"verified,omitempty"`
	Protocol  string `json:"protocol,omitempty"`
	Wrapper   string `json:"wrapper,omitempty"`
	Peer      string `json:"peer,omitempty"`
	Verb      string `json:"verb,omitempty"`
	Server    string `json:"server,omitempty"`
	Address   string `json:"address,omitempty"`
	Source    string `json:"source,omitempty"`
	// RenamedFrom is the register whose values moved here.
	RenamedFrom string `json:"renamed_from,omitempty"`
}

// A Write is an engine.Write without what belongs to the process that hosts the engine.
type Write struct {
	Ops []Op           `json:"ops"`
	If  []Precondition `json:"if,omitempty"`
	By  *Cause         `json:"by,omitempty"`
}

// An Op is an engine.Op; Kind is put, remove, only, delete or add.
type Op struct {
	Register string          `json:"register"`
	Kind     string          `json:"kind"`
	Field    string          `json:"field,omitempty"`
	Value    json.RawMessage `json:"value,omitempty"`
	Fields   []string        `json:"fields,omitempty"`
}

// A Precondition is an engine.Precondition.
type Precondition struct {
	Register string   `json:"register"`
	Match    []string `json:"match,omitempty"`
	Differ   []string `json:"differ,omitempty"`
	Exists   *bool    `json:"exists,omitempty"`
}

// A Receipt is an engine.Receipt.
type Receipt struct {
	Dot    string  `json:"dot,omitempty"`
	Cursor string  `json:"cursor"`
	Stamp  string  `json:"stamp,omitempty"`
	States []State `json:"states"`
	// Created are the registers that did not exist before.
	Created []string `json:"created,omitempty"`
}

// An EngineStatus is an engine.Status.
type EngineStatus struct {
	Endpoint    string    `json:"endpoint"`
	Incarnation string    `json:"incarnation"`
	Cursor      string    `json:"cursor"`
	Registers   uint64    `json:"registers"`
	Candidates  uint64    `json:"candidates"`
	Observers   int       `json:"observers"`
	DiskBytes   uint64    `json:"disk_bytes"`
	FreeBytes   uint64    `json:"free_bytes"`
	Full        bool      `json:"full"`
	Fsyncs      uint64    `json:"fsyncs"`
	Started     time.Time `json:"started"`
	Root        string    `json:"root,omitempty"` // equal wherever the same candidates are known
	Pending     uint64    `json:"pending"`        // registers with candidates that wait
	Held        uint64    `json:"held"`           // candidates that wait for what they depend on
	Floor       uint64    `json:"floor"`          // ordinal below which the log was trimmed
	Findings    []Finding `json:"findings,omitempty"`
}

// A Finding is an engine.Finding.
type Finding struct {
	Code    string    `json:"code"`
	Subject string    `json:"subject,omitempty"`
	Text    string    `json:"text"`
	Since   time.Time `json:"since"`
}

// FromValue gives a value's JSON, nil for an absent one.
func FromValue(v engine.Value) json.RawMessage {
	if v.IsAbsent() {
		return nil
	}
	return v.AppendTagged(nil)
}

// ToValue reads a value's JSON; none is an absent value.
func ToValue(raw json.RawMessage) (engine.Value, error) {
	if len(raw) == 0 {
		return engine.Value{}, nil
	}
	return lattice.ParseTagged(raw)
}

func fromStamp(s engine.Stamp) string {
	if s == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(s), 10)
}

func toStamp(s string) (engine.Stamp, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return engine.Stamp(n), err
}

// timeOf is a stamp's time for people.
func timeOf(s engine.Stamp) string {
	if s == 0 {
		return ""
	}
	return s.Time().Format("2006-01-02T15:04:05.000Z07:00")
}

func fromStateID(id engine.StateID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

func toStateID(s string) (engine.StateID, error) {
	if s == "" {
		return engine.StateID{}, nil
	}
	return lattice.ParseStateID(s)
}

// FromState gives a StateBlock's form.
func FromState(b engine.StateBlock) State {
	s := State{
		Register: b.Register, Exists: b.Exists, Value: FromValue(b.Value),
		ID: fromStateID(b.ID), Ordinal: b.Ordinal, Stamp: fromStamp(b.Time), Time: timeOf(b.Time),
		Siblings: b.Siblings, Provisional: b.Provisional, Waiting: b.Waiting, Opaque: b.Opaque, Incoming: b.Incoming,
	}
	for _, f := range b.Dots {
		one := Seen{Field: f.Field, Dots: make([]string, len(f.Dots))}
		if f.Field == engine.Existence {
			one.Field, one.Existence = "", true
		}
		for i, d := range f.Dots {
			one.Dots[i] = d.String()
		}
		s.Seen = append(s.Seen, one)
	}
	return s
}

// ParseState reads a StateBlock's form. For one whose value was left out it gives the rest and an
// error that is engine.ErrTooLarge.
func ParseState(raw []byte) (engine.StateBlock, error) {
	var (
		b         engine.StateBlock
		value     json.RawMessage
		id, stamp string
		seen      []json.RawMessage
		tooLarge  bool
	)
	err := Members(raw,
		Member{"register", &b.Register}, Member{"exists", &b.Exists}, Member{"value", &value}, Member{"id", &id},
		Member{"ordinal", &b.Ordinal}, Member{"stamp", &stamp}, Member{"seen", &seen}, Member{"tooLarge", &tooLarge},
		Member{"siblings", &b.Siblings}, Member{"provisional", &b.Provisional}, Member{"waiting", &b.Waiting},
		Member{"opaque", &b.Opaque}, Member{"incoming", &b.Incoming})
	if err != nil {
		return b, err
	}
	if b.Value, err = ToValue(value); err != nil {
		return b, err
	}
	if b.ID, err = toStateID(id); err != nil {
		return b, err
	}
	if b.Time, err = toStamp(stamp); err != nil {
		return b, err
	}
	for _, s := range seen {
		var f engine.FieldDots
		var existence bool
		var dots []string
		if err := Members(s, Member{"field", &f.Field}, Member{"existence", &existence}, Member{"dots", &dots}); err != nil {
			return b, err
		}
		if existence {
			f.Field = engine.Existence
		}
		for _, d := range dots {
			dot, err := lattice.ParseDot(d)
			if err != nil {
				return b, err
			}
			f.Dots = append(f.Dots, dot)
		}
		b.Dots = append(b.Dots, f)
	}
	if tooLarge {
		return b, fmt.Errorf("%w: the state of %q does not fit into one message", engine.ErrTooLarge, b.Register)
	}
	return b, nil
}

// FromDelta gives a QDelta's form.
func FromDelta(d engine.QDelta) Delta {
	w := Delta{
		Cursor: d.Cursor.String(), Part: d.Part, Of: d.Of, Before: fromStateID(d.Before), After: FromState(d.After),
		Created: d.Created, Deleted: d.Deleted, Dot: d.Dot.String(), Snapshot: d.Snapshot,
		Pending: d.Pending, Changed: fromChanges(d.Changed),
	}
	if d.Cause != (engine.Cause{}) {
		w.Cause = FromCause(d.Cause)
	}
	return w
}

func fromChanges(changed []engine.FieldChange) (out []Change) {
	for _, c := range changed {
		out = append(out, Change{c.Field, FromValue(c.Before), FromValue(c.After)})
	}
	return out
}

func toChanges(raws []json.RawMessage) (out []engine.FieldChange, err error) {
	for _, raw := range raws {
		var c engine.FieldChange
		var before, after json.RawMessage
		if err := Members(raw, Member{"field", &c.Field}, Member{"before", &before}, Member{"after", &after}); err != nil {
			return nil, err
		}
		if c.Before, err = ToValue(before); err != nil {
			return nil, err
		}
		if c.After, err = ToValue(after); err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// WithoutValues leaves out what makes a delta large.
func (d Delta) WithoutValues() Delta {
	d.TooLarge, d.Changed, d.After.Value, d.After.Seen = true, nil, nil, nil
	return d
}

// ParseDelta reads a QDelta's form. For one whose values were left out it gives the rest and an
// error that is engine.ErrTooLarge.
func ParseDelta(raw []byte) (engine.QDelta, error) {
	var (
		d                   engine.QDelta
		cursor, before, dot string
		after, cause        json.RawMessage
		changed             []json.RawMessage
		tooLarge            bool
	)
	err := Members(raw,
		Member{"cursor", &cursor}, Member{"part", &d.Part}, Member{"of", &d.Of}, Member{"before", &before},
		Member{"after", &after}, Member{"changed", &changed}, Member{"created", &d.Created}, Member{"deleted", &d.Deleted},
		Member{"dot", &dot}, Member{"cause", &cause}, Member{"snapshot", &d.Snapshot}, Member{"pending", &d.Pending}, Member{"tooLarge", &tooLarge})
	if err != nil {
		return d, err
	}
	if d.Cursor, err = engine.ParseCursor(cursor); err != nil {
		return d, err
	}
	if d.Before, err = toStateID(before); err != nil {
		return d, err
	}
	if d.After, err = ParseState(after); err != nil {
		return d, err
	}
	if d.Dot, err = lattice.ParseDot(dot); err != nil {
		return d, err
	}
	if d.Cause, err = ParseCause(cause); err != nil {
		return d, err
	}
	if d.Changed, err = toChanges(changed); err != nil {
		return d, err
	}
	if tooLarge {
		return d, fmt.Errorf("%w: the state of %q does not fit into one message", engine.ErrTooLarge, d.After.Register)
	}
	return d, nil
}

// FromCause gives a Cause's form.
func FromCause(c engine.Cause) *Cause { w := Cause(c); return &w }

// ParseCause reads a Cause's form; none is the zero Cause.
func ParseCause(raw []byte) (engine.Cause, error) {
	var c engine.Cause
	err := Members(raw,
		Member{"principal", &c.Principal}, Member{"verified", &c.Verified}, Member{"protocol", &c.Protocol},
		Member{"wrapper", &c.Wrapper}, Member{"peer", &c.Peer}, Member{"verb", &c.Verb}, Member{"server", &c.Server},
		Member{"address", &c.Address}, Member{"source", &c.Source}, Member{"renamed_from", &c.RenamedFrom})
	return c, err
}

var opKinds = map[string]engine.OpKind{
	"put": engine.OpPut, "remove": engine.OpRemove, "only": engine.OpOnly, "delete": engine.OpDelete, "add": engine.OpAdd,
}

// FromWrite gives a Write's form. What belongs to the process that hosts the engine (Tag, Keep and Bulk;
// of an op Base, Last, Meter and OpRestore) can't travel: engine.ErrInvalid.
func FromWrite(w engine.Write) (Write, error) {
	out := Write{Ops: make([]Op, len(w.Ops))}
	if w.Tag != 0 || len(w.Keep) > 0 || w.KeepWith != nil || w.Bulk {
		return out, fmt.Errorf("%w: Tag, Keep and Bulk are for the process that hosts the engine", engine.ErrInvalid)
	}
	for i, op := range w.Ops {
		if op.Base || op.Meter || !op.Last.IsAbsent() || op.Kind == engine.OpRestore {
			return out, fmt.Errorf("%w: Base, Last, Meter and OpRestore are for the process that hosts the engine", engine.ErrInvalid)
		}
		o := Op{Register: op.Register, Field: op.Field, Value: FromValue(op.Value), Fields: op.Fields}
		for name, k := range opKinds {
			if k == op.Kind {
				o.Kind = name
			}
		}
		out.Ops[i] = o
	}
	for _, p := range w.If {
		f := Precondition{Register: p.Register, Exists: p.Exists}
		for _, id := range p.Match {
			f.Match = append(f.Match, id.String())
		}
		for _, id := range p.Differ {
			f.Differ = append(f.Differ, id.String())
		}
		out.If = append(out.If, f)
	}
	if w.By != (engine.Cause{}) {
		out.By = FromCause(w.By)
	}
	return out, nil
}

// ParseWrite reads a Write's form. Errors are engine.ErrInvalid.
func ParseWrite(raw []byte) (engine.Write, error) {
	w, err := parseWrite(raw)
	if err != nil {
		return engine.Write{}, fmt.Errorf("%w: %w", engine.ErrInvalid, err)
	}
	return w, nil
}

func parseWrite(raw []byte) (w engine.Write, err error) {
	var ops, ifs []json.RawMessage
	var by json.RawMessage
	if err := Members(raw, Member{"ops", &ops}, Member{"if", &ifs}, Member{"by", &by}); err != nil {
		return w, err
	}
	for _, raw := range ops {
		var op engine.Op
		var kind string
		var value json.RawMessage
		err := Members(raw, Member{"register", &op.Register}, Member{"kind", &kind}, Member{"field", &op.Field},
			Member{"value", &value}, Member{"fields", &op.Fields})
		if err != nil {
			return w, err
		}
		if op.Kind = opKinds[kind]; op.Kind == 0 {
			return w, fmt.Errorf("op kind %q is none of put, remove, only, delete, add", kind)
		}
		if op.Value, err = ToValue(value); err != nil {
			return w, err
		}
		w.Ops = append(w.Ops, op)
	}
	for _, raw := range ifs {
		var p engine.Precondition
		var match, differ []string
		if err := Members(raw, Member{"register", &p.Register}, Member{"match", &match}, Member{"differ", &differ}, Member{"exists", &p.Exists}); err != nil {
			return w, err
		}
		if p.Match, err = stateIDs(match); err != nil {
			return w, err
		}
		if p.Differ, err = stateIDs(differ); err != nil {
			return w, err
		}
		w.If = append(w.If, p)
	}
	w.By, err = ParseCause(by)
	return w, err
}

func stateIDs(texts []string) (out []engine.StateID, err error) {
	for _, t := range texts {
		id, err := lattice.ParseStateID(t)
		if err != nil {
			return nil, err
		}
		out = append(out, id)
	}
	return out, nil
}

// FromReceipt gives a Receipt's form.
func FromReceipt(r engine.Receipt) Receipt {
	out := Receipt{Dot: r.Dot.String(), Cursor: r.Cursor.String(), Stamp: fromStamp(r.Time), States: make([]State, len(r.States)), Created: r.Created}
	for i, s := range r.States {
		out.States[i] = FromState(s)
	}
	return out
}

// WithoutValues leaves out what makes a receipt large: the write is done, and has to be confirmed.
func (r Receipt) WithoutValues() Receipt {
	states := make([]State, len(r.States))
	for i, s := range r.States {
		s.Value, s.Seen = nil, nil
		states[i] = s
	}
	r.States = states
	return r
}

// ParseReceipt reads a Receipt's form.
func ParseReceipt(raw []byte) (r engine.Receipt, err error) {
	var dot, cursor, stamp string
	var states []json.RawMessage
	if err := Members(raw, Member{"dot", &dot}, Member{"cursor", &cursor}, Member{"stamp", &stamp}, Member{"states", &states}, Member{"created", &r.Created}); err != nil {
		return r, err
	}
	if r.Dot, err = lattice.ParseDot(dot); err != nil {
		return r, err
	}
	if r.Cursor, err = engine.ParseCursor(cursor); err != nil {
		return r, err
	}
	if r.Time, err = toStamp(stamp); err != nil {
		return r, err
	}
	for _, raw := range states {
		s, err := ParseState(raw)
		if err != nil {
			return r, err
		}
		r.States = append(r.States, s)
	}
	return r, nil
}

// FromStatus gives a Status's form.
func FromStatus(s engine.Status) EngineStatus {
	w := EngineStatus{
		Endpoint: hex.EncodeToString(s.Endpoint[:]), Incarnation: s.Incarnation, Cursor: s.Cursor.String(),
		Registers: s.Registers, Candidates: s.Candidates, Observers: s.Observers, DiskBytes: s.DiskBytes,
		FreeBytes: s.FreeBytes, Full: s.Full, Fsyncs: s.Fsyncs, Started: s.Started,
		Root: s.Root, Pending: s.Pending, Held: s.Held, Floor: s.Floor,
	}
	for _, f := range s.Findings {
		w.Findings = append(w.Findings, Finding(f))
	}
	return w
}

// ToStatus reads a Status's form.
func ToStatus(w EngineStatus) (engine.Status, error) {
	s := engine.Status{
		Incarnation: w.Incarnation, Registers: w.Registers, Candidates: w.Candidates, Observers: w.Observers,
		DiskBytes: w.DiskBytes, FreeBytes: w.FreeBytes, Full: w.Full, Fsyncs: w.Fsyncs, Started: w.Started,
		Root: w.Root, Pending: w.Pending, Held: w.Held, Floor: w.Floor,
	}
	for _, f := range w.Findings {
		s.Findings = append(s.Findings, engine.Finding(f))
	}
	n, err := hex.Decode(s.Endpoint[:], []byte(w.Endpoint[:min(len(w.Endpoint), 2*len(s.Endpoint))]))
	if err != nil || n != len(s.Endpoint) {
		return s, fmt.Errorf("endpoint %.20q", w.Endpoint)
	}
	s.Cursor, err = engine.ParseCursor(w.Cursor)
	return s, err
}
