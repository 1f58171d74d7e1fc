package ldap

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/entry"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

// news lists what the feed made, from some candidate on: "put cn=a 1", "delete cn=a".
func news(link *wrappertest.Link, from int) (out []string) {
	for _, c := range link.Candidates(wrappertest.ViaSeen)[from:] {
		if c.Verb == wrappers.Delete {
			out = append(out, "delete "+c.Address)
			continue
		}
		list, err := entry.WellKnown().Attributes(c.Payload)
		text := ""
		if err != nil {
			text = err.Error()
		}
		for _, a := range list {
			if a.Type == "description" {
				text = string(a.Vals[0])
			}
		}
		out = append(out, "put "+c.Address+" "+text)
	}
	return out
}

// hears waits for exactly these candidates.
func hears(t *testing.T, link *wrappertest.Link, from int, want ...string) int {
	t.Helper()
	link.Await(t, fmt.Sprintf("%q", want), func() bool { return len(link.Candidates(wrappertest.ViaSeen)) >= from+len(want) })
	if got := news(link, from); !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	return from + len(want)
}

func (s *slapd) addDevice(dn, description string) {
	s.t.Helper()
	cn := strings.TrimPrefix(strings.Split(dn, ",")[0], "cn=")
	s.must(&ldapwire.AddRequest{Entry: dn, Attributes: attrs("objectClass", "device", "cn", cn, "description", description)})
}

func (s *slapd) addUnit(dn string) {
	s.t.Helper()
	s.must(&ldapwire.AddRequest{Entry: dn, Attributes: attrs("objectClass", "organizationalUnit", "ou", strings.TrimPrefix(strings.Split(dn, ",")[0], "ou="))})
}

func (s *slapd) rename(dn, rdn string, superior string) {
	s.t.Helper()
	q := &ldapwire.ModifyDNRequest{Entry: dn, NewRDN: rdn, DeleteOldRDN: true}
	if superior != "" {
		q.NewSuperior = &superior
	}
	s.must(q)
}

var deviceInUnit = devicePatterns("cn={},ou={}", "description", "objectClass")

func TestFeedOfEachKindOfChange(t *testing.T) {
	s := startSlapd(t, withSyncprov)
	s.addUnit("ou=berlin,dc=plant")
	s.addUnit("ou=paris,dc=plant")
	s.addDevice("cn=early,ou=berlin,dc=plant", "0")
	link := wrappertest.NewLink()
	prepare(link, deviceInUnit)
	startAttached(t, link, s.addr, nil, nil)
	n := hears(t, link, 0, "put cn=early,ou=berlin 0")
	s.addDevice("cn=a,ou=berlin,dc=plant", "1")
	n = hears(t, link, n, "put cn=a,ou=berlin 1")
	s.must(replace("cn=a,ou=berlin,dc=plant", "description", "2"))
	n = hears(t, link, n, "put cn=a,ou=berlin 2")
	// A value added, one removed.
	s.must(&ldapwire.ModifyRequest{Object: "cn=a,ou=berlin,dc=plant", Changes: []ldapwire.Change{
		{Operation: ldapwire.ModifyDelete, Modification: attrs("description", "2")[0]},
		{Operation: ldapwire.ModifyAdd, Modification: attrs("description", "3")[0]}}})
	n = hears(t, link, n, "put cn=a,ou=berlin 3")
	// Renamed, and moved.
	s.rename("cn=a,ou=berlin,dc=plant", "cn=b", "")
	n = hears(t, link, n, "delete cn=a,ou=berlin", "put cn=b,ou=berlin 3")
	s.rename("cn=b,ou=berlin,dc=plant", "cn=b", "ou=paris,dc=plant")
	n = hears(t, link, n, "delete cn=b,ou=berlin", "put cn=b,ou=paris 3")
	// A part of the tree is renamed, of which the server names only the top.
	s.addDevice("cn=c,ou=paris,dc=plant", "4")
	n = hears(t, link, n, "put cn=c,ou=paris 4")
	s.rename("ou=paris,dc=plant", "ou=lyon", "")
	link.Await(t, "four candidates", func() bool { return len(link.Candidates(wrappertest.ViaSeen)) >= n+4 })
	got := news(link, n)
	slices.Sort(got)
	if want := []string{"delete cn=b,ou=paris", "delete cn=c,ou=paris", "put cn=b,ou=lyon 3", "put cn=c,ou=lyon 4"}; !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	n += 4
	// What was read ahead is no reason to miss what comes.
	s.must(replace("cn=c,ou=lyon,dc=plant", "description", "5"))
	n = hears(t, link, n, "put cn=c,ou=lyon 5")
	s.must(&ldapwire.DelRequest{Entry: "cn=c,ou=lyon,dc=plant"})
	n = hears(t, link, n, "delete cn=c,ou=lyon")
	for _, c := range link.Candidates(wrappertest.ViaSeen)[1:] {
		if c.Verb != wrappers.Delete && (c.Op.Who.Principal != "ldap/hq:"+rootDN || !c.Op.Who.Verified) {
			t.Errorf("%s %s: got %+v, want the administrator", c.Verb, c.Address, c.Op.Who)
		}
	}
	_ = n
}

