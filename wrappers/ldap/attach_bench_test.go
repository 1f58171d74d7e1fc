package ldap

import (
	"context"
	"fmt"
	"testing"

	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

// BenchmarkGroupMember adds a member to a large group, and takes it away again: through the wrapper, and straight at slapd.
func BenchmarkGroupMember(b *testing.B) {
	for _, size := range []int{1000, 100_000} {
		s := startSlapd(b, withSyncprov)
		pairs := []string{"objectClass", "groupOfNames"}
		for i := range size {
			pairs = append(pairs, "member", fmt.Sprintf("uid=user%06d,ou=people,dc=plant", i))
		}
		s.must(&ldapwire.AddRequest{Entry: "cn=all,dc=plant", Attributes: attrs(pairs...)})
		with, without := payload(append(pairs, "member", "uid=new,dc=plant")...), payload(pairs...)
		b.Run(fmt.Sprintf("slapd/%d", size), func(b *testing.B) {
			c, err := openAs(s.addr, rootDN, rootPW)
			if err != nil {
				b.Fatal(err)
			}
			defer c.close()
			for n := 0; b.Loop(); n++ {
				op := []ldapwire.ModifyOperation{ldapwire.ModifyAdd, ldapwire.ModifyDelete}[n%2]
				m, err := c.do(context.Background(), &ldapwire.ModifyRequest{Object: "cn=all,dc=plant", Changes: []ldapwire.Change{{Operation: op, Modification: attrs("member", "uid=direct,dc=plant")[0]}}})
				if err == nil {
					err = resultError(m)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("written back/%d", size), func(b *testing.B) {
			link := wrappertest.NewLink()
			prepare(link, devicePatterns("cn={}", "member", "objectClass"))
			p := startProxy(b, s.addr)
			stop := startAttached(b, link, p.addr(), nil, nil)
			link.Await(b, "the listing", func() bool { return len(link.Candidates(wrappertest.ViaSeen)) == 1 })
			n := 0
			for ; b.Loop(); n++ {
				link.PushPut("cn=all", []string{with, without}[n%2])
				link.Await(b, "the write to be shown", func() bool { return len(p.requests()) > n && len(link.Observations()) > n+1 })
			}
			b.StopTimer()
			var bytes int64
			p.mu.Lock()
			for _, size := range p.sizes {
				bytes += size
			}
			p.mu.Unlock()
			b.ReportMetric(float64(bytes)/float64(n), "bytes-sent/op")
			b.ReportMetric(float64(link.Counted("entries_read")), "entries-read")
			if err := stop(); err != nil {
				b.Fatal(err)
			}
		})
		s.kill()
	}
}
