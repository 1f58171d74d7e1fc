package ldap

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/spooksystems/gateway/wrappers/ldap/dn"
)

// ownWrites knows which of the changes that the feed shows are the gateway's: by the version that the server gave them, and
// told in its answer (RFC 4527). The feed may be faster than the answer, so it waits for the answers to writes to an entry
// before it shows what the gateway's own name has changed there.
type ownWrites struct {
	mu     sync.Mutex
	name   string                    // the gateway's own, as modifiersName has it; "dn:": anonymous
	flying map[string]chan struct{}  // by path: closed when the answer is here
	made   map[string]*ownWrite      // by version
	order  []string                  // versions, oldest first
	wanted map[string]map[string]val // by path: what was meant by the values written since the feed last came by
}

// An ownWrite is a version of the gateway's own making.
type ownWrite struct {
	path  string
	meant map[string]val // until it was shown
}

type val = [][]byte

const (
	mostOwn     = 20_000
	answerOfOwn = 30 * time.Second
)

func newOwnWrites(name string) *ownWrites {
	return &ownWrites{name: nameIdentity(name), flying: map[string]chan struct{}{}, made: map[string]*ownWrite{}, wanted: map[string]map[string]val{}}
}

// called notes the name that the server has for the gateway.
func (o *ownWrites) called(name string) {
	o.mu.Lock()
	o.name = nameIdentity(name)
	o.mu.Unlock()
}

// begin notes a write to an entry that has a version, of which at most one is out. What was meant before somebody else has
// written the entry says nothing of what it has.
func (o *ownWrites) begin(path, version string, meant map[string]val) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flying[path] = make(chan struct{})
	if o.made[version] == nil {
		delete(o.wanted, path)
	}
	if len(meant) == 0 {
		return
	}
	if len(o.wanted) >= mostOwn {
		clear(o.wanted) // it costs a candidate that says the same in other words
	}
	w := o.wanted[path]
	if w == nil {
		w = map[string]val{}
		o.wanted[path] = w
	}
	for name, vals := range meant {
		w[name] = vals
	}
}

// end notes what became of it; csn: the version that the server says it made, "" if it said none.
func (o *ownWrites) end(path, csn string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.flying[path]; c != nil {
		close(c)
		delete(o.flying, path)
	}
	if csn == "" {
		delete(o.wanted, path) // it may not have been written
		return
	}
	o.made[csn] = &ownWrite{path, maps.Clone(o.wanted[path])}
	if o.order = append(o.order, csn); len(o.order) > mostOwn {
		delete(o.made, o.order[0])
		o.order = o.order[1:]
	}
}

// wrote tells whether a version is of the gateway's own making.
func (o *ownWrites) wrote(csn string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return csn != "" && o.made[csn] != nil
}

// meant gives what the gateway meant by the values that an event shows, and forgets it; nil: it is not its own.
func (o *ownWrites) meant(address, csn string) map[string]val {
	o.mu.Lock()
	defer o.mu.Unlock()
	if csn == "" || o.made[csn] == nil {
		return nil
	}
	w := o.made[csn].meant
	o.made[csn].meant = nil
	if p := path(address); o.flying[p] == nil { // else the next answer comes with what is to be compared then
		delete(o.wanted, p)
	}
	return w
}

// settled waits for the answer to a write of the gateway's own that an event may show, and for the end of one to an entry that
// somebody else has changed.
func (o *ownWrites) settled(ctx context.Context, f *feed, ev *event) error {
	if ev.entry == nil {
		return nil
	}
	o.mu.Lock()
	own, flying := o.name, len(o.flying)
	o.mu.Unlock()
	m := value(ev.entry, "modifiersName")
	foreign := m != "" && nameIdentity(m) != own
	if flying == 0 && !foreign {
		return nil
	}
	name, err := dn.Parse(ev.entry.ObjectName)
	if err != nil {
		return nil
	}
	address, below := name.Address(f.a.opts.base)
	if !below {
		return nil
	}
	var out chan struct{}
	if foreign {
		if ev.foreign = f.a.assertsVersions(f); !ev.foreign {
			return nil
		}
		// Of what it shows the writes that are settled are a part: they were made of older versions.
		out = f.a.flight(path(address))
	} else {
		o.mu.Lock()
		out = o.flying[path(address)]
		o.mu.Unlock()
	}
	if out == nil {
		return nil
	}
	timer := time.NewTimer(answerOfOwn)
	defer timer.Stop()
	select {
	case <-out:
	case <-timer.C:
		ev.foreign = false
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}
