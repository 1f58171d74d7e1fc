package virtual

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/dn"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// modifyDN renames or moves an entry with all below it (RFC 4511, section 4.9), all at once.
func (se *session) modifyDN(ctx context.Context, m *ldapwire.Message, q *ldapwire.ModifyDNRequest) ([]ldapwire.Control, error) {
	s := se.s
	old, new, err := se.newName(q)
	if err != nil {
		return nil, err
	}
	key := s.types().NormalDN(old)
	r := s.tree.get(key)
	if r == nil {
		address, below := old.Address(s.base)
		if !below || !s.link.Maps(wrappers.Put, "", address) {
			return nil, s.noSuch(old)
		}
		if r, err = se.current(ctx, old, key, &se.who); err != nil {
			return nil, err
		}
	}
	if err := checkReads(m); err != nil {
		return nil, err
	}
	newKey := s.types().NormalDN(new)
	if newKey != key {
		if taken := s.tree.get(newKey); taken != nil {
			return nil, fail(ldapwire.EntryAlreadyExists, "")
		}
		if err := se.parentThere(ctx, new); err != nil {
			return nil, err
		}
	}
	moves, err := se.moves(r, old, new)
	if err != nil {
		return nil, err
	}
	var from, to *target
	if r.address != "" {
		if from, err = se.target(q.Entry); err != nil {
			return nil, err
		}
		if to, err = se.target(new.String()); err != nil {
			return nil, err
		}
	}
	var controls []ldapwire.Control
	for try := 0; ; try++ {
		parts, before, err := se.renameParts(ctx, m, q, moves, from, to)
		if err != nil {
			return nil, err
		}
		if controls, err = se.renamed(ctx, m, moves, parts, before); err == nil {
			break
		}
		if !errors.Is(err, wrappers.ErrConflict) {
			return nil, err
		}
		if taken := s.tree.get(newKey); taken != nil && newKey != key {
			return nil, fail(ldapwire.EntryAlreadyExists, "")
		}
		if try >= tries {
			return nil, fail(ldapwire.Busy, "others write to these entries all the time")
		}
	}
	if to != nil {
		controls = append(controls, se.readAfter(ctx, m, to)...)
	}
	return controls, nil
}

// newName gives the old and the new name that a request means.
func (se *session) newName(q *ldapwire.ModifyDNRequest) (old, new dn.DN, err error) {
	if old, err = dn.Parse(q.Entry); err != nil {
		return nil, nil, fail(ldapwire.InvalidDNSyntax, "%v", err)
	}
	rdn, err := dn.Parse(q.NewRDN)
	if err != nil || len(rdn) != 1 {
		return nil, nil, fail(ldapwire.InvalidDNSyntax, "the new RDN %q is none", q.NewRDN)
	}
	if rel, inside := old.Below(se.s.base); !inside {
		return nil, nil, se.s.noSuch(old)
	} else if len(rel) == 0 {
		return nil, nil, fail(ldapwire.UnwillingToPerform, "the naming context can't be renamed")
	}
	parent := old.Parent()
	if q.NewSuperior != nil {
		if parent, err = dn.Parse(*q.NewSuperior); err != nil {
			return nil, nil, fail(ldapwire.InvalidDNSyntax, "%v", err)
		}
		if _, inside := parent.Below(se.s.base); !inside {
			return nil, nil, fail(ldapwire.AffectsMultipleDSAs, "the new superior is not below %s", se.s.base)
		}
		if _, inside := parent.Below(old); inside {
			return nil, nil, fail(ldapwire.UnwillingToPerform, "an entry can't be moved below itself")
		}
	}
	return old, rdn.Join(parent), nil
}

// A move is one entry's way from one name to another.
type move struct {
	r        *record
	from, to string // addresses
	key      string // of the new name
}

// moves are those of an entry and of all below it that registers make, the deepest last.
func (se *session) moves(r *record, old, new dn.DN) ([]move, error) {
	s := se.s
	list, _ := s.tree.descendants(r.key)
	if r.address != "" {
		list = append([]*record{r}, list...)
	}
	switch {
	case len(list) == 0:
		return nil, fail(ldapwire.UnwillingToPerform, "no register makes this entry, nor any below it")
	case len(list) > mostMoved:
		return nil, fail(ldapwire.AdminLimitExceeded, "%d entries: at most %d are moved at once", len(list), mostMoved)
	}
	out := make([]move, 0, len(list))
	for _, one := range list {
		rel, ok := one.name.Below(old)
		if !ok {
			continue
		}
		name := rel.Join(new)
		to, ok := name.Address(s.base)
		if !ok || !s.link.Maps(wrappers.Put, "", to) {
			return nil, fail(ldapwire.UnwillingToPerform, "no bind maps %s", to)
		}
		out = append(out, move{r: one, from: one.address, to: to, key: s.types().NormalDN(name)})
	}
	return out, nil
}

