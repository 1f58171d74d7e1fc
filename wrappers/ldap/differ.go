package ldap

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/wrappers/ldap/dn"
	"github.com/spooksystems/gateway/wrappers/ldap/entry"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// differ gives the modifications that lead from what an entry has to what it is to have, the attributes that it then has, and
// the values that are written. Values are added and removed one by one; so a group that gets a member is told of one.
func (j *job) differ(have, want []ldapwire.PartialAttribute, members *entry.Members) (changes []ldapwire.Change, next []ldapwire.PartialAttribute, meant map[string]val) {
	meant = map[string]val{}
	types := j.w.a.types.Load()
	rest := slices.Clone(want)
	for _, h := range have {
		name, ok := members.Name(h.Type)
		if !ok {
			continue // not ours: what the feed has asked for beside
		}
		i := slices.IndexFunc(rest, func(a ldapwire.PartialAttribute) bool { return types.Same(a.Type, h.Type) })
		var vals [][]byte
		if i >= 0 {
			vals = rest[i].Vals
			rest = slices.Delete(rest, i, i+1)
		} else if strings.EqualFold(name, "objectClass") {
			vals = h.Vals // no entry is without, and what `create` has is not spoken of later
		}
		vals = j.keepNaming(h, j.asTheyAre(members, h, vals))
		changes = j.modification(changes, h.Type, h.Vals, vals, meant)
		if len(vals) > 0 {
			next = append(next, ldapwire.PartialAttribute{Type: h.Type, Vals: vals})
		}
	}
	for _, a := range rest {
		if len(a.Vals) == 0 {
			continue
		}
		a.Type = transferred(a.Type)
		changes = j.modification(changes, a.Type, nil, a.Vals, meant)
		next = append(next, a)
	}
	return changes, next, meant
}

// asTheyAre gives the values that an attribute is to have, in the bytes that it has them in: a time can be written in several ways.
func (j *job) asTheyAre(members *entry.Members, have ldapwire.PartialAttribute, want [][]byte) [][]byte {
	types := j.w.a.types.Load()
	if t := types.Find(have.Type); t == nil || t.Kind != entry.Time {
		return want
	}
	pay, err := members.Payload([]ldapwire.PartialAttribute{have})
	if err != nil {
		return want
	}
	same, err := types.Attributes(pay.Raw)
	if err != nil || len(same) != 1 || len(same[0].Vals) != len(have.Vals) {
		return want
	}
	want = slices.Clone(want)
	for i, v := range want {
		if k := slices.IndexFunc(same[0].Vals, func(s []byte) bool { return string(s) == string(v) }); k >= 0 {
			want[i] = have.Vals[k]
		}
	}
	return want
}

// binaryOnly are attributes that are transferred as ";binary" alone (RFC 4523, section 2), in small letters.
var binaryOnly = []string{"usercertificate", "cacertificate", "crosscertificatepair", "certificaterevocationlist", "authorityrevocationlist",
	"deltarevocationlist", "supportedalgorithms"}

func transferred(description string) string {
	name, options, _ := strings.Cut(strings.ToLower(description), ";")
	if slices.Contains(binaryOnly, name) && !slices.Contains(strings.Split(options, ";"), "binary") {
		return description + ";binary"
	}
	return description
}

// keepNaming has the values stay that are in the entry's name: they go only with the name (RFC 4511, section 4.6).
func (j *job) keepNaming(have ldapwire.PartialAttribute, want [][]byte) [][]byte {
	if len(j.name) == 0 {
		return want
	}
	types := j.w.a.types.Load()
	for _, ava := range j.name[0] {
		if !types.Same(ava.Type, have.Type) {
			continue
		}
		naming := func(v []byte) bool { return loosely(string(v)) == loosely(ava.Value) }
		if i := slices.IndexFunc(have.Vals, naming); i >= 0 && !slices.ContainsFunc(want, naming) {
			want = append(slices.Clone(want), have.Vals[i])
		}
	}
	return want
}

