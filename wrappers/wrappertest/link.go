// Package wrappertest states the contract every wrapper keeps (Run), and holds a Link in memory
// that records what a wrapper did over it.
package wrappertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

// A Call names a method of the Link for Fail and Block.
type Call string

// The calls that can be made to fail or to wait.
const (
	CallDo     Call = "do"
	CallBegin  Call = "begin"
	CallCommit Call = "commit"
	CallSeen   Call = "seen"
	CallSettle Call = "settle"
)

// Via says by which door a candidate came.
type Via string

// The doors.
const (
	ViaDo   Via = "do"   // Do: a virtual wrapper
	ViaWire Via = "wire" // Begin and Commit: a relay
	ViaSeen Via = "seen" // Seen: a feed or a poll
	ViaPush Via = "push" // Push: elsewhere, by the test
)

// A Candidate is one write that became durable.
type Candidate struct {
	Via     Via
	Verb    wrappers.Verb
	Server  string
	Address string
	Payload []byte // the register afterwards; nil if it is gone
	Op      wrappers.Operation
	Version wrappers.Version
}

// An IntentRecord is what became of one Begin.
type IntentRecord struct {
	Op  wrappers.Operation
	As  wrappers.Operation // when committed
	End string             // "open", "commit", "abort", "unknown"
}

// A Settled is one write-back that came to an end.
type Settled struct {
	Change wrappers.Change
	Effect wrappers.Effect
}

// A Tapped is one operation that was shown without concerning a register.
type Tapped struct {
	Op      wrappers.Operation
	Outcome string
}

// A Link is shared state in memory where each address is a register of its own. It keeps the
// promises of wrappers.Link (ownership of addresses, order, baselines, resumption) and records
// every call. It is safe for concurrent use.
type Link struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every event

	mapped   func(verb wrappers.Verb, server, address string) bool
	patterns []wrappers.Pattern
	reload   chan struct{}

	cells   map[place]*cell
	log     []entry
	trimmed int // entries below it are gone
	stopped bool

	candidates []Candidate
	intents    []*IntentRecord
	settled    []Settled
	seen       []wrappers.Observation
	positions  []wrappers.Position
	tapped     []Tapped
	counts     map[string]int
	kept       map[string][]byte
	fail       map[Call][]error
	block      map[Call]chan struct{}
	waiting    map[Call]int
	ticket     uint64
	due        uint64
	listed     map[place]bool // shown by the listing in progress
	asksFirst  bool
}

type place struct{ server, address string }

type cell struct {
	payload  wrappers.Payload
	exists   bool
	rank     int
	version  wrappers.Version
	base     baseline
	held     bool   // an intent or an unsettled change owns the address
	ticket   uint64 // of the unsettled change
	asking   bool   // the unsettled change is a ReadBack
	ask      bool   // the server is to be asked before anything is written
	due      uint64 // order in which write-back is owed; 0: nothing is
	notUntil time.Time
	attempts int
}

type baseline struct {
	known   bool
	gone    bool
	raw     []byte
	version wrappers.Version
}

type entry struct {
	change wrappers.Change
}

// NewLink makes a Link that maps the addresses of the templates: "sensors/{site}/{name}",
// "/v1/{rest...}".
func NewLink(templates ...string) *Link {
	l := &Link{
		changed: make(chan struct{}), reload: make(chan struct{}),
		cells: map[place]*cell{}, counts: map[string]int{}, kept: map[string][]byte{},
		fail: map[Call][]error{}, block: map[Call]chan struct{}{}, waiting: map[Call]int{},
	}
	l.SetPatterns(Patterns(templates...)...)
	return l
}

