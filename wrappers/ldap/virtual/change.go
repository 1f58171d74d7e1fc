package virtual

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/dn"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// change does what writes. The controls are those of the response.
func (se *session) change(m *ldapwire.Message) ([]ldapwire.Control, error) {
	ctx := context.WithoutCancel(se.ctx) // a client that went does not undo what it asked for
	switch q := m.Body.(type) {
	case *ldapwire.AddRequest:
		return se.add(ctx, m, q)
	case *ldapwire.ModifyRequest:
		return se.modify(ctx, m, q)
	case *ldapwire.DelRequest:
		return se.delete(ctx, m, q)
	case *ldapwire.ModifyDNRequest:
		return se.modifyDN(ctx, m, q)
	}
	return nil, fail(ldapwire.ProtocolError, "%s is not known", m.Body.Op())
}

// errNothing: the write passed the bind by. Success would be a lie.
var errNothing = fail(ldapwire.UnwillingToPerform, "nothing came of it: the bind's `when` is false, or its `delete` is \"ignore\"")

// shownWithin is how long a write waits at most until searches find what it wrote.
const shownWithin = 5 * time.Second

// commit writes, and waits until searches find it.
func (se *session) commit(ctx context.Context, op wrappers.Operation) (wrappers.Result, error) {
	f := se.s.follower
	tag, shown := f.expect()
	defer f.forget(tag)
	op.Tag, op.Who = tag, se.who
	res, err := se.s.link.Do(ctx, op)
	switch {
	case err != nil || res.Waiting:
		return res, err
	case res.Cursor == "":
		return res, errNothing
	}
	timer := time.NewTimer(shownWithin)
	defer timer.Stop()
	select {
	case <-shown:
	case <-timer.C:
		se.s.link.Count("index_late", 1)
		se.s.log.Warn("a write is durable, and searches don't find it yet", "address", op.Address)
	}
	return res, nil
}

// parentThere refuses an entry whose parent is one that a client can make, and has not.
func (se *session) parentThere(ctx context.Context, name dn.DN) error {
	parent := name.Parent()
	address, ok := parent.Address(se.s.base)
	if !ok || se.s.tree.get(se.s.types().NormalDN(parent)) != nil || !se.s.link.Maps(wrappers.Put, "", address) {
		return nil // the base, an entry, or one that is there as soon as something is below it
	}
	_, err := se.current(ctx, parent, se.s.types().NormalDN(parent), &se.who)
	return err
}

// add makes an entry (RFC 4511, section 4.7).
func (se *session) add(ctx context.Context, m *ldapwire.Message, q *ldapwire.AddRequest) ([]ldapwire.Control, error) {
	t, err := se.target(q.Entry)
	if err != nil {
		var r *result
		if name, e := dn.Parse(q.Entry); e == nil && errors.As(err, &r) && r.ResultCode == ldapwire.UnwillingToPerform && se.s.tree.get(se.s.types().NormalDN(name)) != nil {
			return nil, fail(ldapwire.EntryAlreadyExists, "it is there, above entries that registers make")
		}
		return nil, err
	}
	if r := se.s.tree.get(t.key); r != nil && r.address != "" {
		if _, err := se.current(ctx, t.name, t.key, &se.who); err == nil {
			return nil, fail(ldapwire.EntryAlreadyExists, "")
		}
	}
	if err := se.parentThere(ctx, t.name); err != nil {
		return nil, err
	}
	var attrs []attribute
	for _, a := range q.Attributes {
		if len(a.Vals) == 0 {
			return nil, fail(ldapwire.ProtocolError, "%s: no values", a.Type)
		}
		one, err := t.typed(se, a.Type, a.Vals)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(attrs, func(o attribute) bool { return o.name == one.name }) {
			return nil, fail(ldapwire.AttributeOrValueExists, "%s: provided more than once", one.name)
		}
		if err := violation(se.s.types().CheckValues(one.typ, one.values)); err != nil {
			return nil, err
		}
		attrs = append(attrs, one)
	}
	given := attrs
	for _, ava := range t.name[0] {
		attrs = se.s.withValue(slices.Clone(attrs), ava)
	}
	for _, a := range attrs {
		if a.typ.SingleValue && len(a.values) > 1 {
			return nil, fail(ldapwire.NamingViolation, "value of single-valued naming attribute '%s' conflicts with value present in entry", a.name)
		}
	}
	classed := slices.ContainsFunc(attrs, func(a attribute) bool { return a.typ.OID == oidObjectClass })
	if classed || t.takes(se, "objectClass") {
		if err := t.checkEntry(se, attrs); err != nil {
			return nil, err
		}
	}
	shown, err := t.checkTaken(se, given)
	if err != nil {
		return nil, err
	}
	if c := control(m, ldapwire.OIDAssertion); c != nil {
		if err := se.assert(c, se.s.expand(&record{name: t.name, text: t.name.String(), key: t.key, attrs: attrs, node: &node{}})); err != nil {
			return nil, err
		}
	}
	payload, err := t.payload(se, attrs)
	if err != nil {
		return nil, fail(ldapwire.InvalidAttributeSyntax, "%v", err)
	}
	_, err = se.commit(ctx, wrappers.Operation{Verb: wrappers.Put, Address: t.address, Payload: payload, If: wrappers.Precondition{Differ: []wrappers.Version{wrappers.Any}}})
	if errors.Is(err, wrappers.ErrConflict) {
		return nil, fail(ldapwire.EntryAlreadyExists, "")
	}
	if err != nil {
		return nil, err
	}
	if len(shown) > 0 {
		if err := se.undoUnlessShown(ctx, t, shown); err != nil {
			return nil, err
		}
	}
	return se.readAfter(ctx, m, t), nil
}