// mostNamed is up to how many values of an attribute that loses them all are named, so that none is lost that nobody has seen.
const mostNamed = 16

// modification appends what leads an attribute from some values to others.
func (j *job) modification(changes []ldapwire.Change, name string, have, want [][]byte, meant map[string]val) []ldapwire.Change {
	gone, new := missing(have, want), missing(want, have)
	if len(gone) == 0 && len(new) == 0 {
		return changes
	}
	if len(new) > 0 {
		meant[strings.ToLower(name)] = new
	}
	add := func(op ldapwire.ModifyOperation, vals [][]byte) {
		changes = append(changes, ldapwire.Change{Operation: op, Modification: ldapwire.PartialAttribute{Type: name, Vals: vals}})
	}
	all := len(gone) == len(have)
	switch {
	case j.w.replaces(name):
		add(ldapwire.ModifyReplace, want)
	case all && len(want) == 0 && len(have) > mostNamed:
		add(ldapwire.ModifyDelete, nil)
	case all && len(have) > mostNamed:
		add(ldapwire.ModifyReplace, want)
	default:
		if len(gone) > 0 {
			add(ldapwire.ModifyDelete, gone)
		}
		if len(new) > 0 {
			add(ldapwire.ModifyAdd, new)
		}
	}
	return changes
}

// missing gives those of a that are not in b.
func missing(a, b [][]byte) (out [][]byte) {
	if len(a) == 0 {
		return nil
	}
	there := make(map[string]struct{}, len(b))
	for _, v := range b {
		there[string(v)] = struct{}{}
	}
	for _, v := range a {
		if _, ok := there[string(v)]; !ok {
			out = append(out, v)
		}
	}
	return out
}

// parentClasses are the object classes of entries that are made above others, by the attribute that names them (RFC 4519, section
// 3; RFC 4524, section 3). Active Directory has containers of its own.
var parentClasses = map[string][]string{
	"ou": {"organizationalUnit"}, "o": {"organization"}, "dc": {"domain"}, "c": {"country"}, "l": {"locality"}, "st": {"locality"},
	"cn": {"organizationalRole"}, "uid": {"account"},
}

// makeParents makes the entries above a name that are not there, from the base on.
func (w *writer) makeParents(ctx context.Context, s *session, name dn.DN) error {
	base := w.a.opts.base
	rel, ok := name.Below(base)
	if !ok {
		return parked{fmt.Errorf("%s is not below %s", name, base)}
	}
	for i := len(rel) - 1; i >= 1; i-- {
		parent := rel[i:].Join(base)
		if err := w.makeParent(ctx, s, parent); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) makeParent(ctx context.Context, s *session, parent dn.DN) error {
	rdn := parent[0]
	typ := strings.ToLower(w.a.types.Load().Name(rdn[0].Type))
	classes := parentClasses[typ]
	if typ == "cn" && w.a.dse() != nil && w.a.dse().defaultNC != "" {
		classes = []string{"container"}
	}
	if classes == nil || len(rdn) > 1 {
		return parked{fmt.Errorf("the entry above, %s, is not there, and create_parents knows no class for one that is named by %q", parent, rdn[0].Type)}
	}
	q := &ldapwire.AddRequest{Entry: parent.String()}
	var vals [][]byte
	for _, c := range classes {
		vals = append(vals, []byte(c))
	}
	q.Attributes = []ldapwire.PartialAttribute{{Type: "objectClass", Vals: vals}, {Type: rdn[0].Type, Vals: [][]byte{[]byte(rdn[0].Value)}}}
	m, err := s.do(ctx, q)
	if err != nil {
		return err
	}
	switch err := resultError(m); {
	case err == nil:
		w.a.link.Count("parents_made", 1)
		return nil
	case codeOf(err) == ldapwire.EntryAlreadyExists:
		return nil
	default:
		return fmt.Errorf("making the entry above, %s: %w", parent, err)
	}
}
