package ldap

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/entry"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

func testLog() *slog.Logger {
	if os.Getenv("LDAP_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}

// devicePatterns is one bind: cn={} with the attribute description, and whatever more is named.
func devicePatterns(template string, members ...string) []wrappers.Pattern {
	p := wrappers.Pattern{Bind: "b1", Hash: template, In: true, Out: true, Options: wrappers.Options{}}
	for _, seg := range strings.Split(template, ",") {
		s := wrappers.Segment{Kind: wrappers.LiteralSegment, Literal: seg}
		if strings.Contains(seg, "{") {
			s = wrappers.Segment{Kind: wrappers.OneSegment}
		}
		p.Segments = append(p.Segments, s)
	}
	for _, m := range members {
		p.Members = append(p.Members, wrappers.Member{Name: m, Type: "any", In: true, Out: true})
	}
	return []wrappers.Pattern{p}
}

// prepare has a link map the devices directly below the base. A change is laid over the entry, and one that makes an entry has
// the object class.
func prepare(l *wrappertest.Link, patterns []wrappers.Pattern) {
	l.MapIf(func(_ wrappers.Verb, _, address string) bool {
		for i := range patterns {
			if fits(&patterns[i], address) && !strings.Contains(address, "other") && !strings.HasPrefix(address, "ou=") {
				return true
			}
		}
		return false
	})
	defer l.SetPatterns(patterns...)
	types := entry.WellKnown()
	l.LayOnto(func(doc, pay wrappers.Payload) (wrappers.Payload, error) {
		have, err := types.Attributes(doc.Raw)
		if err != nil {
			return doc, err
		}
		want, err := types.Attributes(pay.Raw)
		if err != nil {
			return doc, err
		}
		for _, h := range have {
			if !hasAttribute(want, h.Type) && h.Type == "objectClass" {
				want = append(want, h)
			}
		}
		return payloadOf(want), nil
	})
}

func hasAttribute(list []ldapwire.PartialAttribute, name string) bool {
	for i := range list {
		if list[i].Type == name {
			return true
		}
	}
	return false
}

func payloadOf(list []ldapwire.PartialAttribute) wrappers.Payload {
	p, err := entry.WellKnown().MembersOf(&wrappers.Pattern{Open: true}).Payload(list)
	if err != nil {
		panic(err)
	}
	return p
}

// device is the payload of a device with a description.
func device(description string) []byte {
	return payloadOf(attrs("description", description, "objectClass", "device")).Raw
}

// startAttached runs a wrapper inside a server, and waits until its feed stands.
func startAttached(t testing.TB, link *wrappertest.Link, addr string, options wrappers.Options, tune func(*wrappers.Config)) (stop func() error) {
	t.Helper()
	cfg := wrappers.Config{
		Protocol: "ldap", Name: "hq", Endpoint: "spookgw/local/0123456789abcdef", Drain: 5 * time.Second, Log: testLog(),
		Upstreams: []wrappers.Upstream{{Scheme: "ldap", Addr: addr, User: rootDN, Password: func() string { return rootPW }}},
		Options:   wrappers.Options{"base": suffixDN},
	}
	for k, v := range options {
		cfg.Options[k] = v
	}
	if tune != nil {
		tune(&cfg)
	}
	w, err := newWrapper(cfg)
	if err != nil {
		t.Fatal(err)
	}
	up := link.Counted("feed_up")
	stop = wrappertest.Serve(t, w, link)
	link.Await(t, "the feed to stand", func() bool { return link.Counted("feed_up") > up })
	return stop
}

// rigServer is the directory seen from behind the gateway.
type rigServer struct{ s *slapd }

func nameAt(address string) string { return address + "," + suffixDN }

func (r *rigServer) Value(address string) ([]byte, bool) {
	e := r.s.get(nameAt(address), "description", "objectClass")
	if e == nil {
		return nil, false
	}
	return payloadOf(e.Attributes).Raw, true
}

func (r *rigServer) Set(address string, payload []byte) {
	list, err := entry.WellKnown().Attributes(payload)
	if err != nil {
		r.s.t.Error(err)
		return
	}
	if r.s.get(nameAt(address), "1.1") != nil {
		q := &ldapwire.ModifyRequest{Object: nameAt(address)}
		for _, a := range list {
			if a.Type != "objectClass" {
				q.Changes = append(q.Changes, ldapwire.Change{Operation: ldapwire.ModifyReplace, Modification: a})
			}
		}
		r.s.must(q)
		return
	}
	r.s.must(&ldapwire.AddRequest{Entry: nameAt(address), Attributes: list})
}

func (r *rigServer) Remove(address string) {
	r.s.must(&ldapwire.DelRequest{Entry: nameAt(address)})
}

func sameDevice(a, b []byte) bool {
	x, err1 := entry.WellKnown().Attributes(a)
	y, err2 := entry.WellKnown().Attributes(b)
	get := func(list []ldapwire.PartialAttribute) []byte {
		for i := range list {
			if list[i].Type == "description" {
				return bytes.Join(list[i].Vals, []byte{0})
			}
		}
		return nil
	}
	return err1 == nil && err2 == nil && bytes.Equal(get(x), get(y))
}

func TestAttachedContract(t *testing.T) {
	wrappertest.Run(t, wrappertest.Suite{
		Address:  func(n int) string { return fmt.Sprintf("cn=a%d", n) },
		Unmapped: "cn=other",
		Document: func(n int) []byte { return device(fmt.Sprint(n)) },
		Same:     sameDevice,
		Deletes:  true,
		Attached: func(t *testing.T, link *wrappertest.Link, tune func(*wrappers.Config)) wrappertest.Rig {
			s := startSlapd(t, withSyncprov)
			prepare(link, devicePatterns("cn={}", "description", "objectClass"))
			p := startProxy(t, s.addr)
			stop := startAttached(t, link, p.addr(), nil, tune)
			return wrappertest.Rig{Server: &watchedServer{rigServer{s}, p}, Stop: stop}
		},
	})
}