// undoUnlessShown takes an entry back that is not as its client said: what the mapping makes of it is only known once it is there.
func (se *session) undoUnlessShown(ctx context.Context, t *target, said []attribute) error {
	r, err := se.current(ctx, t.name, t.key, &se.who)
	if err != nil {
		return nil // it has gone again, or its maker may not read it
	}
	bad := se.checkShown(r, said)
	if bad == nil {
		return nil
	}
	if _, err := se.commit(ctx, wrappers.Operation{Verb: wrappers.Delete, Address: t.address, If: asRead(r)}); err != nil && !errors.Is(err, wrappers.ErrConflict) {
		return err
	}
	return bad
}

// readAfter and readBefore make the response controls of RFC 4527.
func (se *session) readAfter(ctx context.Context, m *ldapwire.Message, t *target) []ldapwire.Control {
	c := control(m, ldapwire.OIDPostRead)
	if c == nil {
		return nil
	}
	r, err := se.current(ctx, t.name, t.key, &se.who)
	if err != nil {
		return nil // it has gone again
	}
	return se.readEntry(c, r)
}

func (se *session) readEntry(c *ldapwire.Control, r *record) []ldapwire.Control {
	names, err := ldapwire.DecodeAttributeSelection(c.Value)
	if err != nil {
		return nil // checkReads has refused it
	}
	value := ldapwire.EncodeReadEntry(se.s.selection(names, false).entry(se.s, r, false))
	return []ldapwire.Control{{Type: c.Type, Value: value}}
}

// checkReads refuses controls that can't be read before anything is written.
func checkReads(m *ldapwire.Message) error {
	for _, oid := range []string{ldapwire.OIDPreRead, ldapwire.OIDPostRead} {
		if c := control(m, oid); c != nil {
			if _, err := ldapwire.DecodeAttributeSelection(c.Value); err != nil {
				return fail(ldapwire.ProtocolError, "%v", err)
			}
		}
	}
	return nil
}

// tries is how often what reads and then writes begins anew because somebody else wrote between.
const tries = 20

// guarded reads an entry, has change decide what to write, and writes that on condition that the entry is as it was read.
func (se *session) guarded(ctx context.Context, m *ldapwire.Message, t *target, change func(r *record) (wrappers.Operation, error)) ([]ldapwire.Control, error) {
	if err := checkReads(m); err != nil {
		return nil, err
	}
	defer se.s.turns.take(t.key)()
	for range tries {
		r, err := se.current(ctx, t.name, t.key, &se.who)
		if err != nil {
			return nil, err
		}
		if r.address == "" {
			return nil, fail(ldapwire.UnwillingToPerform, "no register makes this entry: it is there above others")
		}
		if c := control(m, ldapwire.OIDAssertion); c != nil {
			if err := se.assert(c, r); err != nil {
				return nil, err
			}
		}
		op, err := change(r)
		if err != nil {
			return nil, err
		}
		if op.Verb != 0 || len(op.Parts) > 0 {
			_, err = se.commit(ctx, op)
		}
		if errors.Is(err, wrappers.ErrConflict) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var controls []ldapwire.Control
		if c := control(m, ldapwire.OIDPreRead); c != nil {
			controls = se.readEntry(c, r)
		}
		return controls, nil
	}
	return nil, fail(ldapwire.Busy, "others write to this entry all the time")
}

// asRead is the condition that an entry is as it was read.
func asRead(r *record) wrappers.Precondition {
	if r.version == "" {
		return wrappers.Precondition{Match: []wrappers.Version{wrappers.Any}}
	}
	return wrappers.Precondition{Match: []wrappers.Version{r.version}}
}

// modify changes an entry (RFC 4511, section 4.6): what the changes make of its attributes is written, and no other attribute.
func (se *session) modify(ctx context.Context, m *ldapwire.Message, q *ldapwire.ModifyRequest) ([]ldapwire.Control, error) {
	t, err := se.target(q.Object)
	if err != nil {
		return nil, err
	}
	controls, err := se.guarded(ctx, m, t, se.merge(t, q.Changes, false))
	if err == errNothing { // a `when` may ask for attributes that do not change
		controls, err = se.guarded(ctx, m, t, se.merge(t, q.Changes, true))
	}
	if err != nil {
		return nil, err
	}
	return append(controls, se.readAfter(ctx, m, t)...), nil
}

