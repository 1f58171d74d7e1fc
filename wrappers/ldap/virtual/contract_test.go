package virtual

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/dn"
	"github.com/spooksystems/gateway/wrappers/ldap/entry"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

// TestVirtualContract holds the virtual directory to what every wrapper keeps.
func TestVirtualContract(t *testing.T) {
	wrappertest.Run(t, wrappertest.Suite{
		Syntax:    syntax,
		Templates: []string{"cn={name},ou=things"},
		Address:   func(n int) string { return fmt.Sprintf("cn=t%d,ou=things", n) },
		Unmapped:  "uid=other,ou=others",
		Document:  described,
		Virtual:   startVirtual,
		Garbage:   []byte("GET / HTTP/1.1\r\n\r\n"),
		Deletes:   true,
	})
}

var syntax = wrappers.Syntax{Separator: dn.Separator, Forbidden: dn.Forbidden, Fold: true, Entries: true, Upward: true, Canonical: dn.Canonical}

func resultFor(err error) ldapwire.ResultCode {
	return map[error]ldapwire.ResultCode{
		wrappers.ErrUnmapped: ldapwire.UnwillingToPerform, wrappers.ErrInvalid: ldapwire.ConstraintViolation, wrappers.ErrNotFound: ldapwire.NoSuchObject,
		wrappers.ErrDenied: ldapwire.InsufficientAccessRights, wrappers.ErrConflict: ldapwire.AssertionFailed,
		wrappers.ErrTooLarge: ldapwire.AdminLimitExceeded, wrappers.ErrUnavailable: ldapwire.Unavailable,
	}[wrappers.Kind(err)]
}

// described is the entry with description n.
func described(n int) []byte {
	raw, err := cbor.Marshal(map[string]any{"description": fmt.Sprint(n)})
	if err != nil {
		panic(err)
	}
	return raw
}

func startVirtual(t *testing.T, link *wrappertest.Link, tune func(*wrappers.Config)) wrappertest.Rig {
	patterns, _ := link.Patterns()
	for i := range patterns {
		patterns[i].Members = []wrappers.Member{{Name: "description", Type: "string", In: true, Out: true}, {Name: "objectClass", Type: "any", Out: true}}
	}
	link.SetPatterns(patterns...)
	return startVirtualAs(t, link, tune)
}

// startVirtualAs starts the server over a link as it is.
func startVirtualAs(t *testing.T, link *wrappertest.Link, tune func(*wrappers.Config)) wrappertest.Rig {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := wrappers.Config{Limits: wrappers.Limits{Frame: 2 << 20, Sessions: 10_000, PerHost: 100, Handshake: 30 * time.Second}, Protocol: "ldap", Name: "test", Listener: l, Anonymous: wrappers.WriteAccess, Drain: time.Second,
		Endpoint: "spookgw/test/0000", Log: slog.New(slog.DiscardHandler)}
	if tune != nil {
		tune(&cfg)
	}
	base, err := dn.Parse("dc=plant")
	if err != nil {
		t.Fatal(err)
	}
	w, err := New(cfg, Options{Base: base, Result: resultFor})
	if err != nil {
		t.Fatal(err)
	}
	stop := wrappertest.Serve(t, w, link)
	<-w.(*server).follower.ready
	addr := l.Addr().String()
	return wrappertest.Rig{Addr: addr, Stop: stop, Dial: func(t *testing.T) wrappertest.Client { return dialVirtual(t, addr) }}
}

// caller is a client with one connection and one request at a time.
type caller struct {
	conn net.Conn
	in   *bufio.Reader
	id   int32
	addr string
	err  error
}

func dialVirtual(t *testing.T, addr string) *caller {
	conn, err := net.Dial("tcp", addr)
	c := &caller{conn: conn, addr: addr, err: err}
	if err == nil {
		c.in = bufio.NewReader(conn)
		t.Cleanup(c.Close)
	}
	return c
}

func (c *caller) Close() {
	if c.conn != nil {
		_ = c.conn.Close() // of a test
	}
}

// receive reads one message.
func receive(in *bufio.Reader) (*ldapwire.Message, error) {
	for n := 2; ; n++ {
		head, err := in.Peek(n)
		if err != nil {
			return nil, err
		}
		f, ok, err := ldapwire.ReadFrame(head)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		raw := make([]byte, f.Size)
		for at := 0; at < len(raw); {
			k, err := in.Read(raw[at:])
			if err != nil {
				return nil, err
			}
			at += k
		}
		return ldapwire.Decode(raw)
	}
}