// TestFeedGoesOn: what changed while nobody listened is made up for, from the cookie, without a listing.
func TestFeedGoesOn(t *testing.T) {
	for _, overlays := range []string{withSyncprov, "overlay syncprov\n"} { // with a session log, and without one: then who is there is listed
		s := startSlapd(t, overlays)
		s.addUnit("ou=berlin,dc=plant")
		for i := range 6 {
			s.addDevice(fmt.Sprintf("cn=d%d,ou=berlin,dc=plant", i), "0")
		}
		link := wrappertest.NewLink()
		prepare(link, deviceInUnit)
		stop := startAttached(t, link, s.addr, nil, nil)
		link.Await(t, "the listing", func() bool { return len(link.Candidates(wrappertest.ViaSeen)) == 6 })
		s.must(replace("cn=d0,ou=berlin,dc=plant", "description", "1"))
		n := hears(t, link, 6, "put cn=d0,ou=berlin 1")
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		s.must(&ldapwire.DelRequest{Entry: "cn=d1,ou=berlin,dc=plant"})
		s.must(&ldapwire.DelRequest{Entry: "cn=d2,ou=berlin,dc=plant"})
		s.addDevice("cn=d2,ou=berlin,dc=plant", "anew") // another entry with its name
		s.rename("cn=d3,ou=berlin,dc=plant", "cn=moved", "")
		s.must(replace("cn=d4,ou=berlin,dc=plant", "description", "2"))
		before := len(link.Observations())
		startAttached(t, link, s.addr, nil, nil)
		got := slices.DeleteFunc(news(link, n), func(s string) bool { return s == "delete cn=d2,ou=berlin" }) // before the other came, if that is known
		slices.Sort(got)
		want := []string{"delete cn=d1,ou=berlin", "delete cn=d3,ou=berlin", "put cn=d2,ou=berlin anew", "put cn=d4,ou=berlin 2", "put cn=moved,ou=berlin 0"}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if shown := len(link.Observations()) - before; shown > 7 {
			t.Errorf("%d observations were made, of 5 changes", shown)
		}
	}
}

// TestKilledServer: a server that is killed and comes back is followed again.
func TestKilledServer(t *testing.T) {
	s := startSlapd(t, withSyncprov)
	s.addUnit("ou=berlin,dc=plant")
	link := wrappertest.NewLink()
	prepare(link, deviceInUnit)
	startAttached(t, link, s.addr, nil, nil)
	n := 0
	for i := range 3 {
		s.addDevice(fmt.Sprintf("cn=k%d,ou=berlin,dc=plant", i), "1")
		n = hears(t, link, n, fmt.Sprintf("put cn=k%d,ou=berlin 1", i))
		s.kill()
		up := link.Counted("feed_up")
		s.start()
		s.must(replace(fmt.Sprintf("cn=k%d,ou=berlin,dc=plant", i), "description", "2"))
		n = hears(t, link, n, fmt.Sprintf("put cn=k%d,ou=berlin 2", i))
		link.Await(t, "the feed to stand", func() bool { return link.Counted("feed_up") > up })
	}
}