// renameParts makes the writes of a rename, and gives the entry itself as it was read; nil where no register makes it.
func (se *session) renameParts(ctx context.Context, m *ldapwire.Message, q *ldapwire.ModifyDNRequest, moves []move, from, to *target) (parts []wrappers.Operation, before *record, err error) {
	for _, mv := range moves {
		if !strings.EqualFold(mv.from, mv.to) {
			parts = append(parts, wrappers.Operation{Verb: wrappers.Read, Address: mv.to, If: wrappers.Precondition{Differ: []wrappers.Version{wrappers.Any}}})
		}
	}
	for _, mv := range moves {
		parts = append(parts, wrappers.Operation{Verb: wrappers.Rename, Address: mv.from, To: mv.to})
	}
	if from == nil {
		return parts, nil, nil
	}
	if before, err = se.current(ctx, from.name, from.key, &se.who); err != nil {
		return nil, nil, err
	}
	if c := control(m, ldapwire.OIDAssertion); c != nil {
		if err := se.assert(c, before); err != nil {
			return nil, nil, err
		}
	}
	merge, err := se.renameValues(q, before, from, to)
	if err != nil {
		return nil, nil, err
	}
	if merge != nil {
		parts = append(parts, *merge)
	}
	return parts, before, nil
}

// renameValues is what becomes of the attributes that name the entry, where binds take them: those of the new name are added,
// and with deleteoldrdn those of the old one go. Nil: nothing is to be written.
func (se *session) renameValues(q *ldapwire.ModifyDNRequest, before *record, from, to *target) (*wrappers.Operation, error) {
	s := se.s
	attrs := slices.Clone(before.attrs)
	var touched []string
	note := func(name string) {
		if !slices.Contains(touched, name) {
			touched = append(touched, name)
		}
	}
	for _, ava := range from.name[0] {
		a, ok := s.attributeOf(ava.Type, [][]byte{[]byte(ava.Value)})
		if !ok || s.inName(to.name, &a) {
			continue
		}
		i := slices.IndexFunc(attrs, func(o attribute) bool { return o.typ == a.typ && len(o.options) == 0 })
		if i < 0 {
			continue
		}
		if !q.DeleteOldRDN {
			if !to.takes(se, a.name) {
				return nil, fail(ldapwire.UnwillingToPerform, "no bind of %s takes '%s', so the old value can't be kept: ask for deleteoldrdn", to.address, a.name)
			}
			note(attrs[i].name)
			continue
		}
		k := s.indexOf(a.typ, attrs[i].values, a.values[0])
		if k < 0 || !from.takes(se, a.name) {
			continue
		}
		attrs[i].values = slices.Delete(slices.Clone(attrs[i].values), k, k+1)
		note(attrs[i].name)
	}
	for _, ava := range to.name[0] {
		if a, ok := s.attributeOf(ava.Type, nil); ok && to.takes(se, a.name) {
			attrs = s.withValue(attrs, ava)
			note(a.name)
		}
	}
	var changed []attribute
	for _, a := range attrs {
		if slices.Contains(touched, a.name) && to.takes(se, a.name) {
			changed = append(changed, a)
		}
	}
	if len(changed) == 0 {
		return nil, nil
	}
	payload, err := to.payload(se, changed)
	if err != nil {
		return nil, fail(ldapwire.InvalidAttributeSyntax, "%v", err)
	}
	return &wrappers.Operation{Verb: wrappers.Merge, Address: to.address, Payload: payload}, nil
}

// movedPrefix is where entryUUIDs of renamed entries are kept, by the key of their name in hexadecimal digits.
const movedPrefix = "uuid/"

// renamed commits a rename. The entries keep their entryUUIDs (RFC 4530, section 2).
func (se *session) renamed(ctx context.Context, m *ldapwire.Message, moves []move, parts []wrappers.Operation, before *record) ([]ldapwire.Control, error) {
	s := se.s
	records := make([]wrappers.Record, len(moves))
	for i, mv := range moves {
		records[i] = wrappers.Record{Key: movedPrefix + hex.EncodeToString([]byte(mv.key)), Value: slices.Clone(mv.r.uuid[:])}
	}
	if err := s.link.Keep(ctx, records...); err != nil {
		return nil, err
	}
	s.tree.moving(moves)
	op := wrappers.Operation{Parts: parts}
	if len(parts) == 1 {
		op = parts[0]
	}
	if _, err := se.commit(ctx, op); err != nil {
		s.tree.stayed(moves)
		for i := range records {
			records[i].Value = nil
		}
		return nil, errors.Join(err, s.link.Keep(ctx, records...))
	}
	s.tree.await(func() bool {
		for _, mv := range moves {
			if now := s.tree.get(mv.key); now == nil || now.address == "" {
				return false
			}
			if old := s.tree.get(mv.r.key); mv.r.key != mv.key && old != nil && old.address != "" && old.version == mv.r.version {
				return false
			}
		}
		return true
	})
	if c := control(m, ldapwire.OIDPreRead); c != nil && before != nil {
		return se.readEntry(c, before), nil
	}
	return nil, nil
}

// moving notes which entryUUIDs entries get that are about to come.
func (t *tree) moving(moves []move) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, mv := range moves {
		t.moved[mv.key] = mv.r.uuid
	}
}

// stayed takes that back.
func (t *tree) stayed(moves []move) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, mv := range moves {
		delete(t.moved, mv.key)
	}
}
