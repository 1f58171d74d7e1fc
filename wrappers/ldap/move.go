package ldap

import (
	"context"

	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// move renames the entry that a register had under its old name (RFC 4511, section 4.9), and then changes what else differs. Where
// the server has no such entry, or it has others below it that stay, a new one is made.
func (j *job) move(ctx context.Context) (string, error) {
	from, err := j.w.a.nameOf(j.change.From)
	if err != nil {
		return "", parked{err}
	}
	below, err := j.below(ctx, j.change.From)
	switch {
	case err != nil:
		return "", err
	case below || len(from) == 0 || len(j.name) == 0:
		return j.create(ctx)
	}
	superior := j.name.Parent()
	q := &ldapwire.ModifyDNRequest{Entry: from.String(), NewRDN: j.name[:1].String(), DeleteOldRDN: true}
	if !superior.Equal(from.Parent()) {
		text := superior.String()
		q.NewSuperior = &text
		// A server says noSuchObject of the entry and of its new parent alike.
		there, err := j.s.one(ctx, text, "1.1")
		if err != nil {
			return "", err
		}
		if there == nil && j.w.a.opts.createParents {
			if err := j.w.makeParents(ctx, j.s, j.name); err != nil {
				return "", err
			}
		}
	}
	csn, err := j.do(ctx, "", nil, q, j.controls("")...)
	switch codeOf(err) {
	case ldapwire.NoSuchObject:
		return j.create(ctx)
	case ldapwire.EntryAlreadyExists:
		return "", errMet
	}
	if err != nil {
		return "", err
	}
	j.w.a.link.Count("entries_renamed", 1)
	j.w.a.docs.drop(j.change.From)
	j.w.a.docs.drop(j.change.Address)
	j.w.accept(path(j.change.From), "")
	j.expected = csn
	return j.modify(ctx)
}

// below tells whether entries stand below an address.
func (j *job) below(ctx context.Context, address string) (bool, error) {
	for rec, err := range j.w.a.link.Kept(ctx, placeKey+path(address)+",") {
		return rec.Value != nil, err
	}
	return false, nil
}
