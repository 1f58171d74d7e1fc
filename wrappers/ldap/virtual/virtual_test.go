package virtual

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/filter"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

// directory is a server whose entries, "uid=…,ou=people" and "cn=…,ou=…,ou=devices", have any attribute.
func directory(t *testing.T, tune func(*wrappers.Config)) (*wrappertest.Link, *caller, string) {
	t.Helper()
	link := wrappertest.NewLinkOf(syntax, "uid={name},ou=people", "cn={name},ou={site},ou=devices")
	patterns, _ := link.Patterns()
	for i := range patterns {
		patterns[i].Open = true
		patterns[i].Members = []wrappers.Member{{Name: "userPassword", In: true, Out: true}}
	}
	link.SetPatterns(patterns...)
	rig := startVirtualAs(t, link, tune)
	c := dialVirtual(t, rig.Addr)
	return link, c, rig.Addr
}

func attr(name string, values ...string) ldapwire.PartialAttribute {
	a := ldapwire.PartialAttribute{Type: name}
	for _, v := range values {
		a.Vals = append(a.Vals, []byte(v))
	}
	return a
}

func person(t *testing.T, c *caller, uid string, more ...ldapwire.PartialAttribute) {
	t.Helper()
	attrs := append([]ldapwire.PartialAttribute{attr("objectClass", "inetOrgPerson"), attr("cn", uid), attr("sn", "x")}, more...)
	if _, err := c.must(&ldapwire.AddRequest{Entry: "uid=" + uid + ",ou=people,dc=plant", Attributes: attrs}); err != nil {
		t.Fatalf("add %s: %v", uid, err)
	}
}

func device(t *testing.T, c *caller, name string) {
	t.Helper()
	if _, err := c.must(&ldapwire.AddRequest{Entry: name + ",ou=devices,dc=plant", Attributes: []ldapwire.PartialAttribute{attr("objectClass", "device")}}); err != nil {
		t.Fatalf("add %s: %v", name, err)
	}
}

func subtreeOf(t *testing.T, base, text string, attributes ...string) *ldapwire.SearchRequest {
	t.Helper()
	f, err := filter.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return &ldapwire.SearchRequest{BaseObject: base, Scope: ldapwire.ScopeWholeSubtree, Filter: f, Attributes: attributes}
}

func names(t *testing.T, c *caller, q *ldapwire.SearchRequest, controls ...ldapwire.Control) []string {
	t.Helper()
	entries, err := c.must(q, controls...)
	if err != nil {
		t.Fatalf("search %s: %v", filter.String(q.Filter), err)
	}
	out := []string{}
	for _, e := range entries {
		out = append(out, e.ObjectName)
	}
	return out
}

func values(e *ldapwire.SearchResultEntry, name string) []string {
	for _, a := range e.Attributes {
		if strings.EqualFold(a.Type, name) {
			return texts(a.Vals)
		}
	}
	return nil
}

func modifyOf(name string, op ldapwire.ModifyOperation, a ldapwire.PartialAttribute) *ldapwire.ModifyRequest {
	return &ldapwire.ModifyRequest{Object: name, Changes: []ldapwire.Change{{Operation: op, Modification: a}}}
}

func TestOwnWritesAreFound(t *testing.T) {
	_, c, _ := directory(t, nil)
	for n := range 50 {
		uid := fmt.Sprintf("p%d", n)
		person(t, c, uid, attr("employeeNumber", fmt.Sprint(n)))
		if got := names(t, c, subtreeOf(t, "dc=plant", fmt.Sprintf("(employeeNumber=%d)", n))); len(got) != 1 {
			t.Fatalf("after add: %v", got)
		}
		name := "uid=" + uid + ",ou=people,dc=plant"
		if _, err := c.must(modifyOf(name, ldapwire.ModifyReplace, attr("employeeNumber", fmt.Sprint(1000+n)))); err != nil {
			t.Fatal(err)
		}
		if got := names(t, c, subtreeOf(t, "dc=plant", fmt.Sprintf("(employeeNumber=%d)", n))); len(got) != 0 {
			t.Fatalf("after modify: the old value finds %v", got)
		}
		if got := names(t, c, subtreeOf(t, "dc=plant", fmt.Sprintf("(employeeNumber=%d)", 1000+n))); len(got) != 1 {
			t.Fatalf("after modify: %v", got)
		}
		if n%2 == 0 {
			if _, err := c.must(&ldapwire.DelRequest{Entry: name}); err != nil {
				t.Fatal(err)
			}
			if got := names(t, c, subtreeOf(t, "dc=plant", "(uid="+uid+")")); len(got) != 0 {
				t.Fatalf("after delete: %v", got)
			}
		}
	}
}

