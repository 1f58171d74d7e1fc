package ldap

import (
	"context"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/dn"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// A job is one change on its way to the server.
type job struct {
	w        *writer
	s        *session
	binds    *binds
	path     string
	change   wrappers.Change
	name     dn.DN
	expected string // version
}

// controls are those that make a write conditional on a version, and tell the next one.
func (j *job) controls(version string) []ldapwire.Control {
	var out []ldapwire.Control
	dse, f := j.w.a.dse(), j.w.a.current()
	if f == nil || f.csn == "" || f.csn == usnChanged {
		return nil
	}
	if version != "" && dse.offers(ldapwire.OIDAssertion) {
		out = append(out, ldapwire.Control{Type: ldapwire.OIDAssertion, Criticality: true, Value: ldapwire.EncodeFilter(equality(f.csn, version))})
	}
	if dse.offers(ldapwire.OIDPostRead) {
		out = append(out, ldapwire.Control{Type: ldapwire.OIDPostRead, Value: ldapwire.EncodeAttributeSelection(f.csn)})
	}
	return out
}

// conditional tells whether the server writes under a condition.
func (j *job) conditional() bool {
	f := j.w.a.current()
	return f != nil && j.w.a.assertsVersions(f)
}

// do performs a write to an entry that has a version, "" if it has none yet, of which the feed will show the result. meant are the values written, by attribute.
func (j *job) do(ctx context.Context, version string, meant map[string]val, body ldapwire.Body, controls ...ldapwire.Control) (csn string, err error) {
	own := j.w.a.own
	own.begin(j.path, version, meant)
	defer func() { own.end(j.path, csn) }()
	m, err := j.s.do(ctx, body, controls...)
	if err != nil {
		return "", err
	}
	if err := resultError(m); err != nil {
		return "", err
	}
	j.w.a.link.Count("entries_written", 1)
	if c := ldapwire.FindControl(m.Controls, ldapwire.OIDPostRead); c != nil {
		if e, err := ldapwire.DecodeReadEntry(c.Value); err == nil {
			csn = value(e, "entryCSN")
		}
	}
	j.w.accept(j.path, csn)
	return csn, nil
}

// remove deletes an entry that is as it was last seen.
func (j *job) remove(ctx context.Context) error {
	if !j.conditional() && j.expected != "" {
		if _, err := j.read(ctx); err != nil {
			return err
		}
	}
	controls := slices.DeleteFunc(j.controls(j.expected), func(c ldapwire.Control) bool { return c.Type == ldapwire.OIDPostRead })
	_, err := j.do(ctx, j.expected, nil, &ldapwire.DelRequest{Entry: j.name.String()}, controls...)
	switch codeOf(err) {
	case ldapwire.NoSuchObject:
		return nil
	case ldapwire.AssertionFailed:
		return errMet
	}
	if err == nil {
		j.w.a.docs.drop(j.change.Address)
		j.w.mu.Lock()
		delete(j.w.leaves, j.path)
		j.w.mu.Unlock()
	}
	return err
}

// create makes an entry.
func (j *job) create(ctx context.Context) (string, error) {
	want, err := j.w.a.types.Load().Attributes(j.change.Payload.Raw)
	if err != nil {
		return "", parked{err}
	}
	attributes := j.named(want)
	meant := map[string]val{}
	for _, a := range attributes {
		meant[strings.ToLower(a.Type)] = a.Vals
	}
	q := &ldapwire.AddRequest{Entry: j.name.String(), Attributes: attributes}
	csn, err := j.do(ctx, "", meant, q, j.controls("")...)
	if codeOf(err) == ldapwire.NoSuchObject && j.w.a.opts.createParents {
		if err := j.w.makeParents(ctx, j.s, j.name); err != nil {
			return "", err
		}
		csn, err = j.do(ctx, "", meant, q, j.controls("")...)
	}
	switch {
	case codeOf(err) == ldapwire.EntryAlreadyExists:
		return "", errMet
	case err == nil:
		j.w.a.docs.put(j.change.Address, csn, want, j.binds)
	}
	return csn, err
}

// named gives the attributes with the values that the entry's name has (RFC 4512, section 2.3), and without those that have none.
func (j *job) named(want []ldapwire.PartialAttribute) []ldapwire.PartialAttribute {
	types := j.w.a.types.Load()
	out := slices.DeleteFunc(slices.Clone(want), func(a ldapwire.PartialAttribute) bool { return len(a.Vals) == 0 })
	for i := range out {
		out[i].Type = transferred(out[i].Type)
	}
	if len(j.name) == 0 {
		return out
	}
	for _, ava := range j.name[0] {
		i := slices.IndexFunc(out, func(a ldapwire.PartialAttribute) bool { return types.Same(a.Type, ava.Type) })
		if i < 0 {
			out = append(out, ldapwire.PartialAttribute{Type: ava.Type, Vals: [][]byte{[]byte(ava.Value)}})
			continue
		}
		if !slices.ContainsFunc(out[i].Vals, func(v []byte) bool { return loosely(string(v)) == loosely(ava.Value) }) {
			out[i].Vals = append(slices.Clone(out[i].Vals), []byte(ava.Value))
		}
	}
	return out
}

// read gives the entry as it is now, if it has the version that is expected.
func (j *job) read(ctx context.Context) (*ldapwire.SearchResultEntry, error) {
	f := j.w.a.current()
	if f == nil {
		return nil, errNoFeed
	}
	e, err := j.s.one(ctx, j.name.String(), f.attributes()...)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, errMet // it has gone
	}
	if j.expected != "" && f.version(e) != "" && f.version(e) != j.expected {
		return nil, errMet
	}
	return e, nil
}

