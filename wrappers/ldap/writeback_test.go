package ldap

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/entry"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

// outcome waits until an address is settled n times, and gives the last one.
func outcome(t *testing.T, link *wrappertest.Link, address string, n int) wrappers.Effect {
	t.Helper()
	var all []wrappertest.Settled
	link.Await(t, fmt.Sprintf("%s to be settled", address), func() bool {
		all = slices.DeleteFunc(link.Settlements(), func(s wrappertest.Settled) bool { return s.Change.Address != address })
		return len(all) >= n
	})
	return all[n-1].Effect
}

// done waits until the newest state of an address is written.
func done(t *testing.T, link *wrappertest.Link, address string) {
	t.Helper()
	link.Await(t, fmt.Sprintf("%s to be written", address), func() bool {
		ok := false
		for _, s := range link.Settlements() {
			if s.Change.Address == address {
				ok = s.Effect.Outcome == wrappers.Done
			}
		}
		return ok
	})
}

func payload(pairs ...string) string { return string(payloadOf(attrs(pairs...)).Raw) }

// TestMinimalModify: only what differs is written, value by value, under the condition that nobody was faster.
func TestMinimalModify(t *testing.T) {
	s := startSlapd(t, withSyncprov)
	s.addUnit("ou=berlin,dc=plant")
	link := wrappertest.NewLink()
	prepare(link, devicePatterns("cn={},ou={}", "description", "serialNumber", "seeAlso", "objectClass"))
	p := startProxy(t, s.addr)
	startAttached(t, link, p.addr(), nil, nil)
	link.PushPut("cn=a,ou=berlin", payload("objectClass", "device", "serialNumber", "7", "description", "red", "description", "green"))
	done(t, link, "cn=a,ou=berlin")
	s.must(replace("cn=a,ou=berlin,dc=plant", "l", "somewhere")) // nobody maps it
	link.Await(t, "the change to be seen", func() bool { return len(link.Observations()) >= 3 })
	link.PushPut("cn=a,ou=berlin", payload("serialNumber", "7", "description", "green", "description", "blue"))
	link.Await(t, "two writes", func() bool { return len(p.requests()) >= 2 })
	done(t, link, "cn=a,ou=berlin")
	q := p.requests()
	got := fmt.Sprint(q[len(q)-1].(*ldapwire.ModifyRequest).Changes)
	want := fmt.Sprint([]ldapwire.Change{
		{Operation: ldapwire.ModifyDelete, Modification: attrs("description", "red")[0]},
		{Operation: ldapwire.ModifyAdd, Modification: attrs("description", "blue")[0]},
	})
	if got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	e := s.get("cn=a,ou=berlin,dc=plant")
	if value(e, "l") != "somewhere" || value(e, "serialNumber") != "7" || value(e, "cn") != "a" {
		t.Errorf("got %v", e.Attributes)
	}
	if n := link.Counted("entries_read"); n > 1 { // it was remembered
		t.Errorf("entries_read: got %d, want at most 1", n)
	}
	if got := news(link, 0); len(got) > 0 {
		t.Errorf("its own writes came back: %q", got)
	}
}

// TestWriteMeetsChange: what somebody else has just written is heard of before it is written over.
func TestWriteMeetsChange(t *testing.T) {
	s := startSlapd(t, withSyncprov)
	s.addDevice("cn=a,dc=plant", "1")
	link := wrappertest.NewLink()
	prepare(link, devicePatterns("cn={}", "description", "objectClass"))
	link.ReadBackFirst()
	startAttached(t, link, s.addr, nil, nil)
	link.Await(t, "the listing", func() bool { return len(link.Candidates(wrappertest.ViaSeen)) == 1 })
	release := link.Block(wrappertest.CallSeen)
	s.must(replace("cn=a,dc=plant", "description", "theirs"))
	link.PushPut("cn=a", string(device("ours")))
	link.Await(t, "the conflict", func() bool { return link.Counted("conflicts") > 0 })
	release()
	link.Await(t, "what they wrote", func() bool { return slices.Contains(news(link, 0), "put cn=a theirs") })
}

