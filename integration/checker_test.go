package integration

import (
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"
	"sync"
)

// What several sites were told and what they showed, written down as it happened, so that it can be held against what must
// never be: that something acknowledged is lost, that something deleted comes back, that an effect is shown without its
// cause, that a batch is shown in part.

// A siteWrite is one write to one or more registers, all of which get the same value, which no other write has.
type siteWrite struct {
	n         int // 1, 2, 3, …: the value
	site      int
	registers []string
	deletes   bool
}

// A siteLook is what one site showed at one moment, by register: the values of the writes.
type siteLook struct {
	site   int
	prefix string // of the names that were looked at
	shown  map[string]int
	// final: everybody had rested, so everything that was acknowledged anywhere is to be there.
	final bool
}

// A siteEvent is the beginning or the end of a write or of a look.
type siteEvent struct {
	write *siteWrite
	look  *siteLook
	end   bool // of a write: it was acknowledged
}

// A siteBook is written by those who write and look, in the order in which it happens.
type siteBook struct {
	mu     sync.Mutex
	writes []*siteWrite
	events []siteEvent
}

// begins notes that a write is about to be made. Whether it is acknowledged, acked says; one that is not may have been made.
func (b *siteBook) begins(site int, deletes bool, registers ...string) (n int, acked func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := &siteWrite{len(b.writes) + 1, site, registers, deletes}
	b.writes = append(b.writes, w)
	b.events = append(b.events, siteEvent{write: w})
	return w.n, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.events = append(b.events, siteEvent{write: w, end: true})
	}
}

// looks notes that a site is about to be looked at; saw, what it showed.
func (b *siteBook) looks(site int, prefix string, final bool) (saw func(shown map[string]int)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := &siteLook{site: site, prefix: prefix, final: final}
	b.events = append(b.events, siteEvent{look: l})
	return func(shown map[string]int) {
		b.mu.Lock()
		defer b.mu.Unlock()
		l.shown = shown
		b.events = append(b.events, siteEvent{look: l, end: true})
	}
}

// A writeSet is a set of writes, by their numbers.
type writeSet []uint64

func (s writeSet) has(n int) bool { return s[n/64]&(1<<(n%64)) != 0 }
func (s writeSet) add(n int)      { s[n/64] |= 1 << (n % 64) }
func (s writeSet) join(o writeSet) {
	for i := range s {
		s[i] |= o[i]
	}
}

func (s writeSet) each(yield func(int) bool) {
	for i, word := range s {
		for ; word != 0; word &= word - 1 {
			if !yield(i*64 + bits.TrailingZeros64(word)) {
				return
			}
		}
	}
}

// A siteFault is something that must never be.
type siteFault struct {
	kind string // lost, resurrected, order, torn, invented
	text string
}

// faults gives what must not have been, in the order in which it was shown.
//
// Of two writes one is surely before the other if its site had acknowledged or shown the one when the other was begun. A
// site has surely what it acknowledged, what it has shown, and whatever is surely before that. So it must not show, for a
// register, a write that is surely before one that it surely has. All this is of what is certain alone: what ran at the same
// time may be in either order.
func (b *siteBook) faults() (found []siteFault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	words := len(b.writes)/64 + 1
	past := make([]writeSet, len(b.writes)+1) // what is surely before a write
	has := map[int]writeSet{}                 // what a site surely has
	at := func(site int) writeSet {
		if has[site] == nil {
			has[site] = make(writeSet, words)
		}
		return has[site]
	}
	acked := make(writeSet, words)
	begun := map[string][]*siteWrite{} // by register
	before := map[*siteLook]writeSet{}
	for _, e := range b.events {
		switch {
		case e.write != nil && !e.end:
			past[e.write.n] = slices.Clone(at(e.write.site))
			for _, r := range e.write.registers {
				begun[r] = append(begun[r], e.write)
			}
		case e.write != nil:
			s := at(e.write.site)
			s.join(past[e.write.n])
			s.add(e.write.n)
			acked.join(past[e.write.n])
			acked.add(e.write.n)
		case !e.end:
			before[e.look] = slices.Clone(at(e.look.site))
		default:
			s := b.judge(e.look, before[e.look], acked, past, begun, &found)
			at(e.look.site).join(s)
		}
	}
	return found
}

// judge holds one look against what the site surely had, and gives what it surely has now.
func (b *siteBook) judge(l *siteLook, had, acked writeSet, past []writeSet, begun map[string][]*siteWrite, found *[]siteFault) writeSet {
	say := func(kind, format string, args ...any) {
		*found = append(*found, siteFault{kind, fmt.Sprintf("site %d: ", l.site) + fmt.Sprintf(format, args...)})
	}
	shown := make(writeSet, len(had)) // by this look alone
	for _, r := range slices.Sorted(maps.Keys(l.shown)) {
		n := l.shown[r]
		if n < 1 || n > len(b.writes) || past[n] == nil || b.writes[n-1].deletes || !slices.Contains(b.writes[n-1].registers, r) {
			say("invented", "%s is %d, which nobody has written there", r, n)
			continue
		}
		shown.add(n)
		shown.join(past[n])
	}
	has := slices.Clone(had)
	has.join(shown)
	if l.final {
		has.join(acked)
	}
	// kind says what is wrong where a write is not shown that the site surely has.
	kind := func(r string, w *siteWrite) string {
		switch {
		case w.deletes:
			return "resurrected"
		case l.final && acked.has(w.n):
			return "lost"
		case !had.has(w.n) && slices.ContainsFunc(w.registers, func(o string) bool { return o != r && l.shown[o] == w.n }):
			return "torn"
		case !had.has(w.n):
			return "order"
		}
		return "lost"
	}
	registers := map[string]bool{}
	for n := range has.each {
		for _, r := range b.writes[n-1].registers {
			registers[r] = registers[r] || strings.HasPrefix(r, l.prefix)
		}
	}
	// keeps tells whether there is a write that no delete which the site surely has knew of: with it the register stays, as a
	// whole, also with what the deletes did know.
	keeps := func(r string) bool {
		return slices.ContainsFunc(begun[r], func(p *siteWrite) bool {
			return !p.deletes && !slices.ContainsFunc(begun[r], func(d *siteWrite) bool { return d.deletes && has.has(d.n) && past[d.n].has(p.n) })
		})
	}
	for _, r := range slices.Sorted(maps.Keys(registers)) {
		if !registers[r] {
			continue
		}
		n, there := l.shown[r]
		for _, w := range begun[r] {
			if !has.has(w.n) || w.n == n {
				continue
			}
			if there {
				if n >= 1 && n <= len(b.writes) && past[w.n].has(n) && !(w.deletes && keeps(r)) {
					say(kind(r, w), "%s is %d, and it has write %d, which knew that", r, n, w.n)
					break
				}
				continue
			}
			if w.deletes {
				continue
			}
			// Not there: only a delete can have done that, and none that the write knew of.
			if !slices.ContainsFunc(begun[r], func(d *siteWrite) bool { return d.deletes && !past[w.n].has(d.n) }) {
				say(kind(r, w), "%s is not there, and it has write %d, which nobody has deleted", r, w.n)
				break
			}
		}
	}
	return has
}