// Patterns makes patterns of templates, in both directions.
func Patterns(templates ...string) []wrappers.Pattern {
	var ps []wrappers.Pattern
	for i, t := range templates {
		p := wrappers.Pattern{Bind: fmt.Sprintf("bind-%d", i+1), In: true, Out: true, Options: wrappers.Options{}}
		path, suffix, found := strings.Cut(t, "?")
		if found {
			p.Suffix = "?" + suffix
		}
		for s := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
			seg := wrappers.Segment{Kind: wrappers.LiteralSegment, Literal: s}
			if strings.Contains(s, "{") {
				seg = wrappers.Segment{Kind: wrappers.OneSegment}
				if strings.HasSuffix(s, "...}") {
					seg.Kind = wrappers.RestSegments
				}
			}
			p.Segments = append(p.Segments, seg)
		}
		ps = append(ps, p)
	}
	return ps
}

// SetPatterns replaces what is mapped, as a reload does.
func (l *Link) SetPatterns(ps ...wrappers.Pattern) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.patterns = ps
	close(l.reload)
	l.reload = make(chan struct{})
	l.wake()
}

// MapIf replaces the templates' judgement of what is mapped.
func (l *Link) MapIf(f func(verb wrappers.Verb, server, address string) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mapped = f
}

// ReadBackFirst makes WriteBack ask the server for what it has before the first write to an
// address, as the gateway does where no feed runs.
func (l *Link) ReadBackFirst() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asksFirst = true
}

// Maps implements wrappers.Link.
func (l *Link) Maps(verb wrappers.Verb, server, address string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.maps(verb, server, address)
}

func (l *Link) maps(verb wrappers.Verb, server, address string) bool {
	if l.mapped != nil {
		return l.mapped(verb, server, address)
	}
	return l.pattern(server, address) != nil
}

func (l *Link) pattern(server, address string) *wrappers.Pattern {
	for i := range l.patterns {
		p := &l.patterns[i]
		if (p.Server == "" || p.Server == server) && matches(p, address) {
			return p
		}
	}
	return nil
}

func matches(p *wrappers.Pattern, address string) bool {
	path, query, found := strings.Cut(address, "?")
	if found && p.Suffix == "" || !found && p.Suffix != "" {
		return false
	}
	if found && !strings.Contains(p.Suffix, "{") && "?"+query != p.Suffix {
		return false
	}
	rest, more := strings.TrimPrefix(path, "/"), true
	for _, s := range p.Segments {
		if !more {
			return false
		}
		if s.Kind == wrappers.RestSegments {
			return rest != "" && !strings.HasSuffix(rest, "/")
		}
		var seg string
		seg, rest, more = strings.Cut(rest, "/")
		if seg == "" || s.Kind == wrappers.LiteralSegment && seg != s.Literal {
			return false
		}
	}
	return !more
}

// wake tells everyone who waits that something happened; l.mu is held.
func (l *Link) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *Link) cell(server, address string) *cell {
	at := place{server, address}
	c := l.cells[at]
	if c == nil {
		c = &cell{}
		l.cells[at] = c
	}
	return c
}

// enter applies what Fail and Block asked of a call.
func (l *Link) enter(ctx context.Context, call Call) error {
	l.mu.Lock()
	gate := l.block[call]
	if gate != nil {
		l.waiting[call]++
		l.wake()
		l.mu.Unlock()
		var err error
		select {
		case <-gate:
		case <-ctx.Done():
			err = ctx.Err()
		}
		l.mu.Lock()
		l.waiting[call]--
		if err != nil {
			l.mu.Unlock()
			return err
		}
	}
	defer l.mu.Unlock()
	if q := l.fail[call]; len(q) > 0 {
		l.fail[call] = q[1:]
		return q[0]
	}
	return nil
}

// Fail makes the next calls return these errors, one each.
func (l *Link) Fail(call Call, errs ...error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail[call] = append(l.fail[call], errs...)
}

// Block makes calls wait until release is called.
func (l *Link) Block(call Call) (release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	gate := make(chan struct{})
	l.block[call] = gate
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.block[call] == gate {
			delete(l.block, call)
		}
		close(gate)
	})
}

