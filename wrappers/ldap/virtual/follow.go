package virtual

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/dn"
	"github.com/spooksystems/gateway/wrappers/ldap/schema"
)

// A follower keeps the tree as the registers are: it hears of every change, and looks at everything once when it begins, when
// the mapping has changed, and when it missed changes.
type follower struct {
	s     *server
	ready chan struct{} // closed when the first look is done
	once  sync.Once

	mu   sync.Mutex
	tags map[uint64]chan struct{} // closed when the change with the tag is in the tree
	tag  uint64
}

func newFollower(s *server) *follower {
	return &follower{s: s, ready: make(chan struct{}), tags: map[uint64]chan struct{}{}}
}

// expect gives a tag for a write, and what is closed when the tree shows it.
func (f *follower) expect() (tag uint64, shown <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tag++
	c := make(chan struct{})
	f.tags[f.tag] = c
	return f.tag, c
}

// forget gives up a tag, and is told of one that has been seen.
func (f *follower) forget(tag uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.tags[tag]; c != nil {
		close(c)
		delete(f.tags, tag)
	}
}

// again is how long the follower waits after a stream of changes ended before its time.
const again = 200 * time.Millisecond

// run works until ctx ends.
func (f *follower) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := f.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		f.s.log.Warn("changes are not heard any more, and asked for again", "err", err)
		f.s.link.Count("follow_again", 1)
		select {
		case <-time.After(again):
		case <-ctx.Done():
		}
	}
}

func (f *follower) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	changes := f.s.link.Follow(ctx, wrappers.Notify, "") // from now on, so that nothing is between it and the look
	heard := make(chan wrappers.Change, 256)
	ended := make(chan error, 1)
	go func() {
		err := errors.New("the stream ended")
		for c, e := range changes {
			if e != nil {
				err = e
				break
			}
			select {
			case heard <- c:
			case <-ctx.Done():
			}
		}
		ended <- err
		close(heard)
	}()
	defer func() {
		cancel()
		for range heard { // the goroutine has ended when it is closed
		}
	}()
	patterns, turned := f.s.link.Patterns()
	f.s.use(patterns)
	if err := f.remember(ctx); err != nil {
		return err
	}
	if err := f.look(ctx); err != nil {
		return err
	}
	f.once.Do(func() { close(f.ready) })
	missed := false
	for {
		if missed && len(heard) == 0 {
			if err := f.look(ctx); err != nil {
				return err
			}
			missed = false
		}
		select {
		case c, open := <-heard:
			if !open {
				return <-ended
			}
			f.take(ctx, &c)
			missed = missed || c.Snapshot // what went meanwhile is not in it
		case <-turned:
			patterns, turned = f.s.link.Patterns()
			f.s.use(patterns)
			if err := f.look(ctx); err != nil {
				return err
			}
		}
	}
}

func (f *follower) take(ctx context.Context, c *wrappers.Change) {
	if c.Server == "" {
		if c.Gone || len(c.Payload.Raw) == 0 { // without a payload: nothing flows out at this address
			f.remove(ctx, c.Address)
		} else {
			f.s.tree.put(c.Address, c.Payload, c.Version, c.Modified)
		}
	}
	if c.Tag != 0 {
		f.forget(c.Tag)
	}
}

// remove takes an entry away, and what is kept of it.
func (f *follower) remove(ctx context.Context, address string) {
	key, kept := f.s.tree.remove(address)
	if !kept {
		return
	}
	if err := f.s.link.Keep(ctx, wrappers.Record{Key: movedPrefix + hex.EncodeToString([]byte(key))}); err != nil {
		f.s.log.Warn("the entryUUID of an entry that went stays where it is kept", "address", address, "err", err)
	}
}

// remember reads the entryUUIDs of entries that were renamed.
func (f *follower) remember(ctx context.Context) error {
	t := f.s.tree
	for r, err := range f.s.link.Kept(ctx, movedPrefix) {
		if err != nil {
			return err
		}
		key, err := hex.DecodeString(r.Key[len(movedPrefix):])
		if err != nil || len(r.Value) != 16 {
			continue
		}
		t.mu.Lock()
		t.moved[string(key)] = [16]byte(r.Value)
		t.mu.Unlock()
	}
	return nil
}