// call sends a request and gives what answers it, the last one first.
func (c *caller) call(body ldapwire.Body, controls ...ldapwire.Control) (last *ldapwire.Message, entries []*ldapwire.SearchResultEntry, err error) {
	if c.err != nil {
		return nil, nil, c.err
	}
	c.id++
	if _, err := c.conn.Write((&ldapwire.Message{MessageID: c.id, Body: body, Controls: controls}).Encode()); err != nil {
		return nil, nil, err
	}
	for {
		m, err := receive(c.in)
		if err != nil {
			return nil, nil, err
		}
		switch b := m.Body.(type) {
		case *ldapwire.SearchResultEntry:
			entries = append(entries, b)
		case ldapwire.Response:
			if m.MessageID == 0 {
				return nil, nil, fmt.Errorf("disconnected: %s %s", b.Result().ResultCode, b.Result().DiagnosticMessage)
			}
			return m, entries, nil
		}
	}
}

// must is call for what has to succeed.
func (c *caller) must(body ldapwire.Body, controls ...ldapwire.Control) ([]*ldapwire.SearchResultEntry, error) {
	m, entries, err := c.call(body, controls...)
	if err != nil {
		return nil, err
	}
	if r := m.Body.(ldapwire.Response).Result(); r.ResultCode != ldapwire.Success {
		return entries, &answered{*r}
	}
	return entries, nil
}

type answered struct{ ldapwire.LDAPResult }

func (r *answered) Error() string { return fmt.Sprintf("%s: %s", r.ResultCode, r.DiagnosticMessage) }

func refusedAs(err error, code ldapwire.ResultCode) bool {
	var r *answered
	return errors.As(err, &r) && r.ResultCode == code
}

func (c *caller) Write(address string, payload []byte) error {
	var doc map[string]any
	text := string(payload) // a large one of the suite's
	if cbor.Unmarshal(payload, &doc) == nil {
		text, _ = doc["description"].(string)
	}
	name := address + ",dc=plant"
	a := ldapwire.PartialAttribute{Type: "description", Vals: [][]byte{[]byte(text)}}
	_, err := c.must(&ldapwire.ModifyRequest{Object: name, Changes: []ldapwire.Change{{Operation: ldapwire.ModifyReplace, Modification: a}}})
	if refusedAs(err, ldapwire.NoSuchObject) {
		_, err = c.must(&ldapwire.AddRequest{Entry: name, Attributes: []ldapwire.PartialAttribute{{Type: "objectClass", Vals: [][]byte{[]byte("device")}}, a}})
	}
	return err
}

func (c *caller) Read(address string) ([]byte, error) {
	entries, err := c.must(&ldapwire.SearchRequest{BaseObject: address + ",dc=plant", Filter: everyEntry, Attributes: []string{"description"}})
	if refusedAs(err, ldapwire.NoSuchObject) {
		return nil, wrappertest.ErrAbsent
	}
	if err != nil {
		return nil, err
	}
	return payloadOf(entries[0])
}

var everyEntry = &ldapwire.Filter{Kind: ldapwire.FilterPresent, Attribute: "objectClass"}

func payloadOf(e *ldapwire.SearchResultEntry) ([]byte, error) {
	p, err := entry.WellKnown().MembersOf(&wrappers.Pattern{Members: []wrappers.Member{{Name: "description"}}}).Payload(e.Attributes)
	return p.Raw, err
}

func (c *caller) Delete(address string) error {
	_, err := c.must(&ldapwire.DelRequest{Entry: address + ",dc=plant"})
	return err
}

// Subscribe is a persistent search.
func (c *caller) Subscribe(address string) (<-chan []byte, error) {
	if c.err != nil {
		return nil, c.err
	}
	p := ldapwire.PersistentSearch{ChangeTypes: 15}
	q := ldapwire.SearchRequest{BaseObject: "dc=plant", Scope: ldapwire.ScopeWholeSubtree, Attributes: []string{"description"},
		Filter: &ldapwire.Filter{Kind: ldapwire.FilterEqualityMatch, Attribute: "entryDN", Value: []byte(address + ",dc=plant")}}
	m := ldapwire.Message{MessageID: 1, Body: &q, Controls: []ldapwire.Control{{Type: ldapwire.OIDPersistent, Criticality: true, Value: p.Encode()}}}
	// An entry that is there already shows that the search is at work.
	q.Filter = &ldapwire.Filter{Kind: ldapwire.FilterOr, Filters: []*ldapwire.Filter{q.Filter, {Kind: ldapwire.FilterEqualityMatch, Attribute: "entryDN", Value: []byte("dc=plant")}}}
	if _, err := c.conn.Write(m.Encode()); err != nil {
		return nil, err
	}
	if _, err := receive(c.in); err != nil {
		return nil, err
	}
	out := make(chan []byte, 64)
	go func() {
		defer close(out)
		for {
			m, err := receive(c.in)
			if err != nil {
				return
			}
			e, ok := m.Body.(*ldapwire.SearchResultEntry)
			if !ok {
				return
			}
			raw, err := payloadOf(e)
			if err != nil {
				return
			}
			out <- raw
		}
	}()
	return out, nil
}