// TestNothingLost: many clients add values to one attribute at once.
func TestNothingLost(t *testing.T) {
	_, c, addr := directory(t, nil)
	person(t, c, "ann", attr("description", "start"))
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			mine := dialVirtual(t, addr)
			for k := range 10 {
				if _, err := mine.must(modifyOf("uid=ann,ou=people,dc=plant", ldapwire.ModifyAdd, attr("description", fmt.Sprintf("v%d-%d", n, k)))); err != nil {
					t.Errorf("add: %v", err)
				}
			}
		})
	}
	wg.Wait()
	entries, err := c.must(subtreeOf(t, "dc=plant", "(uid=ann)"))
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	if got := values(entries[0], "description"); len(got) != 81 {
		t.Errorf("%d values, want 81", len(got))
	}
}

func TestModifyRefusals(t *testing.T) {
	_, c, _ := directory(t, nil)
	person(t, c, "ann")
	ann := "uid=ann,ou=people,dc=plant"
	for _, test := range []struct {
		body ldapwire.Body
		want ldapwire.ResultCode
	}{
		{modifyOf(ann, ldapwire.ModifyDelete, attr("uid")), ldapwire.NotAllowedOnRDN},
		{modifyOf(ann, ldapwire.ModifyReplace, attr("uid", "bob")), ldapwire.NotAllowedOnRDN},
		{modifyOf(ann, ldapwire.ModifyReplace, attr("objectClass", "device")), ldapwire.ObjectClassModsProhibited},
		{modifyOf("dc=plant", ldapwire.ModifyReplace, attr("description", "x")), ldapwire.UnwillingToPerform},
		{modifyOf("ou=people,dc=plant", ldapwire.ModifyReplace, attr("description", "x")), ldapwire.UnwillingToPerform},
		{modifyOf("cn=Subschema", ldapwire.ModifyReplace, attr("description", "x")), ldapwire.UnwillingToPerform},
		{modifyOf("uid=nobody,ou=people,dc=plant", ldapwire.ModifyReplace, attr("description", "x")), ldapwire.NoSuchObject},
		{modifyOf("no name", ldapwire.ModifyReplace, attr("description", "x")), ldapwire.InvalidDNSyntax},
		{modifyOf(ann, ldapwire.ModifyIncrement, attr("uidNumber", "1")), ldapwire.NoSuchAttribute},
		{modifyOf(ann, ldapwire.ModifyOperation(9), attr("description", "x")), ldapwire.ProtocolError},
		{modifyOf(ann, ldapwire.ModifyReplace, attr("entryUUID", "x")), ldapwire.ConstraintViolation},
		{&ldapwire.AddRequest{Entry: "ou=people,dc=plant", Attributes: []ldapwire.PartialAttribute{attr("objectClass", "organizationalUnit")}}, ldapwire.EntryAlreadyExists},
		{&ldapwire.AddRequest{Entry: "o=elsewhere", Attributes: []ldapwire.PartialAttribute{attr("objectClass", "organization")}}, ldapwire.NoSuchObject},
		{&ldapwire.AddRequest{Entry: "o=other,dc=plant", Attributes: []ldapwire.PartialAttribute{attr("objectClass", "organization")}}, ldapwire.UnwillingToPerform},
		{&ldapwire.DelRequest{Entry: "dc=plant"}, ldapwire.NotAllowedOnNonLeaf},
		{&ldapwire.DelRequest{Entry: "cn=Subschema"}, ldapwire.UnwillingToPerform},
		{&ldapwire.DelRequest{Entry: "uid=nobody,ou=people,dc=plant"}, ldapwire.NoSuchObject},
		{&ldapwire.ModifyDNRequest{Entry: ann, NewRDN: "no name"}, ldapwire.InvalidDNSyntax},
		{&ldapwire.ModifyDNRequest{Entry: ann, NewRDN: "cn=ann", DeleteOldRDN: true}, ldapwire.UnwillingToPerform},
		{&ldapwire.ModifyDNRequest{Entry: "uid=nobody,ou=people,dc=plant", NewRDN: "uid=x"}, ldapwire.NoSuchObject},
		{&ldapwire.ExtendedRequest{Name: "1.2.3"}, ldapwire.ProtocolError},
		{&ldapwire.ExtendedRequest{Name: ldapwire.OIDStartTLS}, ldapwire.Unavailable},
		{&ldapwire.BindRequest{Version: 2}, ldapwire.ProtocolError},
		{&ldapwire.BindRequest{Version: 3, Name: ann}, ldapwire.UnwillingToPerform},
		{&ldapwire.BindRequest{Version: 3, SASL: &ldapwire.SaslCredentials{Mechanism: "GSSAPI"}}, ldapwire.AuthMethodNotSupported},
	} {
		m, _, err := c.call(test.body)
		if err != nil {
			t.Fatal(err)
		}
		if r := m.Body.(ldapwire.Response).Result(); r.ResultCode != test.want {
			t.Errorf("%+v: %s %q, want %s", test.body, r.ResultCode, r.DiagnosticMessage, test.want)
		}
	}
}