// TestLostCookie: where the server can't go on from a cookie everything is listed, and what is gone is gone.
func TestLostCookie(t *testing.T) {
	s := startSlapd(t, withSyncprov)
	s.addUnit("ou=berlin,dc=plant")
	for i := range 4 {
		s.addDevice(fmt.Sprintf("cn=d%d,ou=berlin,dc=plant", i), "0")
	}
	link := wrappertest.NewLink()
	prepare(link, deviceInUnit)
	stop := startAttached(t, link, s.addr, nil, nil)
	link.Await(t, "the listing", func() bool { return len(link.Candidates(wrappertest.ViaSeen)) == 4 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// It says that the gateway has heard what the server has yet to do.
	for rec, err := range link.Kept(context.Background(), cookieKey) {
		if err != nil {
			t.Fatal(err)
		}
		rec.Value = []byte(strings.Replace(string(rec.Value), `"Cookie":"`, `"Cookie":"cmlkPTAwMCxjc249MjA5OTExMjUxMDQxNDAuNTAxNTIwWiMwMDAwMDAjMDAwIzAwMDAwMA==","Was":"`, 1))
		if err := link.Keep(context.Background(), rec); err != nil {
			t.Fatal(err)
		}
	}
	s.must(&ldapwire.DelRequest{Entry: "cn=d1,ou=berlin,dc=plant"})
	s.must(replace("cn=d2,ou=berlin,dc=plant", "description", "2"))
	startAttached(t, link, s.addr, nil, nil)
	if link.Counted("cookie_lost") != 1 {
		t.Errorf("cookie_lost: got %d, want 1", link.Counted("cookie_lost"))
	}
	got := news(link, 4)
	slices.Sort(got)
	if want := []string{"delete cn=d1,ou=berlin", "put cn=d2,ou=berlin 2"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestSuddenlyEmpty: a server that has lost its entries deletes no registers.
func TestSuddenlyEmpty(t *testing.T) {
	s := startSlapd(t, withSyncprov)
	s.addUnit("ou=berlin,dc=plant")
	for i := range 5 {
		s.addDevice(fmt.Sprintf("cn=d%d,ou=berlin,dc=plant", i), "0")
	}
	link := wrappertest.NewLink()
	prepare(link, deviceInUnit)
	stop := startAttached(t, link, s.addr, nil, nil)
	link.Await(t, "the listing", func() bool { return len(link.Candidates(wrappertest.ViaSeen)) == 5 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	other := startSlapd(t, withSyncprov)
	other.addUnit("ou=berlin,dc=plant")
	other.addDevice("cn=d0,ou=berlin,dc=plant", "1")
	startAttached(t, link, other.addr, nil, nil)
	if got, want := news(link, 5), []string{"put cn=d0,ou=berlin 1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if link.Counted("mass_deletes_refused") == 0 {
		t.Error("nothing was refused")
	}
	if _, there := link.Register("", "cn=d4,ou=berlin"); !there {
		t.Error("a register was deleted")
	}
}

// TestHalfOpenLine: a line on which nothing comes any more is given up, and what came meanwhile is made up for.
func TestHalfOpenLine(t *testing.T) {
	s := startSlapd(t, withSyncprov)
	s.addUnit("ou=berlin,dc=plant")
	link := wrappertest.NewLink()
	prepare(link, deviceInUnit)
	p := startProxy(t, s.addr)
	attachedTo(t, link, p.addr(), nil, func(a *attached) { a.waits = patience{200 * time.Millisecond, 200 * time.Millisecond} })
	p.mu.Lock()
	p.deaf = true
	p.mu.Unlock()
	s.addDevice("cn=a,ou=berlin,dc=plant", "1")
	link.Await(t, "the line to be given up", func() bool { return link.Counted("feed_down") > 0 })
	p.mu.Lock()
	p.deaf = false
	p.mu.Unlock()
	hears(t, link, 0, "put cn=a,ou=berlin 1")
}

// TestBindsChange: what binds read anew is looked at, without a restart.
func TestBindsChange(t *testing.T) {
	s := startSlapd(t, withSyncprov)
	s.addUnit("ou=berlin,dc=plant")
	s.addDevice("cn=a,ou=berlin,dc=plant", "1")
	link := wrappertest.NewLink()
	prepare(link, devicePatterns("cn={},ou=paris", "description"))
	startAttached(t, link, s.addr, nil, nil)
	if got := news(link, 0); len(got) > 0 {
		t.Fatalf("got %q, want nothing", got)
	}
	prepare(link, deviceInUnit)
	hears(t, link, 0, "put cn=a,ou=berlin 1")
}

// TestPoll: a server without a feed is asked; deletions, renamings and what changes within a second are found.
func TestPoll(t *testing.T) {
	s := startSlapd(t, "")
	s.addUnit("ou=berlin,dc=plant")
	s.addDevice("cn=early,ou=berlin,dc=plant", "0")
	link := wrappertest.NewLink()
	prepare(link, deviceInUnit)
	startAttached(t, link, s.addr, wrappers.Options{"poll_ms": int64(100)}, nil)
	n := hears(t, link, 0, "put cn=early,ou=berlin 0")
	s.addDevice("cn=a,ou=berlin,dc=plant", "1")
	n = hears(t, link, n, "put cn=a,ou=berlin 1")
	s.must(replace("cn=a,ou=berlin,dc=plant", "description", "2"))
	n = hears(t, link, n, "put cn=a,ou=berlin 2")
	s.rename("cn=a,ou=berlin,dc=plant", "cn=b", "")
	n = hears(t, link, n, "delete cn=a,ou=berlin", "put cn=b,ou=berlin 2")
	s.must(&ldapwire.DelRequest{Entry: "cn=b,ou=berlin,dc=plant"})
	n = hears(t, link, n, "delete cn=b,ou=berlin")
	link.PushPut("cn=c,ou=berlin", string(device("5")))
	link.Await(t, "the write", func() bool { return len(link.Settlements()) > 0 })
	s.addDevice("cn=d,ou=berlin,dc=plant", "6")
	hears(t, link, n, "put cn=d,ou=berlin 6") // and no echo of c
}

// TestCaughtUp: whoever waits for the feed goes on when it has shown what was written before.
func TestCaughtUp(t *testing.T) {
	for _, overlays := range []string{withSyncprov, ""} {
		s := startSlapd(t, overlays)
		s.addUnit("ou=berlin,dc=plant")
		link := wrappertest.NewLink()
		prepare(link, deviceInUnit)
		a := attachedTo(t, link, s.addr, wrappers.Options{"poll_ms": int64(60_000)}, func(*attached) {})
		for i := range 20 {
			s.addDevice(fmt.Sprintf("cn=d%d,ou=berlin,dc=plant", i), "1")
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			err := a.CaughtUp(ctx)
			cancel()
			if err != nil {
				t.Fatalf("CaughtUp: %v", err)
			}
			if got := len(link.Candidates(wrappertest.ViaSeen)); got != i+1 {
				t.Fatalf("got %d candidates, want %d", got, i+1)
			}
		}
	}
}

// attachedTo is startAttached for what has to be asked of the attached side itself.
func attachedTo(t *testing.T, link *wrappertest.Link, addr string, options wrappers.Options, tune func(*attached)) *attached {
	t.Helper()
	var a *attached
	made := newWrapper
	newWrapper = func(cfg wrappers.Config) (wrappers.Wrapper, error) {
		w, err := made(cfg)
		if err == nil {
			a = w.(*attached)
			tune(a)
		}
		return w, err
	}
	defer func() { newWrapper = made }()
	startAttached(t, link, addr, options, nil)
	return a
}

var newWrapper = New

// TestLimitsOfTheAccount: a listing that the server cuts off deletes nothing, and the log says what helps.
func TestLimitsOfTheAccount(t *testing.T) {
	const account = "cn=gateway,dc=plant"
	s := startSlapd(t, "sizelimit 3\naccess to * by * write\n"+withSyncprov)
	s.must(&ldapwire.AddRequest{Entry: account, Attributes: attrs("objectClass", "organizationalRole", "objectClass", "simpleSecurityObject", "userPassword", "pw")})
	s.addUnit("ou=berlin,dc=plant")
	for i := range 5 {
		s.addDevice(fmt.Sprintf("cn=d%d,ou=berlin,dc=plant", i), "0")
	}
	link := wrappertest.NewLink()
	prepare(link, deviceInUnit)
	var log strings.Builder
	w, err := New(wrappers.Config{
		Protocol: "ldap", Name: "hq", Endpoint: "spookgw/local/0123456789abcdef", Log: slog.New(slog.NewTextHandler(&log, nil)),
		Upstreams: []wrappers.Upstream{{Scheme: "ldap", Addr: s.addr, User: account, Password: func() string { return "pw" }}},
		Options:   wrappers.Options{"base": suffixDN},
	})
	if err != nil {
		t.Fatal(err)
	}
	stop := wrappertest.Serve(t, w, link)
	link.Await(t, "the feed to fall", func() bool { return link.Counted("feed_down") > 0 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if want := `limits dn.exact=\"cn=gateway,dc=plant\" size=unlimited`; !strings.Contains(log.String(), "sizeLimitExceeded (4)") || !strings.Contains(strings.ReplaceAll(log.String(), `\\\"`, `\"`), want) {
		t.Errorf("the log says %s, and not %s", log.String(), want)
	}
	if link.Counted("feed_up") > 0 {
		t.Error("the feed stands")
	}
}
