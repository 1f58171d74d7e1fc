package main

import (
	"fmt"

	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// ldapVirtual compares the gateway as a directory of its own with a slapd that has the same entries: nobody writes, so that the
// disk of neither is measured.
func ldapVirtual(l *lab, o options) (*table, error) {
	t := &table{title: "LDAP virtual", columns: []string{"slapd", "spookgw"}}
	server, err := l.slapd()
	if err != nil {
		return t, err
	}
	mapping := "register \"person/{uid}\" {\n  bind \"ldap\" \"uid={uid},ou=people\" {}\n}\n"
	gateway, err := l.spookgwWith("ldap", "", mapping, `base = "dc=bench"`)
	if err != nil {
		return t, err
	}
	if err := ldapPeople(gateway.addr); err != nil {
		return t, err
	}
	all := []contender{{"slapd", server, server.addr}, {"spookgw", gateway, gateway.addr}}
	for _, load := range []struct {
		name string
		ask  func(n int) ldapwire.Body
	}{
		{"search by DN", byDN},
		{"search, equality", byUID},
		{"search, as SSSD does", func(n int) ldapwire.Body {
			return &ldapwire.SearchRequest{BaseObject: "dc=bench", Scope: ldapwire.ScopeWholeSubtree, Attributes: []string{"uid", "cn", "mail", "modifyTimestamp"},
				Filter: &ldapwire.Filter{Kind: ldapwire.FilterAnd, Filters: []*ldapwire.Filter{
					{Kind: ldapwire.FilterEqualityMatch, Attribute: "uid", Value: fmt.Appendf(nil, "u%d", n)},
					{Kind: ldapwire.FilterEqualityMatch, Attribute: "objectClass", Value: []byte("inetOrgPerson")},
				}}}
		}},
	} {
		name := fmt.Sprintf("%s, %d clients", load.name, ldapClients)
		f, err := compare(o.rounds, all, func(c contender) (sample, error) { return ldapLoad(o, c, dialAnonymous, load.ask) })
		if err != nil {
			return t, fmt.Errorf("%s: %w", name, err)
		}
		rate, _ := f.rows(t, name, "/s")
		r := f.ratio("spookgw", "slapd")
		rate.mark, rate.verdict = fmt.Sprintf("%.2f of slapd, at least 1", r), atLeast(r, 1)
	}
	t.add(row{name: "memory, MB", cells: []string{fmt.Sprintf("%.0f", float64(server.rss())/1e6), fmt.Sprintf("%.0f", float64(gateway.rss())/1e6)}})
	return t, nil
}

// ldapPeople adds the people of a slapd, below entries that are there.
func ldapPeople(addr string) error {
	k, err := dialAnonymous(addr)
	if err != nil {
		return err
	}
	defer k.conn.Close()
	for n := range ldapEntries {
		if err := k.do(ldapPersonEntry(n)); err != nil {
			return err
		}
	}
	return nil
}

// ldapPersonEntry is one of them.
func ldapPersonEntry(n int) *ldapwire.AddRequest {
	q := &ldapwire.AddRequest{Entry: ldapPerson(n)}
	for _, a := range [][2]string{{"objectClass", "inetOrgPerson"}, {"uid", fmt.Sprintf("u%d", n)}, {"cn", fmt.Sprintf("Person %d", n)}, {"sn", "Person"},
		{"mail", fmt.Sprintf("u%d@bench.example", n)}, {"telephoneNumber", "1"}} {
		q.Attributes = append(q.Attributes, ldapwire.PartialAttribute{Type: a[0], Vals: [][]byte{[]byte(a[1])}})
	}
	return q
}