func TestRename(t *testing.T) {
	link, c, _ := directory(t, nil)
	device(t, c, "cn=a,ou=berlin")
	device(t, c, "cn=b,ou=berlin")
	entries, err := c.must(subtreeOf(t, "dc=plant", "(cn=a)", "entryUUID"))
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	uuid := values(entries[0], "entryUUID")
	// A place that no register makes, with all below it.
	if _, err := c.must(&ldapwire.ModifyDNRequest{Entry: "ou=berlin,ou=devices,dc=plant", NewRDN: "ou=munich", DeleteOldRDN: true}); err != nil {
		t.Fatal(err)
	}
	if got := names(t, c, subtreeOf(t, "ou=devices,dc=plant", "(objectClass=device)")); !slices.Equal(got, []string{"cn=a,ou=munich,ou=devices,dc=plant", "cn=b,ou=munich,ou=devices,dc=plant"}) {
		t.Errorf("after the rename: %v", got)
	}
	if _, there := link.Register("", "cn=a,ou=berlin,ou=devices"); there {
		t.Error("the old register is still there")
	}
	// One entry to another place, with another name.
	superior := "ou=hamburg,ou=devices,dc=plant"
	if _, err := c.must(&ldapwire.ModifyDNRequest{Entry: "cn=a,ou=munich,ou=devices,dc=plant", NewRDN: "cn=c", DeleteOldRDN: true, NewSuperior: &superior}); err != nil {
		t.Fatal(err)
	}
	entries, err = c.must(subtreeOf(t, "dc=plant", "(cn=c)", "entryUUID"))
	if err != nil || len(entries) != 1 || !slices.Equal(values(entries[0], "entryUUID"), uuid) {
		t.Errorf("the entry moved: %+v, %v; want its entryUUID %s", entries, err, uuid)
	}
	if _, err := c.must(&ldapwire.ModifyDNRequest{Entry: "cn=c,ou=hamburg,ou=devices,dc=plant", NewRDN: "cn=b", DeleteOldRDN: true, NewSuperior: new(string)}); !refusedAs(err, ldapwire.AffectsMultipleDSAs) {
		t.Errorf("to the root: %v", err)
	}
	munich := "ou=munich,ou=devices,dc=plant"
	if _, err := c.must(&ldapwire.ModifyDNRequest{Entry: "cn=c,ou=hamburg,ou=devices,dc=plant", NewRDN: "cn=b", DeleteOldRDN: true, NewSuperior: &munich}); !refusedAs(err, ldapwire.EntryAlreadyExists) {
		t.Errorf("to one that is there: %v", err)
	}
	// All of it.
	tree := ldapwire.Control{Type: ldapwire.OIDTreeDelete, Criticality: true}
	if _, err := c.must(&ldapwire.DelRequest{Entry: "ou=devices,dc=plant"}, tree); err != nil {
		t.Fatal(err)
	}
	if got := names(t, c, subtreeOf(t, "ou=devices,dc=plant", "(objectClass=device)")); len(got) != 0 {
		t.Errorf("after the deletion: %v", got)
	}
}

func TestControls(t *testing.T) {
	_, c, _ := directory(t, nil)
	person(t, c, "ann", attr("title", "Boss"))
	ann := "uid=ann,ou=people,dc=plant"
	assert := func(text string) ldapwire.Control {
		return ldapwire.Control{Type: ldapwire.OIDAssertion, Criticality: true, Value: ldapwire.EncodeFilter(subtreeOf(t, "", text).Filter)}
	}
	if _, err := c.must(modifyOf(ann, ldapwire.ModifyReplace, attr("title", "x")), assert("(title=Chief)")); !refusedAs(err, ldapwire.AssertionFailed) {
		t.Errorf("assertion: %v", err)
	}
	m, _, err := c.call(modifyOf(ann, ldapwire.ModifyReplace, attr("title", "Chief")), assert("(title=boss)"),
		ldapwire.Control{Type: ldapwire.OIDPreRead, Value: ldapwire.EncodeAttributeSelection("title")}, ldapwire.Control{Type: ldapwire.OIDPostRead, Value: ldapwire.EncodeAttributeSelection("title")})
	if err != nil {
		t.Fatal(err)
	}
	for oid, want := range map[string]string{ldapwire.OIDPreRead: "Boss", ldapwire.OIDPostRead: "Chief"} {
		k := ldapwire.FindControl(m.Controls, oid)
		if k == nil {
			t.Errorf("no %s in %+v", oid, m)
			continue
		}
		e, err := ldapwire.DecodeReadEntry(k.Value)
		if err != nil || !slices.Equal(values(e, "title"), []string{want}) {
			t.Errorf("%s: %+v, %v", oid, e, err)
		}
	}
	if _, err := c.must(subtreeOf(t, "dc=plant", "(cn=*)"), ldapwire.Control{Type: "1.2.3", Criticality: true}); !refusedAs(err, ldapwire.UnavailableCriticalExtension) {
		t.Errorf("unknown control: %v", err)
	}
	if _, err := c.must(&ldapwire.DelRequest{Entry: ann}, assert("(title=boss)")); !refusedAs(err, ldapwire.AssertionFailed) {
		t.Errorf("delete with an assertion: %v", err)
	}
}