// Waiting tells how many calls Block holds.
func (l *Link) Waiting(call Call) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting[call]
}

// Await waits until cond holds, asking again after every event of the Link.
func (l *Link) Await(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	for {
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		if cond() {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			t.Fatalf("waited 10 s for %s\n%s", what, l)
		}
	}
}

// String lists what was recorded, for failure messages.
func (l *Link) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for _, c := range l.candidates {
		fmt.Fprintf(&b, "candidate %s %s %s%s %.120q\n", c.Via, c.Verb, c.Server, c.Address, c.Payload)
	}
	for _, i := range l.intents {
		fmt.Fprintf(&b, "intent %s %s %s\n", i.Op.Verb, i.Op.Address, i.End)
	}
	for _, s := range l.settled {
		fmt.Fprintf(&b, "settled %s %.120q outcome %d err %v\n", s.Change.Address, s.Change.Payload.Raw, s.Effect.Outcome, s.Effect.Err)
	}
	for _, o := range l.seen {
		fmt.Fprintf(&b, "seen %s %s %.120q\n", o.Verb, o.Address, o.Payload.Raw)
	}
	fmt.Fprintf(&b, "counts %v\n", l.counts)
	return b.String()
}

func clonePayload(p wrappers.Payload) wrappers.Payload {
	p.Raw = bytes.Clone(p.Raw)
	p.Meta = maps.Clone(p.Meta)
	return p
}

func cloneOp(op wrappers.Operation) wrappers.Operation {
	op.Address, op.To, op.Server = strings.Clone(op.Address), strings.Clone(op.To), strings.Clone(op.Server)
	op.Payload = clonePayload(op.Payload)
	op.If.Match, op.If.Differ = slices.Clone(op.If.Match), slices.Clone(op.If.Differ)
	op.Parts = slices.Clone(op.Parts)
	for i := range op.Parts {
		op.Parts[i] = cloneOp(op.Parts[i])
	}
	return op
}

// mergeJSON lays the members of patch over doc, null removing; what is not two objects is replaced.
func mergeJSON(doc, patch []byte) []byte {
	var d, p map[string]json.RawMessage
	if json.Unmarshal(patch, &p) != nil || p == nil {
		return patch
	}
	if json.Unmarshal(doc, &d) != nil || d == nil {
		d = map[string]json.RawMessage{}
	}
	for k, v := range p {
		if string(v) == "null" {
			delete(d, k)
		} else {
			d[k] = v
		}
	}
	out, err := json.Marshal(d)
	if err != nil {
		return patch
	}
	return out
}