// merge writes what changes make of an entry: the attributes that differ, or with whole all of them.
func (se *session) merge(t *target, changes []ldapwire.Change, whole bool) func(*record) (wrappers.Operation, error) {
	return func(r *record) (wrappers.Operation, error) {
		touched, err := se.apply(t, r, changes)
		if err != nil || len(touched) == 0 {
			return wrappers.Operation{}, err
		}
		if whole {
			for _, a := range r.attrs {
				if !slices.ContainsFunc(touched, func(o attribute) bool { return o.name == a.name }) {
					touched = append(touched, a)
				}
			}
		}
		payload, err := t.payload(se, touched)
		if err != nil {
			return wrappers.Operation{}, fail(ldapwire.InvalidAttributeSyntax, "%v", err)
		}
		return wrappers.Operation{Verb: wrappers.Merge, Address: t.address, Payload: payload, If: asRead(r)}, nil
	}
}

// apply makes the changes one after the other, and gives the attributes that they touched as they are then; without values: it
// went.
func (se *session) apply(t *target, r *record, changes []ldapwire.Change) ([]attribute, error) {
	e := edit{se: se, t: t, attrs: slices.Clone(r.attrs), was: r}
	for i := range changes {
		if err := e.change(&changes[i]); err != nil {
			return nil, err
		}
	}
	return e.finish()
}

// delete takes an entry away (RFC 4511, section 4.8), with all below it where the control says so.
func (se *session) delete(ctx context.Context, m *ldapwire.Message, q *ldapwire.DelRequest) ([]ldapwire.Control, error) {
	if control(m, ldapwire.OIDTreeDelete) != nil {
		return nil, se.deleteTree(ctx, q)
	}
	name, err := dn.Parse(q.Entry)
	if err != nil {
		return nil, fail(ldapwire.InvalidDNSyntax, "%v", err)
	}
	key := se.s.types().NormalDN(name)
	if below, _ := se.s.tree.descendants(key); len(below) > 0 {
		return nil, fail(ldapwire.NotAllowedOnNonLeaf, "subordinate objects must be deleted first")
	}
	t, err := se.target(q.Entry)
	if err != nil {
		if se.special(name) == nil && se.s.tree.get(key) == nil {
			return nil, se.s.noSuch(name)
		}
		return nil, err
	}
	return se.guarded(ctx, m, t, func(r *record) (wrappers.Operation, error) {
		return wrappers.Operation{Verb: wrappers.Delete, Address: t.address, If: asRead(r)}, nil
	})
}

// mostMoved bounds how many entries one deletion or one renaming of a subtree has.
const mostMoved = 10_000

func (se *session) deleteTree(ctx context.Context, q *ldapwire.DelRequest) error {
	name, err := dn.Parse(q.Entry)
	if err != nil {
		return fail(ldapwire.InvalidDNSyntax, "%v", err)
	}
	key := se.s.types().NormalDN(name)
	r := se.s.tree.get(key)
	if _, inside := name.Below(se.s.base); !inside || r == nil {
		return se.s.noSuch(name)
	}
	list, _ := se.s.tree.descendants(key)
	if r.address != "" {
		list = append(list, r)
	}
	switch {
	case len(list) == 0:
		return fail(ldapwire.UnwillingToPerform, "no register makes this entry, nor any below it")
	case len(list) > mostMoved:
		return fail(ldapwire.AdminLimitExceeded, "%d entries: at most %d are deleted at once", len(list), mostMoved)
	}
	parts := make([]wrappers.Operation, len(list))
	for i, one := range list {
		parts[i] = wrappers.Operation{Verb: wrappers.Delete, Address: one.address}
	}
	if len(parts) == 1 {
		_, err = se.commit(ctx, parts[0])
	} else {
		_, err = se.commit(ctx, wrappers.Operation{Parts: parts})
	}
	if err != nil {
		return err
	}
	se.s.tree.await(func() bool {
		for _, one := range list {
			if now := se.s.tree.get(one.key); now != nil && now.address != "" && now.version == one.version {
				return false
			}
		}
		return true
	})
	return nil
}

// await waits until the tree is as it should be, at most shownWithin.
func (t *tree) await(cond func() bool) {
	sub, _ := t.subscribe()
	defer t.unsubscribe(sub)
	timer := time.NewTimer(shownWithin)
	defer timer.Stop()
	for !cond() {
		select {
		case <-sub.signal:
			sub.take()
		case <-timer.C:
			t.s.link.Count("index_late", 1)
			return
		}
	}
}