func TestPages(t *testing.T) {
	link, c, _ := directory(t, nil)
	for n := range 25 {
		person(t, c, fmt.Sprintf("p%02d", n), attr("employeeNumber", fmt.Sprint(n%5)))
	}
	q := subtreeOf(t, "ou=people,dc=plant", "(objectClass=person)", "uid", "employeeNumber")
	page := func(size int64, cookie []byte, more ...ldapwire.Control) ([]string, []byte, ldapwire.ResultCode) {
		t.Helper()
		m, entries, err := c.call(q, append(more, ldapwire.Control{Type: ldapwire.OIDPagedResults, Value: ldapwire.EncodePaged(size, cookie)})...)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range entries {
			got = append(got, e.ObjectName)
		}
		code := m.Body.(ldapwire.Response).Result().ResultCode
		k := ldapwire.FindControl(m.Controls, ldapwire.OIDPagedResults)
		if k == nil {
			return got, nil, code
		}
		_, next, err := ldapwire.DecodePaged(k.Value)
		if err != nil {
			t.Fatal(err)
		}
		return got, next, code
	}
	var all []string
	var cookie []byte
	for n := 0; n == 0 || len(cookie) > 0; n++ {
		var got []string
		got, cookie, _ = page(10, cookie)
		all = append(all, got...)
		if n == 0 { // what changes meanwhile is not in the pages of this search
			link.Push(wrappers.Operation{Verb: wrappers.Delete, Address: "uid=p24,ou=people"})
		}
	}
	slices.Sort(all)
	if len(all) != 25 || len(slices.Compact(all)) != 25 {
		t.Errorf("%d entries: %v", len(all), all)
	}
	if _, _, code := page(10, []byte("999")); code != ldapwire.UnwillingToPerform {
		t.Errorf("a cookie of nothing: %s", code)
	}
	_, cookie, _ = page(10, nil)
	if got, next, code := page(0, cookie); len(got) != 0 || len(next) != 0 || code != ldapwire.Success {
		t.Errorf("given up: %v, %q, %s", got, next, code)
	}
	q.SizeLimit = 15
	_, cookie, _ = page(10, nil)
	if got, _, code := page(10, cookie); len(got) != 5 || code != ldapwire.SizeLimitExceeded {
		t.Errorf("beyond the size limit: %v, %s", got, code)
	}
	q.SizeLimit = 0
	sort := ldapwire.Control{Type: ldapwire.OIDServerSort, Criticality: true, Value: ldapwire.EncodeSort(ldapwire.SortKey{Attribute: "employeeNumber", Reverse: true}, ldapwire.SortKey{Attribute: "uid"})}
	if got, _, _ := page(3, nil, sort); !slices.Equal(got, []string{"uid=p04,ou=people,dc=plant", "uid=p09,ou=people,dc=plant", "uid=p14,ou=people,dc=plant"}) {
		t.Errorf("sorted: %v", got)
	}
	if _, err := c.must(q, ldapwire.Control{Type: ldapwire.OIDServerSort, Criticality: true, Value: ldapwire.EncodeSort(ldapwire.SortKey{Attribute: "nosuchattribute"})}); !refusedAs(err, ldapwire.UnavailableCriticalExtension) {
		t.Errorf("sorted by nothing: %v", err)
	}
}

func syncControl(mode int64, cookie []byte) ldapwire.Control {
	q := ldapwire.SyncRequest{Mode: mode, Cookie: cookie}
	return ldapwire.Control{Type: ldapwire.OIDSyncRequest, Criticality: true, Value: q.Encode()}
}