// Do implements wrappers.Link.
func (l *Link) Do(ctx context.Context, op wrappers.Operation) (wrappers.Result, error) {
	if err := l.enter(ctx, CallDo); err != nil {
		return wrappers.Result{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	parts := op.Parts
	if parts == nil {
		parts = []wrappers.Operation{op}
	}
	if op.Parts == nil && op.Verb == wrappers.List {
		return l.list(op)
	}
	for i := range parts {
		if err := l.check(&parts[i]); err != nil {
			return wrappers.Result{}, err
		}
	}
	if op.Verb == wrappers.Read && op.Parts == nil {
		c := l.cell(op.Server, op.Address)
		return wrappers.Result{Payload: clonePayload(c.payload), Version: c.version}, nil
	}
	var res wrappers.Result
	for _, p := range parts {
		p = cloneOp(p)
		p.Tag = op.Tag
		r := l.apply(p, ViaDo)
		if len(parts) == 1 {
			res = r
		} else {
			res.Cursor = r.Cursor
		}
	}
	l.wake()
	return res, nil
}

func (l *Link) check(op *wrappers.Operation) error {
	if !l.maps(op.Verb, op.Server, op.Address) {
		return wrappers.Refuse(wrappers.ErrUnmapped, "no bind maps "+op.Address)
	}
	c := l.cells[place{op.Server, op.Address}]
	exists := c != nil && c.exists
	var version wrappers.Version
	if exists {
		version = c.version
	}
	if len(op.If.Match) > 0 && !(exists && (slices.Contains(op.If.Match, wrappers.Any) || slices.Contains(op.If.Match, version))) {
		return wrappers.Refuse(wrappers.ErrConflict, op.Address+" is at version "+string(version))
	}
	if exists && (slices.Contains(op.If.Differ, wrappers.Any) || slices.Contains(op.If.Differ, version)) {
		return wrappers.Refuse(wrappers.ErrConflict, op.Address+" is at version "+string(version))
	}
	switch op.Verb {
	case wrappers.Read, wrappers.Delete, wrappers.Rename:
		if !exists {
			return wrappers.Refuse(wrappers.ErrNotFound, op.Address+" does not exist")
		}
	}
	return nil
}

func (l *Link) list(op wrappers.Operation) (wrappers.Result, error) {
	sep := "/"
	var res wrappers.Result
	prefixes := map[string]bool{}
	var items []wrappers.Item
	for at, c := range l.cells {
		rest, below := strings.CutPrefix(at.address, op.Address)
		if !below || !c.exists || at.server != op.Server || rest == "" {
			continue
		}
		if op.Address == "" {
			rest = strings.TrimPrefix(rest, sep)
		}
		head, _, deeper := strings.Cut(rest, sep)
		if deeper {
			p := at.address[:len(at.address)-len(rest)] + head + sep
			if !prefixes[p] {
				prefixes[p] = true
				items = append(items, wrappers.Item{Address: p, Prefix: true})
			}
			continue
		}
		items = append(items, wrappers.Item{Address: at.address, Version: c.version, Size: len(c.payload.Raw)})
	}
	if len(items) == 0 && !l.someBelow(op.Address) {
		return res, wrappers.Refuse(wrappers.ErrUnmapped, "no bind maps addresses below "+op.Address)
	}
	slices.SortFunc(items, func(a, b wrappers.Item) int { return strings.Compare(a.Address, b.Address) })
	for _, it := range items {
		if op.After != "" && it.Address <= op.After {
			continue
		}
		if op.Limit > 0 && len(res.Items) == op.Limit {
			res.More = true
			break
		}
		res.Items = append(res.Items, it)
	}
	return res, nil
}

// someBelow tells whether a pattern could have addresses below the prefix.
func (l *Link) someBelow(prefix string) bool {
	trimmed := strings.Trim(prefix, "/")
	var want []string
	if trimmed != "" {
		want = strings.Split(trimmed, "/")
	}
	for _, p := range l.patterns {
		fits := true
		for i, w := range want {
			if i >= len(p.Segments) {
				fits = false
				break
			}
			if p.Segments[i].Kind == wrappers.RestSegments {
				break
			}
			if p.Segments[i].Kind == wrappers.LiteralSegment && p.Segments[i].Literal != w {
				fits = false
				break
			}
		}
		if fits && (len(want) < len(p.Segments) || len(p.Segments) > 0 && p.Segments[len(p.Segments)-1].Kind == wrappers.RestSegments) {
			return true
		}
	}
	return false
}

// apply makes a write current and appends it to the log; l.mu is held.
func (l *Link) apply(op wrappers.Operation, via Via) wrappers.Result {
	c := l.cell(op.Server, op.Address)
	created := !c.exists
	switch op.Verb {
	case wrappers.Delete:
		c.exists, c.payload = false, wrappers.Payload{}
	case wrappers.Rename:
		to := l.cell(op.Server, op.To)
		to.exists, to.payload = true, c.payload
		c.exists, c.payload = false, wrappers.Payload{}
		l.commit(op, op.To, to, via)
	case wrappers.Merge, wrappers.Message:
		op.Payload.Raw = mergeJSON(c.payload.Raw, op.Payload.Raw)
		c.exists, c.payload = true, op.Payload
	default:
		c.exists, c.payload = true, op.Payload
	}
	l.commit(op, op.Address, c, via)
	return wrappers.Result{Version: c.version, Cursor: cursorOf(len(l.log)), Created: created && c.exists}
}

func (l *Link) commit(op wrappers.Operation, address string, c *cell, via Via) {
	c.rank++
	h := fnv.New64a()
	h.Write(c.payload.Raw)
	c.version = wrappers.Version(fmt.Sprintf("%d.%016x", c.rank, h.Sum64()))
	var raw []byte
	if c.exists {
		raw = c.payload.Raw
	}
	l.candidates = append(l.candidates, Candidate{Via: via, Verb: op.Verb, Server: op.Server, Address: address, Payload: raw, Op: op, Version: c.version})
	ch := wrappers.Change{Server: op.Server, Address: address, Payload: c.payload, Gone: !c.exists, Version: c.version,
		Cursor: cursorOf(len(l.log) + 1), Echo: via != ViaPush, Tag: op.Tag}
	if p := l.pattern(op.Server, address); p != nil {
		ch.Options = p.Options
	}
	l.log = append(l.log, entry{ch})
	if via == ViaPush {
		l.due++
		c.due = l.due
	}
}

func cursorOf(n int) wrappers.Cursor { return wrappers.Cursor(fmt.Sprintf("log.%08d", n)) }

// Push writes a register as if another wrapper or site had: followers hear of it, and servers
// behind the wrapper are owed it.
func (l *Link) Push(op wrappers.Operation) wrappers.Version {
	l.mu.Lock()
	defer l.mu.Unlock()
	res := l.apply(cloneOp(op), ViaPush)
	l.wake()
	return res.Version
}

// PushPut is Push of a Put at server "".
func (l *Link) PushPut(address, payload string) wrappers.Version {
	return l.Push(wrappers.Operation{Verb: wrappers.Put, Address: address, Payload: wrappers.Payload{Raw: []byte(payload)}})
}

// Baseline says what the server last showed at an address, as after a first contact.
func (l *Link) Baseline(server, address, payload string, version wrappers.Version) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cell(server, address).base = baseline{known: true, raw: []byte(payload), version: version}
}

// Trim forgets the log up to now: older cursors get a snapshot.
func (l *Link) Trim() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trimmed = len(l.log)
}

