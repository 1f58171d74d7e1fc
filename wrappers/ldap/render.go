package ldap

import (
	"bytes"
	"context"
	"encoding/json"
	"hash/maphash"
	"slices"
	"strings"
	"sync"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/dn"
	"github.com/spooksystems/gateway/wrappers/ldap/entry"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// A directory may store a value in other words than the gateway wrote it: names without their spaces, texts in the case of
// the object they name. That is no news: what the server made of a value stands for the value, as long as it has it so.

// renders are the values of which the server has made something else. Which entries have such is held in memory, as
// digests; what they are stands in the wrapper's records.
type renders struct {
	link wrappers.Link
	mu   sync.Mutex
	at   map[uint64]struct{} // paths
}

// renderings are of one entry: by attribute and the value that the server has, what was written.
type renderings map[string]map[string]string

func (r *renders) load(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at = map[uint64]struct{}{}
	for rec, err := range r.link.Kept(ctx, asKey) {
		if err != nil {
			return err
		}
		r.at[sum(strings.TrimPrefix(rec.Key, asKey))] = struct{}{}
	}
	return nil
}

var seed = maphash.MakeSeed()

func sum(s string) uint64 { return maphash.String(seed, s) }

func (r *renders) has(path string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.at[sum(path)]
	return ok
}

func (r *renders) get(path string) renderings {
	if !r.has(path) {
		return nil
	}
	for rec, err := range r.link.Kept(context.Background(), asKey+path) {
		if err != nil || rec.Key != asKey+path {
			break // the record itself is the first with its key as a prefix
		}
		var m renderings
		if json.Unmarshal(rec.Value, &m) == nil {
			return m
		}
	}
	return nil
}

// record gives the record of an entry; without any rendering it goes.
func (r *renders) record(path string, m renderings) wrappers.Record {
	rec := wrappers.Record{Key: asKey + path}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(m) == 0 {
		delete(r.at, sum(path))
		return rec
	}
	rec.Value, _ = json.Marshal(m) // texts: it can't fail
	r.at[sum(path)] = struct{}{}
	return rec
}

func (r *renders) drop(address string) []wrappers.Record {
	p := path(address)
	if !r.has(p) {
		return nil
	}
	return []wrappers.Record{r.record(p, nil)}
}

// apply gives an entry's attributes with what was meant in the place of what the server made of it. meant is what the gateway
// wrote, where the entry is as the gateway has just written it. The records say what has changed of the renderings.
func (r *renders) apply(address string, attributes []ldapwire.PartialAttribute, meant map[string]val) ([]ldapwire.PartialAttribute, []wrappers.Record) {
	p := path(address)
	had := r.get(p)
	if had == nil && len(meant) == 0 {
		return attributes, nil
	}
	now := renderings{}
	var out []ldapwire.PartialAttribute
	for i := range attributes {
		a := attributes[i]
		name := strings.ToLower(a.Type)
		pairs := map[string]string{}
		for stored, m := range had[name] {
			if slices.ContainsFunc(a.Vals, func(v []byte) bool { return string(v) == stored }) { // else somebody has written it anew
				pairs[stored] = m
			}
		}
		if written := meant[name]; len(written) > 0 && !entry.Secret(a.Type) {
			respelled(pairs, a.Vals, written)
		}
		if len(pairs) > 0 {
			a.Vals = slices.Clone(a.Vals)
			for k, v := range a.Vals {
				if m, ok := pairs[string(v)]; ok {
					a.Vals[k] = []byte(m)
				}
			}
			now[name] = pairs
			if out == nil {
				out = slices.Clone(attributes)
			}
			out[i] = a
		}
	}
	if out == nil {
		out = attributes
	}
	if had == nil && len(now) == 0 || same(had, now) {
		return out, nil
	}
	return out, []wrappers.Record{r.record(p, now)}
}

func same(a, b renderings) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return bytes.Equal(x, y)
}

// respelled finds, among the values that are shown, those that were written in other words: the only one for the only one, or by
// what directories take for equal.
func respelled(pairs map[string]string, shown, written [][]byte) {
	lacking := slices.DeleteFunc(slices.Clone(written), func(v []byte) bool {
		return slices.ContainsFunc(shown, func(s []byte) bool { return bytes.Equal(s, v) })
	})
	if len(lacking) == 0 {
		return
	}
	if len(shown) == 1 && len(written) == 1 {
		pairs[string(shown[0])] = string(written[0])
		return
	}
	by := map[string]string{}
	for _, v := range lacking {
		by[loosely(string(v))] = string(v)
	}
	for _, v := range shown {
		if m, ok := by[loosely(string(v))]; ok {
			pairs[string(v)] = m
		}
	}
}

// loosely is the same for values that a directory may take for equal: names (RFC 4517, section 4.2.15), texts without regard to
// case and spaces (4.2.11), telephone numbers (4.2.27).
func loosely(v string) string {
	if d, err := dn.Parse(v); err == nil && len(d) > 0 {
		return d.Key()
	}
	return strings.ToLower(strings.NewReplacer(" ", "", "-", "").Replace(v))
}