func TestSyncRefreshOnly(t *testing.T) {
	_, c, _ := directory(t, nil)
	person(t, c, "ann")
	person(t, c, "bob")
	q := subtreeOf(t, "ou=people,dc=plant", "(objectClass=inetOrgPerson)", "title")
	done := func(m *ldapwire.Message) ldapwire.SyncDone {
		t.Helper()
		k := ldapwire.FindControl(m.Controls, ldapwire.OIDSyncDone)
		if k == nil {
			t.Fatalf("no sync done: %+v", m.Body)
		}
		d, err := ldapwire.DecodeSyncDone(k.Value)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	m, entries, err := c.call(q, syncControl(ldapwire.RefreshOnly, nil))
	if err != nil || len(entries) != 2 || done(m).RefreshDeletes {
		t.Fatalf("all: %d entries, %v", len(entries), err)
	}
	cookie := done(m).Cookie
	if _, err := c.must(modifyOf("uid=bob,ou=people,dc=plant", ldapwire.ModifyReplace, attr("title", "x"))); err != nil {
		t.Fatal(err)
	}
	m, entries, err = c.call(q, syncControl(ldapwire.RefreshOnly, cookie))
	if err != nil || len(entries) != 1 || entries[0].ObjectName != "uid=bob,ou=people,dc=plant" || !done(m).RefreshDeletes {
		t.Errorf("what changed: %+v, %v", entries, err)
	}
	m, entries, err = c.call(q, syncControl(ldapwire.RefreshOnly, done(m).Cookie))
	if err != nil || len(entries) != 0 {
		t.Errorf("nothing changed: %+v, %v", entries, err)
	}
	_ = m
	if m, entries, err = c.call(q, syncControl(ldapwire.RefreshOnly, []byte("of another server"))); err != nil || len(entries) != 2 || done(m).RefreshDeletes {
		t.Errorf("an unknown cookie: %+v, %v", entries, err)
	}
}

func TestSyncPersists(t *testing.T) {
	link, c, addr := directory(t, nil)
	person(t, c, "ann")
	s := dialVirtual(t, addr)
	m := ldapwire.Message{MessageID: 7, Body: subtreeOf(t, "ou=people,dc=plant", "(objectClass=inetOrgPerson)"), Controls: []ldapwire.Control{syncControl(ldapwire.RefreshAndPersist, nil)}}
	if _, err := s.conn.Write(m.Encode()); err != nil {
		t.Fatal(err)
	}
	next := func(want string, state ldapwire.SyncStateKind) ldapwire.SyncState {
		t.Helper()
		m, err := receive(s.in)
		if err != nil {
			t.Fatal(err)
		}
		e, ok := m.Body.(*ldapwire.SearchResultEntry)
		k := ldapwire.FindControl(m.Controls, ldapwire.OIDSyncState)
		if !ok || k == nil {
			t.Fatalf("got %+v, want an entry", m.Body)
		}
		st, err := ldapwire.DecodeSyncState(k.Value)
		if err != nil || e.ObjectName != want || st.State != state {
			t.Errorf("got %s, state %d, %v; want %s, %d", e.ObjectName, st.State, err, want, state)
		}
		return st
	}
	first := next("uid=ann,ou=people,dc=plant", ldapwire.SyncAdd)
	if m, err := receive(s.in); err != nil || m.Body.Op() != ldapwire.OpIntermediateResponse {
		t.Fatalf("got %+v, %v; want the end of the refresh", m, err)
	}
	if _, err := c.must(modifyOf("uid=ann,ou=people,dc=plant", ldapwire.ModifyReplace, attr("title", "x"))); err != nil {
		t.Fatal(err)
	}
	if st := next("uid=ann,ou=people,dc=plant", ldapwire.SyncModify); st.EntryUUID != first.EntryUUID || len(st.Cookie) == 0 {
		t.Errorf("%+v, first %+v", st, first)
	}
	link.Push(wrappers.Operation{Verb: wrappers.Delete, Address: "uid=ann,ou=people"})
	next("uid=ann,ou=people,dc=plant", ldapwire.SyncDelete)

	// Cancel: the search is answered with canceled, then the Cancel itself.
	s.id = 100
	cancel := ldapwire.Message{MessageID: 8, Body: &ldapwire.ExtendedRequest{Name: ldapwire.OIDCancel, Value: []byte{0x30, 3, 2, 1, 7}}}
	if _, err := s.conn.Write(cancel.Encode()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		id   int32
		code ldapwire.ResultCode
	}{{7, ldapwire.Canceled}, {8, ldapwire.Success}} {
		m, err := receive(s.in)
		if err != nil || m.MessageID != want.id || m.Body.(ldapwire.Response).Result().ResultCode != want.code {
			t.Fatalf("got %+v, %v; want %+v", m, err, want)
		}
	}
	if m, _, err := s.call(&ldapwire.ExtendedRequest{Name: ldapwire.OIDCancel, Value: []byte{0x30, 3, 2, 1, 7}}); err != nil || m.Body.(ldapwire.Response).Result().ResultCode != ldapwire.NoSuchOperation {
		t.Errorf("cancel again: %+v, %v", m, err)
	}
}

func TestAbandon(t *testing.T) {
	_, c, _ := directory(t, nil)
	p := ldapwire.PersistentSearch{ChangeTypes: 15, ChangesOnly: true}
	m := ldapwire.Message{MessageID: 7, Body: subtreeOf(t, "dc=plant", "(objectClass=*)"), Controls: []ldapwire.Control{{Type: ldapwire.OIDPersistent, Criticality: true, Value: p.Encode()}}}
	abandon := ldapwire.Message{MessageID: 8, Body: &ldapwire.AbandonRequest{MessageID: 7}}
	if _, err := c.conn.Write(abandon.Append(m.Encode())); err != nil {
		t.Fatal(err)
	}
	c.id = 8
	person(t, c, "ann") // an answer of the abandoned search would come before that of the add

	// What is answered is sent even if what follows it in one packet has no answer.
	search := ldapwire.Message{MessageID: 100, Body: subtreeOf(t, "", "(objectClass=*)")}
	search.Body.(*ldapwire.SearchRequest).Scope = ldapwire.ScopeBaseObject
	abandon.MessageID = 101
	if _, err := c.conn.Write(abandon.Append(search.Encode())); err != nil {
		t.Fatal(err)
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(10 * time.Second)) // of a socket that is open
	for _, want := range []ldapwire.Op{ldapwire.OpSearchResultEntry, ldapwire.OpSearchResultDone} {
		if m, err := receive(c.in); err != nil || m.Body.Op() != want {
			t.Fatalf("got %+v, %v; want %s", m, err, want)
		}
	}
	search.MessageID = 102
	unbind := ldapwire.Message{MessageID: 103, Body: &ldapwire.UnbindRequest{}}
	if _, err := c.conn.Write(unbind.Append(search.Encode())); err != nil {
		t.Fatal(err)
	}
	if m, err := receive(c.in); err != nil || m.Body.Op() != ldapwire.OpSearchResultEntry {
		t.Errorf("before an unbind: %+v, %v", m, err)
	}
}

// users is a Logon of one user.
type users struct{}

func (users) Any() bool { return true }
func (users) Password(_ context.Context, user, password string) (string, error) {
	if user == "ann" && password == "secret" {
		return "ann", nil
	}
	return "", wrappers.ErrDenied
}
func (users) Scram(user string) (wrappers.ScramKeys, string, bool) {
	client, server := scramKeys("secret")
	stored := sha256.Sum256(client)
	return wrappers.ScramKeys{Salt: []byte("salt"), Iterations: 4096, StoredKey: stored[:], ServerKey: server}, "ann", user == "ann"
}

func mac(key, msg []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(msg)
	return h.Sum(nil)
}

// scramKeys are ClientKey and ServerKey (RFC 5802, section 3).
func scramKeys(password string) (client, server []byte) {
	salted, err := pbkdf2.Key(sha256.New, password, []byte("salt"), 4096, sha256.Size)
	if err != nil {
		panic(err)
	}
	return mac(salted, []byte("Client Key")), mac(salted, []byte("Server Key"))
}

// TestScram: the client's side of RFC 7677, in two binds.
func TestScram(t *testing.T) {
	_, c, _ := directory(t, func(cfg *wrappers.Config) { cfg.Logon, cfg.Anonymous = users{}, wrappers.NoAccess })
	bind := func(creds string) *ldapwire.BindResponse {
		t.Helper()
		m, _, err := c.call(&ldapwire.BindRequest{Version: 3, SASL: &ldapwire.SaslCredentials{Mechanism: "SCRAM-SHA-256", Credentials: []byte(creds)}})
		if err != nil {
			t.Fatal(err)
		}
		return m.Body.(*ldapwire.BindResponse)
	}
	exchange := func(user, password string) *ldapwire.BindResponse {
		t.Helper()
		bare := "n=" + user + ",r=nonce"
		first := bind("n,," + bare)
		if first.ResultCode != ldapwire.SaslBindInProgress {
			t.Fatalf("%s: %s", user, first.ResultCode)
		}
		nonce, _, _ := strings.Cut(string(first.ServerSaslCreds), ",")
		without := "c=biws," + nonce
		auth := []byte(bare + "," + string(first.ServerSaslCreds) + "," + without)
		client, server := scramKeys(password)
		stored := sha256.Sum256(client)
		proof := make([]byte, len(client))
		subtle.XORBytes(proof, client, mac(stored[:], auth))
		last := bind(without + ",p=" + base64.StdEncoding.EncodeToString(proof))
		if want := "v=" + base64.StdEncoding.EncodeToString(mac(server, auth)); last.ResultCode == ldapwire.Success && string(last.ServerSaslCreds) != want {
			t.Errorf("the server's proof is %q, want %q", last.ServerSaslCreds, want)
		}
		return last
	}
	if r := exchange("ann", "secret"); r.ResultCode != ldapwire.Success {
		t.Errorf("the right password: %s", r.ResultCode)
	}
	if _, err := c.must(subtreeOf(t, "dc=plant", "(objectClass=*)")); err != nil {
		t.Errorf("a search: %v", err)
	}
	if r := exchange("ann", "wrong"); r.ResultCode != ldapwire.InvalidCredentials {
		t.Errorf("a wrong password: %s", r.ResultCode)
	}
	if r := exchange("nobody", "secret"); r.ResultCode != ldapwire.InvalidCredentials {
		t.Errorf("nobody: %s", r.ResultCode)
	}
	if r := bind("rubbish"); r.ResultCode != ldapwire.ProtocolError {
		t.Errorf("rubbish: %s", r.ResultCode)
	}
}

func TestLogon(t *testing.T) {
	link, c, _ := directory(t, func(cfg *wrappers.Config) { cfg.Logon, cfg.Anonymous = users{}, wrappers.NoAccess })
	if _, err := c.must(subtreeOf(t, "dc=plant", "(objectClass=*)")); !refusedAs(err, ldapwire.InsufficientAccessRights) {
		t.Errorf("before the logon: %v", err)
	}
	if _, err := c.must(&ldapwire.SearchRequest{Filter: everyEntry}); err != nil {
		t.Errorf("the root DSE before the logon: %v", err)
	}
	if _, err := c.must(&ldapwire.BindRequest{Version: 3}); !refusedAs(err, ldapwire.InappropriateAuthentication) {
		t.Errorf("anonymous: %v", err)
	}
	ann := "uid=ann,ou=people,dc=plant"
	if _, err := c.must(&ldapwire.BindRequest{Version: 3, Name: ann, Simple: []byte("wrong")}); !refusedAs(err, ldapwire.InvalidCredentials) {
		t.Errorf("wrong password: %v", err)
	}
	if n := link.Counted("refused_auth"); n != 1 {
		t.Errorf("refused_auth: %d", n)
	}
	who := func() string {
		m, _, err := c.call(&ldapwire.ExtendedRequest{Name: ldapwire.OIDWhoAmI})
		if err != nil {
			t.Fatal(err)
		}
		return string(m.Body.(*ldapwire.ExtendedResponse).Value)
	}
	if _, err := c.must(&ldapwire.BindRequest{Version: 3, Name: ann, Simple: []byte("secret")}); err != nil || who() != "dn:"+ann {
		t.Errorf("simple: %v, %q", err, who())
	}
	plain := &ldapwire.SaslCredentials{Mechanism: "PLAIN", Credentials: []byte("\x00ann\x00secret")}
	if _, err := c.must(&ldapwire.BindRequest{Version: 3, SASL: plain}); err != nil || who() != "u:ann" {
		t.Errorf("PLAIN: %v, %q", err, who())
	}
	person(t, c, "ann", attr("userPassword", "old"))
	m, _, err := c.call(&ldapwire.ExtendedRequest{Name: ldapwire.OIDPasswordModify, Value: passwordModify(ann, "old", "new")})
	if err != nil || m.Body.(*ldapwire.ExtendedResponse).ResultCode != ldapwire.Success {
		t.Fatalf("password modify: %+v, %v", m, err)
	}
	entries, err := c.must(subtreeOf(t, "dc=plant", "(uid=ann)", "userPassword"))
	if err != nil || len(entries) != 1 || len(values(entries[0], "userPassword")) != 1 || !passwordFits(values(entries[0], "userPassword")[0], "new") {
		t.Errorf("the password: %+v, %v", entries, err)
	}
	if m, _, err = c.call(&ldapwire.ExtendedRequest{Name: ldapwire.OIDPasswordModify, Value: passwordModify(ann, "old", "newer")}); err != nil || m.Body.(*ldapwire.ExtendedResponse).ResultCode != ldapwire.UnwillingToPerform {
		t.Errorf("with a wrong old password: %+v, %v", m, err)
	}
}

func passwordModify(user, old, new string) []byte {
	b := ldapwire.AppendTLV(nil, 0x80, []byte(user))
	b = ldapwire.AppendTLV(ldapwire.AppendTLV(b, 0x81, []byte(old)), 0x82, []byte(new))
	return ldapwire.AppendTLV(nil, 0x30, b)
}

// certificates makes an authority, a server's certificate and a client's.
func certificates(t *testing.T, user string) (pool *x509.CertPool, server, client tls.Certificate) {
	t.Helper()
	sign := func(c *x509.Certificate, parent *x509.Certificate, by *ecdsa.PrivateKey) (tls.Certificate, *x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		if parent == nil {
			parent, by = c, key
		}
		raw, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := x509.ParseCertificate(raw)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}, parsed, key
	}
	_, ca, key := sign(&x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	server, _, _ = sign(&x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, ca, key)
	client, _, _ = sign(&x509.Certificate{SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: user}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, ca, key)
	pool = x509.NewCertPool()
	pool.AddCert(ca)
	return pool, server, client
}

func TestTLS(t *testing.T) {
	pool, server, client := certificates(t, "ann")
	_, c, addr := directory(t, func(cfg *wrappers.Config) {
		cfg.TLS = &tls.Config{Certificates: []tls.Certificate{server}, ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven}
	})
	if _, err := c.must(subtreeOf(t, "dc=plant", "(objectClass=*)")); !refusedAs(err, ldapwire.ConfidentialityRequired) {
		t.Errorf("a search in clear: %v", err)
	}
	entries, err := c.must(&ldapwire.SearchRequest{Filter: everyEntry, Attributes: []string{"+"}})
	if err != nil || !slices.Contains(values(entries[0], "supportedExtension"), ldapwire.OIDStartTLS) {
		t.Errorf("the root DSE: %+v, %v", entries, err)
	}
	if _, err := c.must(&ldapwire.ExtendedRequest{Name: ldapwire.OIDStartTLS}); err != nil {
		t.Fatal(err)
	}
	external := func(conn net.Conn) {
		t.Helper()
		c := &caller{conn: tls.Client(conn, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", Certificates: []tls.Certificate{client}})}
		c.in = bufio.NewReader(c.conn)
		if _, err := c.must(&ldapwire.BindRequest{Version: 3, SASL: &ldapwire.SaslCredentials{Mechanism: "EXTERNAL"}}); err != nil {
			t.Fatalf("EXTERNAL: %v", err)
		}
		m, _, err := c.call(&ldapwire.ExtendedRequest{Name: ldapwire.OIDWhoAmI})
		if err != nil || string(m.Body.(*ldapwire.ExtendedResponse).Value) != "u:ann" {
			t.Errorf("who am I: %+v, %v", m, err)
		}
		if got := names(t, c, subtreeOf(t, "dc=plant", "(objectClass=domain)")); len(got) != 1 {
			t.Errorf("a search under TLS: %v", got)
		}
	}
	external(c.conn) // after StartTLS
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	external(conn) // LDAPS

	// What is sent in clear behind StartTLS is not taken for something said under TLS.
	d := dialVirtual(t, addr)
	start := ldapwire.Message{MessageID: 1, Body: &ldapwire.ExtendedRequest{Name: ldapwire.OIDStartTLS}}
	behind := ldapwire.Message{MessageID: 2, Body: &ldapwire.ExtendedRequest{Name: ldapwire.OIDWhoAmI}}
	if _, err := d.conn.Write(behind.Append(start.Encode())); err != nil {
		t.Fatal(err)
	}
	_ = d.conn.SetReadDeadline(time.Now().Add(10 * time.Second)) // of a socket that is open
	if m, err := receive(d.in); err != nil || m.MessageID != 0 {
		t.Errorf("got %+v, %v; want a notice of disconnection", m, err)
	}
	if _, err := receive(d.in); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("then: %v, want the end", err)
	}
}

// TestReload: entries come and go with the mapping.
func TestReload(t *testing.T) {
	link, c, addr := directory(t, nil)
	person(t, c, "ann")
	device(t, c, "cn=a,ou=berlin")
	s := dialVirtual(t, addr)
	_ = s.conn.SetReadDeadline(time.Now().Add(10 * time.Second)) // of a socket that is open
	q := subtreeOf(t, "dc=plant", "(objectClass=device)")
	p := ldapwire.PersistentSearch{ChangeTypes: ldapwire.ChangeDelete}
	m := ldapwire.Message{MessageID: 1, Body: q, Controls: []ldapwire.Control{{Type: ldapwire.OIDPersistent, Criticality: true, Value: p.Encode()}}}
	if _, err := s.conn.Write(m.Encode()); err != nil {
		t.Fatal(err)
	}
	if _, err := receive(s.in); err != nil { // it is at work
		t.Fatal(err)
	}
	patterns, _ := link.Patterns()
	link.SetPatterns(patterns[0])
	for { // the persistent search tells when the entry goes
		m, err := receive(s.in)
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := m.Body.(*ldapwire.SearchResultEntry); ok && e.ObjectName == "cn=a,ou=berlin,ou=devices,dc=plant" {
			break
		}
	}
	if got := names(t, c, subtreeOf(t, "dc=plant", "(objectClass=device)")); len(got) != 0 {
		t.Errorf("what is mapped no more: %v", got)
	}
	if got := names(t, c, subtreeOf(t, "dc=plant", "(objectClass=inetOrgPerson)")); len(got) != 1 {
		t.Errorf("what is still mapped: %v", got)
	}
}