// Begin implements wrappers.Link.
func (l *Link) Begin(ctx context.Context, op wrappers.Operation) (wrappers.Intent, error) {
	if !l.Maps(op.Verb, op.Server, op.Address) {
		return nil, wrappers.ErrUnmapped
	}
	if err := l.enter(ctx, CallBegin); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		c := l.cell(op.Server, op.Address)
		if !c.held {
			c.held = true
			break
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
			l.mu.Lock()
		case <-ctx.Done():
			l.mu.Lock()
			return nil, ctx.Err()
		}
	}
	rec := &IntentRecord{Op: cloneOp(op), End: "open"}
	l.intents = append(l.intents, rec)
	l.wake()
	return &intent{link: l, rec: rec}, nil
}

type intent struct {
	link *Link
	rec  *IntentRecord
}

// end records how the intent ended; only the first end counts.
func (i *intent) end(how string) bool {
	l := i.link
	if i.rec.End != "open" {
		panic("intent ended twice: " + i.rec.End + ", then " + how)
	}
	i.rec.End = how
	l.cell(i.rec.Op.Server, i.rec.Op.Address).held = false
	l.wake()
	return true
}

func (i *intent) Commit(ctx context.Context, as wrappers.Operation) (wrappers.Result, error) {
	l := i.link
	if err := l.enter(ctx, CallCommit); err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		i.end("unknown")
		return wrappers.Result{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	i.rec.As = cloneOp(as)
	res := l.apply(cloneOp(as), ViaWire)
	c := l.cell(as.Server, as.Address)
	c.base = baseline{known: true, gone: !c.exists, raw: c.payload.Raw, version: as.Version}
	// A former change still owed is older than what the server now has.
	c.due = 0
	i.end("commit")
	return res, nil
}

func (i *intent) Abort() {
	i.link.mu.Lock()
	defer i.link.mu.Unlock()
	i.end("abort")
}

func (i *intent) Unknown() {
	i.link.mu.Lock()
	defer i.link.mu.Unlock()
	if i.link.asksFirst {
		i.link.cell(i.rec.Op.Server, i.rec.Op.Address).ask = true
	}
	i.end("unknown")
}

// Seen implements wrappers.Link.
func (l *Link) Seen(ctx context.Context, at wrappers.Position, what []wrappers.Observation) error {
	if err := l.enter(ctx, CallSeen); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.positions = append(l.positions, at)
	if at.Snapshot != wrappers.NoSnapshot && l.listed == nil {
		l.listed = map[place]bool{}
	}
	for _, o := range what {
		o.Payload = clonePayload(o.Payload)
		o.Address = strings.Clone(o.Address)
		l.seen = append(l.seen, o)
		if !l.maps(o.Verb, o.Server, o.Address) {
			continue
		}
		if l.listed != nil {
			l.listed[place{o.Server, o.Address}] = true
		}
		l.observe(o)
	}
	if at.Snapshot == wrappers.SnapshotEnd {
		for p, c := range l.cells { // what the server lacks is filled
			if c.exists && !l.listed[p] && !c.base.known {
				l.due++
				c.due, c.base = l.due, baseline{known: true, gone: true}
			}
		}
		l.listed = nil
	}
	for _, r := range at.Keep {
		l.keep(r)
	}
	l.wake()
	return nil
}

func (l *Link) observe(o wrappers.Observation) {
	c := l.cell(o.Server, o.Address)
	gone := o.Verb == wrappers.Delete
	raw := o.Payload.Raw
	if o.Verb == wrappers.Merge || o.Verb == wrappers.Message {
		raw = mergeJSON(c.base.raw, raw)
	}
	lacks := gone && !c.base.known // the server never had it: it is to be filled
	same := c.base.known && c.base.gone == gone && (gone || sameBody(c.base.raw, raw))
	c.base = baseline{known: true, gone: gone, raw: raw, version: o.Version}
	if o.Ours || same && !o.Wire || lacks || gone && !c.exists {
		return
	}
	l.apply(wrappers.Operation{Verb: o.Verb, Server: o.Server, Address: o.Address, Payload: o.Payload, Who: o.Who, Tag: o.Tag}, ViaSeen)
}

// sameBody: equal bytes, or JSON that says the same.
func sameBody(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	p, err1 := json.Marshal(x)
	q, err2 := json.Marshal(y)
	return err1 == nil && err2 == nil && bytes.Equal(p, q)
}

var errStopped = errors.New("the wrapper is being stopped")

// Stop ends all Follows.
func (l *Link) Stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	l.wake()
}

