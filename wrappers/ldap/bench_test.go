package ldap

import (
	"bufio"
	"context"
	"net"
	"testing"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

// BenchmarkRelay is one message to a server that answers at once, and back.
func BenchmarkRelay(b *testing.B) {
	for _, c := range []struct {
		name string
		body ldapwire.Body
	}{
		{"search", &ldapwire.SearchRequest{BaseObject: "cn=a,dc=plant", Filter: anything}},
		{"modify of nobody's", replace("cn=a,ou=x,dc=plant", "description", "1")},
		{"modify", replace("cn=a,dc=plant", "description", "1")},
	} {
		b.Run(c.name, func(b *testing.B) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer ln.Close()
			answer := (&ldapwire.Message{MessageID: 1, Body: ldapwire.NewResponse(c.body.Op())}).Encode()
			question := (&ldapwire.Message{MessageID: 1, Body: c.body}).Encode()
			go func() {
				for {
					conn, err := ln.Accept()
					if err != nil {
						return
					}
					go func() {
						defer conn.Close()
						in := bufio.NewReaderSize(conn, 4096)
						for {
							if _, err := in.Discard(len(question)); err != nil {
								return
							}
							if _, err := conn.Write(answer); err != nil {
								return
							}
						}
					}()
				}
			}()
			before, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			made, err := New(wrappers.Config{Protocol: "ldap", Name: "hq", Listener: before, Log: testLog(),
				Upstreams: []wrappers.Upstream{{Scheme: "ldap", Addr: ln.Addr().String()}}, Options: wrappers.Options{"base": suffixDN}})
			if err != nil {
				b.Fatal(err)
			}
			gate := make(chan struct{})
			close(gate)
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() {
				done <- newRelay(made.(*front).wrapper, &heldSource{gate: gate}).Serve(ctx, wrappertest.NewLinkOf(Protocol.Syntax, "cn={name}"))
			}()
			conn, err := net.Dial("tcp", before.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			in := bufio.NewReaderSize(conn, 4096)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := conn.Write(question); err != nil {
					b.Fatal(err)
				}
				if _, err := in.Discard(len(answer)); err != nil {
					b.Fatal(err)
				}
			}
			conn.Close()
			cancel()
			<-done
		})
	}
}