// TestNormalized: what the server makes of a value is no news, and is not fought over.
func TestNormalized(t *testing.T) {
	s := startSlapd(t, withSyncprov)
	link := wrappertest.NewLink()
	prepare(link, devicePatterns("cn={}", "description", "seeAlso", "objectClass"))
	p := startProxy(t, s.addr)
	startAttached(t, link, p.addr(), nil, nil)
	see := "CN=Other One ,  DC=Plant"
	link.PushPut("cn=a", payload("objectClass", "device", "description", "1", "seeAlso", see))
	done(t, link, "cn=a")
	if got := value(s.get("cn=a,dc=plant"), "seeAlso"); got == see {
		t.Skipf("this server keeps %q", got)
	}
	link.PushPut("cn=a", payload("objectClass", "device", "description", "2", "seeAlso", see))
	link.Await(t, "the second write", func() bool { return value(s.get("cn=a,dc=plant"), "description") == "2" })
	done(t, link, "cn=a")
	s.must(replace("cn=a,dc=plant", "description", "3"))
	hears(t, link, 0, "put cn=a 3")
	raw, _ := link.Register("", "cn=a")
	if !strings.Contains(string(raw), see) {
		t.Errorf("got %q, want it to have %q still", raw, see)
	}
	for _, q := range p.requests() {
		if m, ok := q.(*ldapwire.ModifyRequest); ok {
			for _, c := range m.Changes {
				if c.Modification.Type == "seeAlso" {
					t.Errorf("it was written again: %v", m.Changes)
				}
			}
		}
	}
	// Somebody else's spelling is news.
	s.must(replace("cn=a,dc=plant", "seeAlso", "cn=OTHER one,dc=plant"))
	link.Await(t, "the new spelling", func() bool {
		raw, _ := link.Register("", "cn=a")
		return strings.Contains(string(raw), "cn=OTHER one,dc=plant")
	})
}