// Follow implements wrappers.Link.
func (l *Link) Follow(ctx context.Context, mode wrappers.FollowMode, from wrappers.Cursor) iter.Seq2[wrappers.Change, error] {
	if mode == wrappers.WriteBack {
		return l.writeBack(ctx)
	}
	l.mu.Lock()
	next, snapshot := len(l.log), false
	if from != "" {
		if _, err := fmt.Sscanf(string(from), "log.%d", &next); err != nil || next < l.trimmed || next > len(l.log) {
			next, snapshot = len(l.log), true
		}
	}
	var state []wrappers.Change
	if snapshot {
		for at, c := range l.cells {
			if c.exists {
				state = append(state, wrappers.Change{Server: at.server, Address: at.address, Payload: c.payload, Version: c.version, Cursor: cursorOf(next), Snapshot: true})
			}
		}
		slices.SortFunc(state, func(a, b wrappers.Change) int { return strings.Compare(a.Address, b.Address) })
	}
	l.mu.Unlock()
	return func(yield func(wrappers.Change, error) bool) {
		for _, c := range state {
			if !yield(c, nil) {
				return
			}
		}
		for {
			l.mu.Lock()
			changed, stopped := l.changed, l.stopped
			var c *wrappers.Change
			if next < len(l.log) {
				c = &l.log[next].change
				next++
			}
			l.mu.Unlock()
			switch {
			case ctx.Err() != nil:
				yield(wrappers.Change{}, ctx.Err())
				return
			case stopped:
				yield(wrappers.Change{}, errStopped)
				return
			case c != nil:
				if !yield(*c, nil) {
					return
				}
				continue
			}
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}
}

func (l *Link) writeBack(ctx context.Context) iter.Seq2[wrappers.Change, error] {
	return func(yield func(wrappers.Change, error) bool) {
		l.mu.Lock()
		for _, c := range l.cells { // what an earlier Follow left unsettled is owed again
			if c.ticket != 0 {
				l.due++
				c.held, c.ticket, c.due, c.ask, c.asking = false, 0, l.due, c.asking, false
			}
		}
		l.mu.Unlock()
		for {
			l.mu.Lock()
			changed, stopped := l.changed, l.stopped
			ch, wait := l.nextDue()
			l.mu.Unlock()
			switch {
			case ctx.Err() != nil:
				yield(wrappers.Change{}, ctx.Err())
				return
			case stopped:
				yield(wrappers.Change{}, errStopped)
				return
			case ch != nil:
				if !yield(*ch, nil) {
					return
				}
				continue
			}
			var after <-chan time.Time
			if wait > 0 {
				after = time.After(wait)
			}
			select {
			case <-changed:
			case <-after:
			case <-ctx.Done():
			}
		}
	}
}

// nextDue takes the oldest change owed to a server whose address is free; l.mu is held.
func (l *Link) nextDue() (*wrappers.Change, time.Duration) {
	var at place
	var best *cell
	var wait time.Duration
	for p, c := range l.cells {
		if c.due == 0 && !c.ask || c.held || best != nil && !c.ask && (best.ask || best.due < c.due) || !l.maps(wrappers.Put, p.server, p.address) {
			continue
		}
		if d := time.Until(c.notUntil); d > 0 {
			if wait == 0 || d < wait {
				wait = d
			}
			continue
		}
		if c.ask {
			at, best = p, c
			continue
		}
		if c.base.known && c.base.gone == !c.exists && (c.base.gone || sameBody(c.base.raw, c.payload.Raw)) {
			c.due = 0
			continue
		}
		at, best = p, c
	}
	if best == nil {
		return nil, wait
	}
	l.ticket++
	best.held, best.ticket = true, l.ticket
	if best.ask || l.asksFirst && !best.base.known {
		best.asking, best.ask = true, false
		return &wrappers.Change{Server: at.server, Address: at.address, Cursor: cursorOf(len(l.log)), ReadBack: true, Ticket: l.ticket}, 0
	}
	best.due = 0
	ch := &wrappers.Change{Server: at.server, Address: at.address, Payload: clonePayload(best.payload), Gone: !best.exists,
		Version: best.version, Previous: best.base.version, Cursor: cursorOf(len(l.log)), Create: !best.base.known || best.base.gone, Ticket: l.ticket}
	if p := l.pattern(at.server, at.address); p != nil {
		ch.Options = p.Options
	}
	return ch, 0
}

// Settle implements wrappers.Link.
func (l *Link) Settle(ctx context.Context, c wrappers.Change, e wrappers.Effect) error {
	if err := l.enter(ctx, CallSettle); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.Ticket == 0 {
		return errors.New("settle: the change has no ticket")
	}
	cl := l.cell(c.Server, c.Address)
	if cl.ticket != c.Ticket {
		return errors.New("settle: not an unsettled change")
	}
	asked := cl.asking
	cl.held, cl.ticket, cl.asking = false, 0, false
	if asked {
		if e.Outcome == wrappers.Done && !cl.base.known {
			return errors.New("settle: a read-back is done only when Seen has said what the server has")
		}
		cl.ask = e.Outcome == wrappers.Retry
		cl.notUntil = time.Now().Add(time.Millisecond)
		l.wake()
		return nil
	}
	l.settled = append(l.settled, Settled{c, e})
	switch e.Outcome {
	case wrappers.Done:
		raw := c.Payload.Raw
		if e.AsStored != nil {
			raw = bytes.Clone(e.AsStored.Raw)
		}
		cl.base = baseline{known: true, gone: c.Gone, raw: raw, version: e.Version}
		cl.attempts = 0
	case wrappers.Retry:
		cl.attempts++
		cl.notUntil = time.Now().Add(min(time.Millisecond<<min(cl.attempts, 10), 200*time.Millisecond))
		if cl.due == 0 {
			l.due++
			cl.due = l.due
		}
	}
	l.wake()
	return nil
}

// Patterns implements wrappers.Link.
func (l *Link) Patterns() ([]wrappers.Pattern, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.patterns), l.reload
}

