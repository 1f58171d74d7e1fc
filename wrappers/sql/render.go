package sql

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"sync"

	"github.com/spooksystems/gateway/wrappers"
)

// The server may store something else than what the gateway wrote: a number rounded to the
// column's scale, a text folded by a trigger, a default for a column that was left out. That is no
// news: a column that still has what the server made of it means what was written. It is noted
// before the write is committed, so that the feed never shows it first.

// renders are the rows of which the server has made something else. Which they are is held in
// memory, as digests; what it made stands in the wrapper's records.
type renders struct {
	link wrappers.Link

	mu   sync.Mutex
	rows map[uint64]struct{}
}

// A rendering is one column as the server has it, and what it stands for.
type rendering struct {
	Stored *string // its text; nil: NULL
	Meant  []byte  // a row with the one column "v", or nothing: the column was not spoken of
}

type renderings map[string]rendering

func (r *renders) load(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = map[uint64]struct{}{}
	for rec, err := range r.link.Kept(ctx, asKey) {
		if err != nil {
			return err
		}
		r.rows[sum(strings.TrimPrefix(rec.Key, asKey))] = struct{}{}
	}
	return nil
}

func (r *renders) has(address string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.rows[sum(address)]
	return ok
}

func (r *renders) get(address string) renderings {
	if !r.has(address) {
		return nil
	}
	for rec, err := range r.link.Kept(context.Background(), asKey+address) {
		if err != nil || rec.Key != asKey+address {
			break // the record itself is the first with its key as a prefix
		}
		var m renderings
		if json.Unmarshal(rec.Value, &m) == nil {
			return m
		}
	}
	return nil
}

// record gives the record for a row; none: nothing is to be remembered of it.
func (r *renders) record(address string, m renderings) wrappers.Record {
	rec := wrappers.Record{Key: asKey + address}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(m) == 0 {
		delete(r.rows, sum(address))
		return rec
	}
	rec.Value, _ = json.Marshal(m) // texts and bytes: it can't fail
	r.rows[sum(address)] = struct{}{}
	return rec
}

// apply puts into a row what its columns stand for. A column that somebody else has written since
// stands for itself, and the records returned say so.
func (r *renders) apply(address string, out row, cells map[string][]byte) []wrappers.Record {
	m := r.get(address)
	if m == nil {
		return nil
	}
	changed := false
	for name, as := range m {
		text, shown := cells[name]
		switch {
		case !shown:
		case as.is(text):
			out[name] = as.meant()
		default:
			delete(m, name)
			changed = true
		}
	}
	if !changed {
		return nil
	}
	return []wrappers.Record{r.record(address, m)}
}

func (r *renders) drop(address string) []wrappers.Record {
	if !r.has(address) {
		return nil
	}
	return []wrappers.Record{r.record(address, nil)}
}

func (a rendering) is(text []byte) bool {
	if a.Stored == nil || text == nil {
		return a.Stored == nil && text == nil
	}
	return bytes.Equal([]byte(*a.Stored), text)
}

func (a rendering) meant() any {
	m, err := decodeRow(a.Meant)
	if err != nil {
		return nil
	}
	return m["v"]
}

// compare notes where the server has something else than what was meant.
func compare(t *table, meant row, stored map[string][]byte) renderings {
	var m renderings
	for name, text := range stored {
		c := t.column(name)
		if c == nil {
			continue
		}
		var is any
		if text != nil {
			var err error
			if is, err = c.typ.value(text); err != nil {
				continue
			}
		}
		want := meant[name]
		if c.typ.same(want, is) {
			continue
		}
		as := rendering{}
		if text != nil {
			s := string(text)
			as.Stored = &s
		}
		if want != nil {
			raw, err := row{"v": want}.encode()
			if err != nil {
				continue
			}
			as.Meant = raw
		}
		if m == nil {
			m = renderings{}
		}
		m[name] = as
	}
	return m
}
