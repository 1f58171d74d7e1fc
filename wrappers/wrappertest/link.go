// Package wrappertest states the contract every wrapper keeps (Run), and holds a Link in memory
// that records what a wrapper did over it.
package wrappertest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

// A Link is shared state in memory where each address is a register of its own. It keeps the
// promises of wrappers.Link (ownership of addresses, order, baselines, resumption) and records
// every call. It is safe for concurrent use.
type Link struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every event

	mapped   func(verb wrappers.Verb, server, address string) bool
	refused  func(verb wrappers.Verb, address string, who wrappers.Who) bool
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
	recording  atomic.Bool
	counts     map[string]int
	troubles   map[string]string
	kept       map[string][]byte
	fail       map[Call][]error
	block      map[Call]chan struct{}
	waiting    map[Call]int
	started    map[place]chan struct{} // the last Start at each place
	ticket     uint64
	due        uint64
	listed     map[place]bool // shown by the listing in progress
	asksFirst  bool
	onto       func(doc, pay wrappers.Payload) (wrappers.Payload, error)
	syntax     wrappers.Syntax
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
	return NewLinkOf(wrappers.Syntax{Separator: "/"}, templates...)
}

// NewLinkOf is NewLink for a protocol whose addresses are of another form. Of a syntax it knows Separator, Fold,
// Upward and Entries; templates are canonical.
func NewLinkOf(syntax wrappers.Syntax, templates ...string) *Link {
	l := &Link{
		syntax:  syntax,
		changed: make(chan struct{}), reload: make(chan struct{}),
		cells: map[place]*cell{}, counts: map[string]int{}, kept: map[string][]byte{},
		fail: map[Call][]error{}, block: map[Call]chan struct{}{}, waiting: map[Call]int{}, started: map[place]chan struct{}{},
	}
	l.SetPatterns(patterns(syntax.Separator, templates)...)
	return l
}

// Patterns makes patterns of templates, in both directions.
func Patterns(templates ...string) []wrappers.Pattern { return patterns("/", templates) }

func patterns(separator string, templates []string) []wrappers.Pattern {
	var ps []wrappers.Pattern
	for i, t := range templates {
		p := wrappers.Pattern{Bind: fmt.Sprintf("bind-%d", i+1), In: true, Out: true, Options: wrappers.Options{}}
		path, suffix, found := strings.Cut(t, "?")
		if found {
			p.Suffix = "?" + suffix
		}
		for s := range strings.SplitSeq(strings.TrimPrefix(path, separator), separator) {
			seg := wrappers.Segment{Kind: wrappers.LiteralSegment, Literal: s}
			if before, _, captures := strings.Cut(s, "{"); captures {
				seg = wrappers.Segment{Kind: wrappers.OneSegment}
				if separator != "/" {
					seg.Literal = before // what matches must begin with it
				}
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

// RefuseIf makes the link deny what f says.
func (l *Link) RefuseIf(f func(verb wrappers.Verb, address string, who wrappers.Who) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused = f
}

// May implements wrappers.Link.
func (l *Link) May(verb wrappers.Verb, _, address string, who wrappers.Who) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.may(verb, address, who)
}

func (l *Link) may(verb wrappers.Verb, address string, who wrappers.Who) error {
	if l.refused != nil && l.refused(verb, address, who) {
		return wrappers.Refuse(wrappers.ErrDenied, fmt.Sprintf("%q may not %s %s", who.Principal, verb, address))
	}
	return nil
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
	if verb == wrappers.List && l.syntax.Upward {
		return l.someAbove(address)
	}
	return l.pattern(server, address) != nil
}

func (l *Link) pattern(server, address string) *wrappers.Pattern {
	for i := range l.patterns {
		p := &l.patterns[i]
		if (p.Server == "" || p.Server == server) && l.matches(p, address) {
			return p
		}
	}
	return nil
}

func (l *Link) matches(p *wrappers.Pattern, address string) bool {
	sep := l.syntax.Separator
	path, query, found := strings.Cut(address, "?")
	if found && p.Suffix == "" || !found && p.Suffix != "" {
		return false
	}
	if found && !strings.Contains(p.Suffix, "{") && "?"+query != p.Suffix {
		return false
	}
	if !strings.Contains(p.Suffix, "?") && sep != "/" {
		path = address
	}
	rest, more := strings.TrimPrefix(path, sep), true
	for _, s := range p.Segments {
		if !more {
			return false
		}
		if s.Kind == wrappers.RestSegments {
			return rest != "" && !strings.HasSuffix(rest, sep)
		}
		var seg string
		seg, rest, more = strings.Cut(rest, sep)
		switch {
		case seg == "", s.Kind == wrappers.LiteralSegment && !l.same(seg, s.Literal):
			return false
		case s.Kind == wrappers.OneSegment && (len(seg) <= len(s.Literal) || !l.same(seg[:len(s.Literal)], s.Literal)):
			return false
		}
	}
	return !more
}

// same compares literal text.
func (l *Link) same(a, b string) bool { return a == b || l.syntax.Fold && strings.EqualFold(a, b) }

// someAbove is someBelow where addresses begin with what is deepest.
func (l *Link) someAbove(prefix string) bool {
	sep := l.syntax.Separator
	var want []string
	if prefix != "" {
		want = strings.Split(strings.TrimSuffix(prefix, sep), sep)
	}
	for i := range l.patterns {
		segs := l.patterns[i].Segments
		fits := true
		for k := range want {
			at := len(segs) - 1 - k
			if at >= 0 && segs[at].Kind == wrappers.RestSegments {
				break
			}
			text := want[len(want)-1-k]
			if at < 1 || segs[at].Kind == wrappers.LiteralSegment && !l.same(text, segs[at].Literal) {
				fits = false
				break
			}
		}
		if fits && len(segs) > 0 {
			return true
		}
	}
	return false
}

// below tells whether an address stands below a prefix.
func (l *Link) below(address, prefix string) bool {
	if l.syntax.Upward && prefix != "" {
		prefix = l.syntax.Separator + strings.TrimSuffix(prefix, l.syntax.Separator)
		return len(address) > len(prefix) && l.same(address[len(address)-len(prefix):], prefix)
	}
	return strings.HasPrefix(address, prefix)
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

// Patterns implements wrappers.Link.
func (l *Link) Patterns() ([]wrappers.Pattern, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.patterns), l.reload
}