func (l *Link) keep(r wrappers.Record) {
	if r.Value == nil {
		delete(l.kept, r.Key)
	} else {
		l.kept[r.Key] = bytes.Clone(r.Value)
	}
}

// Keep implements wrappers.Link.
func (l *Link) Keep(_ context.Context, records ...wrappers.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range records {
		l.keep(r)
	}
	l.wake()
	return nil
}

// Kept implements wrappers.Link.
func (l *Link) Kept(_ context.Context, prefix string) iter.Seq2[wrappers.Record, error] {
	return func(yield func(wrappers.Record, error) bool) {
		l.mu.Lock()
		kept := maps.Clone(l.kept)
		l.mu.Unlock()
		for _, k := range slices.Sorted(maps.Keys(kept)) {
			if strings.HasPrefix(k, prefix) && !yield(wrappers.Record{Key: k, Value: kept[k]}, nil) {
				return
			}
		}
	}
}

// Tap implements wrappers.Link.
func (l *Link) Tap(op wrappers.Operation, outcome string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tapped = append(l.tapped, Tapped{cloneOp(op), outcome})
	l.wake()
}

// Count implements wrappers.Link.
func (l *Link) Count(event string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[event] += n
	l.wake()
}

// Counted gives a counter.
func (l *Link) Counted(event string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts[event]
}

// Candidates gives every write that became durable, in order; those of vias only, if named.
func (l *Link) Candidates(vias ...Via) []Candidate {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Candidate
	for _, c := range l.candidates {
		if len(vias) == 0 || slices.Contains(vias, c.Via) {
			out = append(out, c)
		}
	}
	return out
}

// Intents gives what became of every Begin that succeeded, in order.
func (l *Link) Intents() []IntentRecord {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []IntentRecord
	for _, i := range l.intents {
		out = append(out, *i)
	}
	return out
}

// Settlements gives every Settle of a write, in order; those of read-backs are left out.
func (l *Link) Settlements() []Settled {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.settled)
}

// Observations gives everything that Seen was told.
func (l *Link) Observations() []wrappers.Observation {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.seen)
}

// Positions gives the position of every call of Seen.
func (l *Link) Positions() []wrappers.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.positions)
}

// Taps gives what Tap was shown.
func (l *Link) Taps() []Tapped {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.tapped)
}

// Register gives the state at an address; false if it doesn't exist.
func (l *Link) Register(server, address string) ([]byte, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.cells[place{server, address}]
	if c == nil || !c.exists {
		return nil, false
	}
	return bytes.Clone(c.payload.Raw), true
}
