package sql

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

// Who changed a row is not in the feed. The relay notes which session's transaction mentions which
// mapped table; a transaction that the feed shows is then the one of the session that mentioned
// one of its tables, if there is one such. That is probable, not certain: Who.Verified stays false.

// tableWatch are the tables that are mapped, by the last part of their names.
type tableWatch struct {
	names [][]byte // lower case
	all   bool     // some bind captures the table
}

// mostWatched is how many tables are told apart; the rest share a bit.
const mostWatched = 63

// in gives a bit for each table that a statement mentions. It allocates nothing.
func (t *tableWatch) in(text []byte) uint64 {
	if t == nil {
		return 0
	}
	var bits uint64
	for i, name := range t.names {
		if bits&bit(i) == 0 && mentions(text, name) {
			bits |= bit(i)
		}
	}
	if t.all {
		bits |= 1 << mostWatched
	}
	return bits
}

func bit(i int) uint64 { return 1 << min(i, mostWatched-1) }

// mentions finds a name that is in lower case in a text, whatever its case there.
func mentions(text, name []byte) bool {
	if len(name) == 0 || len(text) < len(name) {
		return false
	}
	lower, upper := name[0], name[0]
	if lower >= 'a' && lower <= 'z' {
		upper -= 'a' - 'A'
	}
	for from := 0; ; {
		i := bytes.IndexByte(text[from:], lower)
		if j := bytes.IndexByte(text[from:], upper); upper != lower && j >= 0 && (i < 0 || j < i) {
			i = j
		}
		if i < 0 || len(text)-from-i < len(name) {
			return false
		}
		from += i
		if bytes.EqualFold(text[from:from+len(name)], name) {
			return true
		}
		from++
	}
}

func (t *tableWatch) of(name tableName) uint64 {
	if t == nil {
		return 0
	}
	if i := slices.IndexFunc(t.names, func(n []byte) bool { return string(n) == strings.ToLower(name.name) }); i >= 0 {
		return bit(i)
	}
	if t.all {
		return 1 << mostWatched
	}
	return 0
}

// An act is a session's transaction that mentions mapped tables.
type act struct {
	who    wrappers.Who
	app    string
	tables uint64 // acts.mu
	text   string // the first statement
	ended  time.Time
	done   bool
	known  bool // stands in the list, or stood there
}

// acts are those whose rows the feed may still show.
type acts struct {
	mu   sync.Mutex
	list []*act
}

// Bounds of what is remembered.
const (
	mostActs = 10_000
	actLasts = 5 * time.Second // after its end, for a feed that is behind
)

// mention notes what a transaction is about to do; before the statement is forwarded.
func (a *acts) mention(x *act, st statement) {
	a.mu.Lock()
	defer a.mu.Unlock()
	x.tables |= st.tables
	if x.text == "" {
		x.text = st.text
	}
	if x.known {
		return
	}
	x.known = true
	if len(a.list) >= mostActs {
		a.pruneLocked(time.Now())
		if len(a.list) >= mostActs {
			a.list = slices.Delete(a.list, 0, mostActs/2)
		}
	}
	a.list = append(a.list, x)
}

func (a *acts) end(x *act) {
	a.mu.Lock()
	x.ended, x.done = time.Now(), true
	a.mu.Unlock()
}

// drop forgets a transaction that changed nothing.
func (a *acts) drop(x *act) {
	a.mu.Lock()
	if i := slices.Index(a.list, x); i >= 0 {
		a.list = slices.Delete(a.list, i, i+1)
	}
	a.mu.Unlock()
}

func (a *acts) pruneLocked(now time.Time) {
	a.list = slices.DeleteFunc(a.list, func(x *act) bool { return x.done && now.Sub(x.ended) > actLasts })
}

// passed finds whose transaction it is that changed rows of tables that no bind maps. It leaves to match what may be the feed's.
func (a *acts) passed() (who wrappers.Who) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pruneLocked(time.Now())
	first, n := -1, 0
	for i, x := range a.list {
		if x.tables&(1<<mostWatched) == 0 {
			continue
		}
		if n++; first < 0 {
			first = i
		} else if x.who.Principal != a.list[first].who.Principal {
			return who
		}
	}
	if first < 0 {
		return who
	}
	x := a.list[first]
	if who.Principal = x.who.Principal; n == 1 {
		who = x.who
	}
	if x.tables == 1<<mostWatched {
		a.list = slices.Delete(a.list, first, first+1)
	}
	return who
}

// match finds whose transaction it is that changed rows of these tables.
func (a *acts) match(tables uint64) (who wrappers.Who, statement, app string) {
	if tables == 0 {
		return who, "", ""
	}
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pruneLocked(now)
	first, n, same := -1, 0, true
	for i, x := range a.list {
		if x.tables&tables == 0 {
			continue
		}
		if n++; first < 0 {
			first = i
		} else if x.who.Principal != a.list[first].who.Principal {
			same = false
		}
	}
	if first < 0 {
		return who, "", ""
	}
	x := a.list[first]
	switch {
	case n == 1:
		who, statement, app = x.who, x.text, x.app
	case same:
		who.Principal = x.who.Principal
	}
	// Each transaction is one: the oldest is over, or this was its.
	a.list = slices.Delete(a.list, first, first+1)
	return who, statement, app
}