// look reads everything there is.
func (f *follower) look(ctx context.Context) error {
	seen := map[string]bool{}
	for item, err := range f.s.link.Scan(ctx, wrappers.Operation{Verb: wrappers.List}) {
		if errors.Is(err, wrappers.ErrUnmapped) {
			break // no bind has anything yet
		}
		if err != nil {
			return err
		}
		seen[item.Address] = true
		f.s.tree.put(item.Address, item.Payload, item.Version, item.Modified)
	}
	for _, a := range f.s.tree.others(seen) {
		f.remove(ctx, a)
	}
	return nil
}

// A bound is what the mapping says of addresses: the binds and what they speak of.
type bound struct {
	patterns []wrappers.Pattern
}

// use takes in the mapping in force: the attributes that it speaks of, and the entries above those it can make.
func (s *server) use(patterns []wrappers.Pattern) {
	s.bound.Store(&bound{patterns})
	var names []dn.DN
	for i := range patterns {
		p := &patterns[i]
		for _, m := range p.Members {
			name, _ := schema.SplitOptions(m.Name)
			if s.types().Attribute(name) == nil {
				s.localType(name)
			}
		}
		var tail []string
		for _, seg := range slices.Backward(p.Segments) {
			if seg.Kind != wrappers.LiteralSegment {
				break
			}
			tail = append([]string{seg.Literal}, tail...)
		}
		if len(tail) == len(p.Segments) && len(tail) > 0 {
			tail = tail[1:] // a register of its own
		}
		if len(tail) > 0 {
			if name, err := dn.ParseAddress(strings.Join(tail, dn.Separator)); err == nil {
				names = append(names, name.Join(s.base))
			}
		}
	}
	s.tree.fix(names)
}

// members gives what the binds of an address speak of, by the name of the attribute in its normal spelling; open: and any other
// attribute. False: no bind has the address.
func (b *bound) members(address string, key func(name string) string) (members map[string]wrappers.Member, pattern *wrappers.Pattern, open, ok bool) {
	members = map[string]wrappers.Member{}
	segments := strings.Split(address, dn.Separator)
	for i := range b.patterns {
		p := &b.patterns[i]
		if p.Server != "" || !fits(p.Segments, segments) {
			continue
		}
		ok = true
		open = open || p.Open && p.In
		if pattern == nil {
			pattern = p
		} else {
			both := *pattern
			both.Members = append(slices.Clone(both.Members), p.Members...)
			both.Open = both.Open || p.Open
			pattern = &both
		}
		for _, m := range p.Members {
			k := key(m.Name)
			had := members[k]
			m.In, m.Out = m.In || had.In, m.Out || had.Out
			members[k] = m
		}
	}
	return members, pattern, open, ok
}

func fits(template []wrappers.Segment, segments []string) bool {
	for i, t := range template {
		switch {
		case t.Kind == wrappers.RestSegments:
			rest := len(template) - i - 1
			return len(segments) > i+rest && fits(template[i+1:], segments[len(segments)-rest:])
		case i >= len(segments):
			return false
		case t.Kind == wrappers.LiteralSegment && !strings.EqualFold(t.Literal, segments[i]):
			return false
		case t.Kind == wrappers.OneSegment && t.Literal != "" && !strings.EqualFold(prefixType(t.Literal), prefixType(segments[i])):
			return false
		}
	}
	return len(template) == len(segments)
}

// prefixType is what stands before the '=' of a segment.
func prefixType(s string) string {
	name, _, _ := strings.Cut(s, "=")
	return name
}

// localType gives the type of an attribute that no standard has, and makes it where there is none yet; nil: no attribute has
// such a name, or there are too many.
func (s *server) localType(name string) *schema.AttributeType {
	if !schema.IsName(name) || len(name) > 128 {
		return nil
	}
	s.schemaMu.Lock()
	defer s.schemaMu.Unlock()
	now := s.types()
	if t := now.Attribute(name); t != nil {
		return t
	}
	if s.locals >= mostLocals {
		s.link.Count("too_many_attribute_types", 1)
		return nil
	}
	s.locals++
	s.schema.Store(now.Extend(schema.Local(name)))
	s.subschema.Store(nil)
	return s.types().Attribute(name)
}

// mostLocals bounds attribute types that no standard has.
const mostLocals = 2000

// unshowable tells the operator of an entry that no client can be shown, once for each address and reason.
func (s *server) unshowable(address string, err error) {
	s.link.Count("unshowable", 1)
	s.log.Warn("can't be shown as an entry", "address", address, "err", err)
}

// may tells whether who asks may see an entry.
func (s *server) may(r *record, who *wrappers.Who) bool {
	return r.address == "" || s.link.May(wrappers.Read, "", r.address, *who) == nil
}
