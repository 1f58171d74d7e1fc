package virtual

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/dn"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

// FuzzSession: whatever a client sends, its session ends by itself and panics nowhere.
func FuzzSession(f *testing.F) {
	seed := func(body ldapwire.Body, controls ...ldapwire.Control) {
		f.Add((&ldapwire.Message{MessageID: 1, Body: body, Controls: controls}).Encode())
	}
	search := &ldapwire.SearchRequest{BaseObject: "dc=plant", Scope: ldapwire.ScopeWholeSubtree, Filter: everyEntry, Attributes: []string{"*", "+", "@person"}}
	seed(search)
	seed(search, ldapwire.Control{Type: ldapwire.OIDPagedResults, Value: ldapwire.EncodePaged(1, nil)}, ldapwire.Control{Type: ldapwire.OIDServerSort, Value: ldapwire.EncodeSort(ldapwire.SortKey{Attribute: "cn"})})
	seed(search, syncControl(ldapwire.RefreshOnly, nil))
	ann := "uid=ann,ou=people,dc=plant"
	attrs := []ldapwire.PartialAttribute{attr("objectClass", "inetOrgPerson"), attr("cn", "a"), attr("sn", "b")}
	seed(&ldapwire.AddRequest{Entry: ann, Attributes: attrs})
	seed(modifyOf(ann, ldapwire.ModifyAdd, attr("description", "x")), ldapwire.Control{Type: ldapwire.OIDPostRead, Value: ldapwire.EncodeAttributeSelection("*")})
	seed(&ldapwire.DelRequest{Entry: ann}, ldapwire.Control{Type: ldapwire.OIDTreeDelete})
	seed(&ldapwire.ModifyDNRequest{Entry: ann, NewRDN: "uid=bob", DeleteOldRDN: true})
	seed(&ldapwire.CompareRequest{Entry: ann, Attribute: "cn", Assertion: []byte("a")})
	seed(&ldapwire.BindRequest{Version: 3, SASL: &ldapwire.SaslCredentials{Mechanism: "SCRAM-SHA-256", Credentials: []byte("n,,n=ann,r=x")}})
	seed(&ldapwire.ExtendedRequest{Name: ldapwire.OIDPasswordModify, Value: passwordModify(ann, "a", "b")})

	link := wrappertest.NewLinkOf(syntax, "uid={name},ou=people")
	patterns, _ := link.Patterns()
	patterns[0].Open = true
	link.SetPatterns(patterns...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	base, err := dn.Parse("dc=plant")
	if err != nil {
		f.Fatal(err)
	}
	w, err := New(wrappers.Config{Listener: l, Anonymous: wrappers.WriteAccess, Logon: users{}, Log: slog.New(slog.DiscardHandler),
		Limits: wrappers.Limits{Frame: 64 << 10, Sessions: 100, PerHost: 1000, Handshake: 10 * time.Second}}, Options{Base: base, Result: resultFor})
	if err != nil {
		f.Fatal(err)
	}
	wrappertest.Serve(f, w, link)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write(b); err == nil {
			_ = c.(*net.TCPConn).CloseWrite() // it may have ended already
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("% x: the session does not end", b)
			}
		}
		if n := link.Counted("panics"); n > 0 {
			t.Errorf("% x: %d panics", b, n)
		}
	})
}