// modify changes what differs. An entry that is remembered in the version that the change is for need not be read.
func (j *job) modify(ctx context.Context) (string, error) {
	a := j.w.a
	have, known := a.docs.get(j.change.Address, j.expected, j.binds)
	version := j.expected
	var read *ldapwire.SearchResultEntry
	if !known || !j.conditional() {
		var err error
		if read, err = j.read(ctx); err != nil {
			return "", err
		}
		if f := a.current(); f != nil {
			version = f.version(read)
		}
		have, _ = a.renders.apply(j.change.Address, j.binds.without(read.Attributes), nil)
		a.link.Count("entries_read", 1)
	}
	members := j.binds.members(j.change.Address)
	pay := j.change.Payload
	if j.change.Onto != nil {
		doc, err := members.Payload(have)
		if err == nil {
			pay, err = j.change.Onto(doc)
		}
		if err != nil {
			return "", parked{err}
		}
	}
	want, err := a.types.Load().Attributes(pay.Raw)
	if err != nil {
		return "", parked{err}
	}
	for whole := false; ; whole = true {
		changes, next, meant := j.differ(have, want, members)
		if len(changes) == 0 {
			// It has it already. The feed has nothing to show then, so what is on its way to the entry is shown now.
			return version, j.unchanged(ctx, read)
		}
		csn, err := j.do(ctx, version, meant, &ldapwire.ModifyRequest{Object: j.name.String(), Changes: changes}, j.controls(version)...)
		switch codeOf(err) {
		case ldapwire.AssertionFailed, ldapwire.NoSuchAttribute, ldapwire.AttributeOrValueExists, ldapwire.NoSuchObject:
			a.docs.drop(j.change.Address)
			return "", errMet
		case ldapwire.InappropriateMatching:
			if whole {
				return "", err
			}
			j.w.incomparable(changes)
			continue
		}
		if err != nil {
			return "", err
		}
		a.docs.put(j.change.Address, csn, next, j.binds)
		return csn, nil
	}
}

// unchanged has the feed show an entry once more that needs no write.
func (j *job) unchanged(ctx context.Context, read *ldapwire.SearchResultEntry) error {
	f := j.w.a.current()
	if f == nil {
		return errNoFeed
	}
	if read == nil {
		var err error
		if read, err = j.read(ctx); err != nil {
			return err
		}
	}
	return f.show(ctx, j.change.Address, read)
}

// incomparable notes attributes of whose values the server has no equality (RFC 4512, section 2.5.1): they are replaced.
func (w *writer) incomparable(changes []ldapwire.Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range changes {
		w.whole[strings.ToLower(c.Modification.Type)] = true
	}
}

func (w *writer) replaces(attribute string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.whole[strings.ToLower(attribute)]
}