// TestParents: entries above are made where that is wanted, and waited for where it is not.
func TestParents(t *testing.T) {
	s := startSlapd(t, withSyncprov)
	link := wrappertest.NewLink()
	prepare(link, devicePatterns("cn={},ou={},o={}", "description", "objectClass"))
	stop := startAttached(t, link, s.addr, nil, nil)
	link.PushPut("cn=a,ou=berlin,o=works", string(device("1")))
	if e := outcome(t, link, "cn=a,ou=berlin,o=works", 1); e.Outcome != wrappers.Retry || !strings.Contains(e.Err.Error(), "noSuchObject (32)") {
		t.Errorf("got %+v, want a retry since the parent is not there", e)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	startAttached(t, link, s.addr, wrappers.Options{"create_parents": true}, nil)
	done(t, link, "cn=a,ou=berlin,o=works")
	if s.get("ou=berlin,o=works,dc=plant") == nil {
		t.Error("no parent")
	}
	// Without being told so it waits until somebody makes the parent.
	link2 := wrappertest.NewLink()
	prepare(link2, devicePatterns("cn={},ou={}", "description", "objectClass"))
	startAttached(t, link2, s.addr, nil, nil)
	link2.PushPut("cn=b,ou=paris", string(device("1")))
	outcome(t, link2, "cn=b,ou=paris", 1)
	s.addUnit("ou=paris,dc=plant")
	done(t, link2, "cn=b,ou=paris")
}

// TestDeletesOfTrees: children go before their parents, in whichever order they come.
func TestDeletesOfTrees(t *testing.T) {
	s := startSlapd(t, withSyncprov)
	s.addDevice("cn=top,dc=plant", "1")
	s.addDevice("cn=below,cn=top,dc=plant", "2")
	link := wrappertest.NewLink()
	prepare(link, append(devicePatterns("cn={}", "description", "objectClass"), devicePatterns("cn={},cn={}", "description", "objectClass")...))
	startAttached(t, link, s.addr, nil, nil)
	link.Await(t, "the listing", func() bool { return len(link.Candidates(wrappertest.ViaSeen)) == 2 })
	link.Push(wrappers.Operation{Verb: wrappers.Delete, Address: "cn=top"})
	if e := outcome(t, link, "cn=top", 1); e.Outcome != wrappers.Retry || !strings.Contains(e.Err.Error(), "notAllowedOnNonLeaf (66)") {
		t.Errorf("got %+v, want a retry since there is a child", e)
	}
	link.Push(wrappers.Operation{Verb: wrappers.Delete, Address: "cn=below,cn=top"})
	done(t, link, "cn=below,cn=top")
	done(t, link, "cn=top")
	if s.get("cn=top,dc=plant") != nil {
		t.Error("it is still there")
	}
}

// TestRefusedInTheServersWords: what the schema forbids is parked with what the server says.
func TestRefusedInTheServersWords(t *testing.T) {
	s := startSlapd(t, withSyncprov)
	link := wrappertest.NewLink()
	prepare(link, devicePatterns("cn={}", "description", "telephoneNumber", "objectClass"))
	startAttached(t, link, s.addr, nil, nil)
	for _, c := range []struct{ address, payload, want string }{
		{"cn=a", payload("objectClass", "device", "telephoneNumber", "1"), "objectClassViolation (65): attribute 'telephoneNumber' not allowed"},
		{"cn=b", payload("description", "1"), "objectClassViolation (65): no objectClass attribute"},
		{"cn=c", payload("objectClass", "nonsense"), "invalidAttributeSyntax (21)"},
	} {
		link.PushPut(c.address, c.payload)
		e := outcome(t, link, c.address, 1)
		if e.Outcome != wrappers.Parked || !strings.Contains(e.Err.Error(), c.want) {
			t.Errorf("%s: got %+v, want it parked with %q", c.address, e, c.want)
		}
	}
}

// TestUnknownOutcome: a write whose answer is lost is written once more or recognised, and comes back to nobody.
func TestUnknownOutcome(t *testing.T) {
	s := startSlapd(t, withSyncprov)
	s.addDevice("cn=a,dc=plant", "1")
	link := wrappertest.NewLink()
	prepare(link, devicePatterns("cn={}", "description", "objectClass"))
	link.ReadBackFirst()
	p := startProxy(t, s.addr)
	startAttached(t, link, p.addr(), nil, nil)
	link.Await(t, "the listing", func() bool { return len(link.Candidates(wrappertest.ViaSeen)) == 1 })
	w := &watchedServer{rigServer{s}, p}
	w.Fail(wrappertest.BreakConnection)
	link.PushPut("cn=a", string(device("2")))
	if e := outcome(t, link, "cn=a", 1); e.Outcome != wrappers.Retry {
		t.Errorf("got %+v, want a retry", e)
	}
	link.Await(t, "the write to be seen", func() bool {
		raw, _ := link.Register("", "cn=a")
		return sameDevice(raw, device("2")) && len(link.Observations()) > 1
	})
	link.PushPut("cn=a", string(device("3"))) // by a session of its own
	done(t, link, "cn=a")
	if got := value(s.get("cn=a,dc=plant"), "description"); got != "3" {
		t.Errorf("got %q, want 3", got)
	}
}

// TestWithoutEquality: values that the server can't compare are replaced.
func TestWithoutEquality(t *testing.T) {
	s := startSlapd(t, withSyncprov)
	s.must(&ldapwire.AddRequest{Entry: "cn=ann,dc=plant", Attributes: attrs("objectClass", "inetOrgPerson", "sn", "A", "jpegPhoto", "\xff\xd8one")})
	link := wrappertest.NewLink()
	prepare(link, devicePatterns("cn={}", "jpegPhoto", "userPassword", "objectClass"))
	startAttached(t, link, s.addr, nil, nil)
	link.Await(t, "the listing", func() bool { return len(link.Candidates(wrappertest.ViaSeen)) == 1 })
	for _, photo := range []string{"\xff\xd8two", "\xff\xd8three"} {
		link.PushPut("cn=ann", payload("objectClass", "inetOrgPerson", "jpegPhoto", photo))
		link.Await(t, "the photo", func() bool { return value(s.get("cn=ann,dc=plant"), "jpegPhoto") == photo })
	}
}

// TestBigGroup: a group that gets a member is told of one, and not read for it.
func TestBigGroup(t *testing.T) {
	members := 20_000
	if testing.Short() {
		members = 2000
	}
	s := startSlapd(t, withSyncprov)
	pairs := []string{"objectClass", "groupOfNames"}
	for i := range members {
		pairs = append(pairs, "member", fmt.Sprintf("uid=user%06d,ou=people,dc=plant", i))
	}
	s.must(&ldapwire.AddRequest{Entry: "cn=all,dc=plant", Attributes: attrs(pairs...)})
	link := wrappertest.NewLink()
	prepare(link, devicePatterns("cn={}", "member", "objectClass"))
	p := startProxy(t, s.addr)
	startAttached(t, link, p.addr(), nil, nil)
	link.Await(t, "the listing", func() bool { return len(link.Candidates(wrappertest.ViaSeen)) == 1 })
	pairs = append(pairs, "member", "uid=new,ou=people,dc=plant")
	pairs[3] = "uid=other,ou=people,dc=plant" // the first one goes
	link.PushPut("cn=all", payload(pairs...))
	done(t, link, "cn=all")
	p.mu.Lock()
	sent, size := p.sent, p.sizes
	p.mu.Unlock()
	if len(sent) != 1 || size[0] > 1000 {
		t.Errorf("%d writes of %v bytes were sent, want one small one", len(sent), size)
	}
	if n := link.Counted("entries_read"); n != 0 {
		t.Errorf("entries_read: got %d, want 0", n)
	}
	e := s.get("cn=all,dc=plant", "member")
	if got := len(values(e, "member")); got != members+1 {
		t.Errorf("got %d members, want %d", got, members+1)
	}
}

// TestTimesAndCertificates: a time that says the same is not written again, and a certificate is transferred as RFC 4523 has it.
func TestTimesAndCertificates(t *testing.T) {
	j := &job{w: &writer{a: &attached{wrapper: &wrapper{}}}}
	types := entry.WellKnown()
	j.w.a.types.Store(types)
	members := types.MembersOf(&wrappers.Pattern{Open: true})
	have := attrs("whenCreated", "202601010000Z", "description", "old")
	doc, err := members.Payload(have)
	if err != nil {
		t.Fatal(err)
	}
	want, err := types.Attributes(doc.Raw)
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, attrs("userCertificate", "x")...)
	changes, _, _ := j.differ(have, want, members)
	if len(changes) != 1 || changes[0].Operation != ldapwire.ModifyAdd || changes[0].Modification.Type != "userCertificate;binary" {
		t.Errorf("got %+v, want the certificate alone", changes)
	}
}
